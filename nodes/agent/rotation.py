"""Our credential is replaced long before its time is over, and at no moment are we without one.

The new one is asked for, written down beside the old one, and used: only then the old one ends
there, and is forgotten here.  Whoever dies in between begins again with what is written down.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from . import enrolment
from .enrolment import Damaged, Identity, Refused, Unreachable

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Seconds for which a credential is used: two thirds of thirty days.
AFTER = 20 * 86400.0
#: Nodes that joined together do not all ask at once.
_SPREAD = 3600.0
#: Seconds between two looks at the clock, which may be set, and between attempts.
_LOOK, _AGAIN = 3600.0, 600.0


def is_due(identity: Identity, now: float) -> bool:
    """Whether *identity* wants a new credential; a clock that was set back says nothing."""
    return bool(identity.previous) or not 0 <= now - identity.issued < AFTER


def rotate(
    state: Path,
    identity: Identity,
    *,
    ask: Callable[[str], str],
    use: Callable[[str], None],
    now: float,
) -> Identity:
    """The identity with another credential that the orchestrator knows; it is remembered.

    *ask* trades a credential for a new one, *use* shows a credential.  Raises what they raise:
    Unreachable, and Refused.
    """
    if not identity.previous:
        new = ask(identity.credential)
        identity = replace(identity, credential=new, previous=identity.credential, issued=now)
        enrolment.remember(state, identity)
    try:
        use(identity.credential)
    except Refused:
        # We were away for so long that it is void: the one before goes on.
        enrolment.remember(state, replace(identity, credential=identity.previous, previous=""))
        raise
    identity = replace(identity, previous="")
    enrolment.remember(state, identity)
    return identity


async def keep(
    server: str, state: Path, identity: Identity, use_from_now_on: Callable[[str], None]
) -> None:
    """Replace the credential whenever it is time, until cancelled; what is begun is finished."""
    ask = partial(enrolment.new_credential, server)
    use = partial(enrolment.use_credential, server)
    pause = random.uniform(0, _SPREAD)  # noqa: S311
    if identity.previous:
        pause = 0.0
    while True:
        await asyncio.sleep(pause)
        pause = _LOOK
        now = time.time()
        if not is_due(identity, now):
            continue
        try:
            identity = await _whole(partial(rotate, state, identity, ask=ask, use=use, now=now))
            log.info("the credential was replaced")
        except (Refused, Unreachable, Damaged, OSError) as error:
            log.warning("the credential cannot be replaced yet: %s", error)
            with suppress(Damaged, OSError):
                identity = enrolment.recall(state) or identity
            pause = _LOOK if isinstance(error, Refused) else _AGAIN
        use_from_now_on(identity.credential)


async def _whole(call: Callable[[], T]) -> T:
    """Call in a thread, and wait for it also when we are told to end meanwhile."""
    calling = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.wait((calling,))
    except asyncio.CancelledError:
        await asyncio.wait((calling,))
        raise
    return calling.result()
