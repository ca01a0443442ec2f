"""Values as they lie in the database: specifications, parsed once, and progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from .models import JobVersion
from .scheduling.world import Progress
from .spec import JobSpec

Version = tuple[UUID, int]

_specs: dict[Version, JobSpec] = {}
_KEPT = 4096


def specs(versions: Iterable[Version]) -> Mapping[Version, JobSpec]:
    """The specification of each (job, number); one query for those not seen lately.

    A version never changes, so what is in memory is always true.  It was checked as text when it
    came in; here only its types are made again.
    """
    wanted = set(versions)
    missing = wanted - _specs.keys()
    if missing:
        rows = JobVersion.objects.filter(
            job_id__in={job for job, _ in missing}, number__in={number for _, number in missing}
        ).values_list("job_id", "number", "spec")
        found = {(job, number): JobSpec.model_validate(spec) for job, number, spec in rows}
        while len(_specs) + len(found) > _KEPT and _specs:
            _specs.pop(next(iter(_specs)))
        _specs.update(found)
        return {key: _specs.get(key) or found[key] for key in wanted}
    return {key: _specs[key] for key in wanted}


def dump_progress(progress: Progress) -> dict[str, Any]:
    """The JSON of *progress*, without what is empty."""
    whole = {
        "completed": [list(pair) for pair in progress.completed],
        "attempts": {str(slot): n for slot, n in progress.attempts.items()},
        "retry_at": {str(slot): at.isoformat() for slot, at in progress.retry_at.items()},
        "avoid": {node: at.isoformat() for node, at in progress.avoid.items()},
        "failures": dict(progress.failures),
        "outcomes": dict(progress.outcomes),
        "refusals": dict(progress.refusals),
        "failed": progress.failed,
        "waiting_since": progress.waiting_since and progress.waiting_since.isoformat(),
    }
    return {name: value for name, value in whole.items() if value}


def load_progress(stored: Mapping[str, Any]) -> Progress:
    """The opposite of `dump_progress`."""
    return Progress(
        completed=tuple((first, last) for first, last in stored.get("completed", ())),
        attempts={int(slot): n for slot, n in stored.get("attempts", {}).items()},
        retry_at={int(slot): _instant(at) for slot, at in stored.get("retry_at", {}).items()},
        avoid={node: _instant(at) for node, at in stored.get("avoid", {}).items()},
        failures=stored.get("failures", {}),
        outcomes=stored.get("outcomes", {}),
        refusals=stored.get("refusals", {}),
        failed=stored.get("failed", ""),
        waiting_since=_instant(waiting) if (waiting := stored.get("waiting_since")) else None,
    )


@lru_cache(maxsize=1024)
def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
