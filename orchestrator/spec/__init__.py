"""What a user may ask for: the job specification, parsed once, at the edge.

``parse`` and ``parse_json`` give a JobSpec or raise InvalidSpec with every mistake at once, each
with its path, a sentence and the cure.  Beyond them nobody checks a specification again:
``load`` reads what is stored as it is.
"""

from .contradictions import contradictions
from .drivers import DRIVERS
from .fields import NAME
from .model import (
    Affinity,
    Approval,
    Backoff,
    JobBody,
    JobSpec,
    Needs,
    Network,
    OnLost,
    Retry,
    Spread,
    TaskSpec,
    Timeouts,
)
from .parsing import InvalidSpec, json_schema, parse, parse_json
from .storage import FIRST, body, canonical, digest, generation, in_full, load, stored

__all__ = [
    "DRIVERS",
    "FIRST",
    "NAME",
    "Affinity",
    "Approval",
    "Backoff",
    "InvalidSpec",
    "JobBody",
    "JobSpec",
    "Needs",
    "Network",
    "OnLost",
    "Retry",
    "Spread",
    "TaskSpec",
    "Timeouts",
    "body",
    "canonical",
    "contradictions",
    "digest",
    "generation",
    "in_full",
    "json_schema",
    "load",
    "parse",
    "parse_json",
    "stored",
]
