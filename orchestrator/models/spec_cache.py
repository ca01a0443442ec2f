"""Values as they lie in the database: specifications, parsed once, and progress."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock
from typing import Any
from uuid import UUID

from orchestrator import spec
from orchestrator.explain import reasons
from orchestrator.explain.reasons import Failure
from orchestrator.scheduling import slot_set
from orchestrator.scheduling.bad_nodes import BadNode
from orchestrator.scheduling.waits import Wait, Waits
from orchestrator.scheduling.world import Progress
from orchestrator.spec import JobBody

from . import JobVersion

Version = tuple[UUID, int]
#: Number, attempts, failed attempts, not before when, and interruptions.
Slot = tuple[int, int, int, datetime | None, int]
SLOT = ("slot", "attempts", "failed_attempts", "retry_at", "interruptions")


class SpecCache:
    """The specifications that were asked for last, *most* of them; any thread may ask.

    A version never changes, so what is in memory is always true.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Version, JobBody] = OrderedDict()
        self._lock = Lock()

    def specs(self, versions: Iterable[Version]) -> Mapping[Version, JobBody]:
        """The specification of each (job, number); one query for those that are not kept."""
        wanted = set(versions)
        with self._lock:
            found = {key: self._kept[key] for key in wanted if key in self._kept}
        if missing := wanted - found.keys():
            found |= _read(missing)
        with self._lock:
            for key, it in found.items():
                self._kept[key] = it
                self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return found


#: The specification of each (job, number), from the memory that this process shares.
specs = SpecCache(most=4096).specs


def _read(versions: Set[Version]) -> dict[Version, JobBody]:
    jobs, numbers = zip(*versions, strict=True)
    rows = JobVersion.objects.filter(job_id__in=jobs, number__in=numbers)
    return {
        (job, number): spec.load(stored)
        for job, number, stored in rows.values_list("job_id", "number", "spec")
        if (job, number) in versions
    }


def dump_progress(progress: Progress) -> dict[str, Any]:
    """The JSON of *progress*, without what is empty, and without its slots: those are rows.

    ``tried`` is how many of them have failed.
    """
    whole = {
        "done": b64encode(progress.completed).decode(),
        "tried": len(progress.failed_attempts),
        "round": progress.round,
        "since": progress.since and progress.since.isoformat(),
        "bad_nodes": {
            node: [_whole(it.at), it.failed, it.refused, _whole(it.until)]
            for node, it in progress.bad_nodes.items()
        },
        "outcomes": dict(progress.outcomes),
        "failed": progress.failed and reasons.dump([progress.failed])[0],
        "last_failure": progress.last_failure and reasons.dump([progress.last_failure])[0],
        "turn": progress.turn,
        "waits": [
            [it.since.isoformat(), it.slots and b64encode(it.slots).decode()]
            for it in progress.waits
        ],
    }
    return {name: value for name, value in whole.items() if value}


def load_progress(stored: Mapping[str, Any], slots: Iterable[Slot] = ()) -> Progress:
    """The opposite of `dump_progress`, with the slots that are not as all begin."""
    slots = tuple(slots)
    ranges = stored.get("completed", ())  # As an earlier release had it.
    return Progress(
        round=stored.get("round"),
        since=_instant(since) if (since := stored.get("since")) else None,
        completed=slot_set.of_ranges(ranges) if ranges else b64decode(stored.get("done", "")),
        attempts={slot: n for slot, n, *_ in slots if n},
        failed_attempts={slot: n for slot, _, n, *_ in slots if n},
        retry_at={slot: at for slot, _, _, at, _ in slots if at is not None},
        interruptions={slot: n for slot, *_, n in slots if n},
        bad_nodes={
            node: BadNode(_of_whole(at), failed, refused, _of_whole(until) if until else None)
            for node, (at, failed, refused, until) in stored.get("bad_nodes", {}).items()
        },
        outcomes=stored.get("outcomes", {}),
        failed=_failure(stored.get("failed")),
        last_failure=_failure(stored.get("last_failure")),
        waits=_waits(stored),
        turn=stored.get("turn", ""),
    )


def _waits(stored: Mapping[str, Any]) -> Waits:
    if since := stored.get("waiting_since"):  # As an earlier release had it.
        return (Wait(_instant(since)),)
    return tuple(
        Wait(_instant(since), slots and b64decode(slots))
        for since, slots in stored.get("waits", ())
    )


def _failure(stored: Any) -> Failure | None:
    found = reasons.load_one(stored) if stored else None
    return found if isinstance(found, Failure) else None


def _whole(at: datetime | None) -> int:
    """Seconds since 1970, none of which are lost; 0 for no instant."""
    return 0 if at is None else math.ceil(at.timestamp())


def _of_whole(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@lru_cache(maxsize=1024)
def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
