"""Bounds on work, which a machine that is slow, or does much else, does not break."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds that `_some_work` takes on a machine of today.
NOMINAL = 0.03


@contextmanager
def within(seconds: float, what: str = "this") -> Iterator[None]:
    """Fail if what is done meanwhile, in this thread, is more work than so many seconds."""
    began = time.thread_time()
    yield
    worked = time.thread_time() - began
    if worked >= seconds:
        slow = max(1.0, max(_some_work() for _ in range(3)) / NOMINAL)
        assert worked < seconds * slow, f"{what} took {worked:.1f} s of work"


def _some_work() -> float:
    began = time.thread_time()
    sum(number * number for number in range(400_000))
    return time.thread_time() - began
