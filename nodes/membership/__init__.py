"""Who belongs: joining, approval, sessions, and noticing silence.

``joining`` trades join tokens for credentials, ``verbs`` are what operators may do to a node,
``presence`` is the session row that fences what a node says, ``silence`` what time alone causes.
"""

from .joining import (
    authenticate,
    create_join_token,
    enrol,
    renew_join_token,
    revoke,
    revoke_join_token,
    rotate,
)
from .operator import (
    approve,
    reject,
    release,
    remove,
    set_draining,
    set_eligible,
    set_labels,
)
from .presence import (
    Anomalies,
    Beat,
    Greeting,
    beat,
    degraded_sentence,
    fence,
    greet,
    hold_session,
    leave,
    outdated,
    reconnect,
    set_degraded,
)
from .silence import Patience, Silence, detect_silence

__all__ = [
    "Anomalies",
    "Beat",
    "Greeting",
    "Patience",
    "Silence",
    "approve",
    "authenticate",
    "beat",
    "create_join_token",
    "degraded_sentence",
    "detect_silence",
    "enrol",
    "fence",
    "greet",
    "hold_session",
    "leave",
    "outdated",
    "reconnect",
    "reject",
    "release",
    "remove",
    "renew_join_token",
    "revoke",
    "revoke_join_token",
    "rotate",
    "set_degraded",
    "set_draining",
    "set_eligible",
    "set_labels",
]
