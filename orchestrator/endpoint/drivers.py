"""Which drivers the nodes of the cluster have, and what is said of a job that asks for another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from django.db import connection

from orchestrator.scheduling.feasibility import DRIVER
from orchestrator.spec import DRIVERS, JobBody


def warnings(specs: Sequence[JobBody]) -> list[list[dict[str, str]]]:
    """A driver that no node has, of each of *specs*: a node that has it may still join."""
    offered = _offered({it.task.driver for it in specs})
    return [
        [] if offered is None or it.task.driver in offered else [_absent(it.task.driver, offered)]
        for it in specs
    ]


def _absent(driver: str, offered: Collection[str]) -> dict[str, str]:
    near = get_close_matches(driver, {*offered, *DRIVERS} - {driver}, n=1)
    have = f"The nodes have: {', '.join(sorted(offered))}." if offered else "No node has any yet."
    return {
        "path": "task.driver",
        "message": f"no node of the cluster has the driver {driver!r}; the job waits for one",
        "hint": f"Did you mean {near[0]!r}?" if near else have,
    }


def _offered(wanted: Collection[str]) -> set[str] | None:
    """The drivers of all nodes; None when they include those *wanted*, which is quicker to see."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXISTS (
                SELECT FROM unnest(%s::text[]) AS wanted(name) WHERE NOT EXISTS (
                    SELECT FROM nodes_node n
                    WHERE n.approval <> 'rejected' AND n.removed_at IS NULL
                    AND n.attributes ->> (%s || wanted.name) = 'true'))
            """,
            [list(wanted), DRIVER],
        )
        if not cursor.fetchone()[0]:
            return None
        cursor.execute(
            """
            SELECT DISTINCT one.key
            FROM nodes_node n, jsonb_each_text(n.attributes) AS one
            WHERE n.approval <> 'rejected' AND n.removed_at IS NULL
                AND starts_with(one.key, %s) AND one.value = 'true'
            """,
            [DRIVER],
        )
        return {key.removeprefix(DRIVER) for (key,) in cursor.fetchall()}
