"""Other sessions of the database, which do something and leave it open."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connections, transaction


@contextmanager
def open_transaction(does: Callable[[], object]) -> Iterator[None]:
    """Another session that has done so much, and has not committed."""
    begun, go_on = threading.Event(), threading.Event()

    def other() -> None:
        with transaction.atomic():
            does()
            begun.set()
            go_on.wait(20)
        connections.close_all()

    thread = threading.Thread(target=other)
    thread.start()
    assert begun.wait(20)
    try:
        yield
    finally:
        go_on.set()
        thread.join()
