"""What a statement reads of tables and indexes, however slow the machine is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

from tests.sessions import open_transaction


def pages_read(query: str, parameters: Sequence[Any] | Mapping[str, Any]) -> int:
    """How many pages *query* looks at, each as often as it does."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", parameters)
        (((plan,),),) = cursor.fetchall()
    return sum(plan["Plan"][f"Shared {how} Blocks"] for how in ("Hit", "Read"))


def nothing_is_vacuumed() -> Any:
    """Meanwhile somebody has a transaction open, so that all that was there stays."""

    def begin() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")

    return open_transaction(begin)
