"""Work whose every start leaves a proof that no part of ours has a hand in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.chaos.cluster import Cluster, until
from tests.invariants import violations, violations_of_proofs, violations_when_quiet

ONCE = """
set -C
{ : > "$PROOFS/$MUSTER_EXECUTION_ID"; } 2>/dev/null || {
    : > "$PROOFS/$MUSTER_EXECUTION_ID.again"
    echo "started twice" >&2
    exit 97
}
exec sleep "$SECONDS_TO_RUN"
"""

ENDED = ("completed", "failed", "stopped")


def spec(cluster: Cluster, name: str, count: int, seconds: float, **more: Any) -> dict[str, Any]:
    """A job whose tasks each prove that they began, then take *seconds*."""
    return {
        "name": name,
        "count": count,
        "task": {
            "command": ["/bin/sh", "-c", ONCE],
            "env": {"PROOFS": str(cluster.proofs), "SECONDS_TO_RUN": f"{seconds:g}"},
            "resources": {"cpu": "100m", "memory": "16MiB"},
        },
        **more,
    }


class JobSet:
    """Some jobs submitted together, and what has become of them."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def submit(self, *, jobs: int, count: int, seconds: tuple[float, float]) -> None:
        """Submit *jobs* of *count* slots, every other one without approval, of various lengths."""
        shortest, longest = seconds
        specs = [
            spec(
                self.cluster,
                f"{self.name}-{number}",
                count,
                shortest + (longest - shortest) * number / jobs,
                approval=("bid", "none")[number % 2],
            )
            for number in range(jobs)
        ]
        answer = self.cluster.client.post("jobs/batch", json={"jobs": specs})
        assert answer.is_success, answer.text
        assert len(answer.json()["items"]) == jobs

    def observed(self, *states: str) -> int:
        """How many executions are, or have been, in one of *states*."""
        return int(
            self.cluster.one(
                "SELECT count(DISTINCT h.execution_id) FROM orchestrator_executionhistory h"
                " JOIN orchestrator_execution e ON e.id = h.execution_id"
                " JOIN orchestrator_job j ON j.id = e.job_id"
                " WHERE j.name LIKE %s AND h.after = ANY (%s)",
                f"{self.name}-%",
                list(states),
            )
        )

    def states(self) -> dict[str, int]:
        return dict(
            self.cluster.rows(
                "SELECT state, count(*) FROM orchestrator_job WHERE name LIKE %s GROUP BY state",
                f"{self.name}-%",
            )
        )

    def has_ended(self) -> bool:
        return set(self.states()) <= set(ENDED)

    def unfinished(self) -> str:
        """What the jobs that have not ended wait for, in rows."""
        rows = self.cluster.rows(
            "SELECT j.name, j.state, j.reason, r.worker, r.leased_until, r.retry_at, r.deliveries,"
            " r.dead_letter, d.at, d.trigger, b.since, b.class,"
            " (SELECT count(*) FROM orchestrator_brokertrigger t WHERE t.job_id = j.id),"
            " (SELECT string_agg(e.desired || '/' || e.observed, ' ')"
            "  FROM orchestrator_execution e WHERE e.job_id = j.id AND e.ended_at IS NULL)"
            " FROM orchestrator_job j LEFT JOIN orchestrator_brokerrow r ON r.job_id = j.id"
            " LEFT JOIN orchestrator_brokerdue d ON d.job_id = j.id"
            " LEFT JOIN orchestrator_blockedjob b ON b.job_id = j.id"
            " WHERE j.name LIKE %s AND j.ended_at IS NULL LIMIT 10",
            f"{self.name}-%",
        )
        return "\n".join(" ".join(map(str, row)) for row in rows)

    def wait_until_running(self, at_least: int, within: float = 60) -> None:
        until(
            lambda: self.observed("running") >= at_least,
            within=within,
            say=lambda: f"{at_least} running\n{self.unfinished()}\n{self.cluster.said()}",
        )

    def wait_until_completed(self, within: float) -> None:
        until(
            self.has_ended,
            within=within,
            pause=0.1,
            say=lambda: f"all ended: {self.states()}\n{self.unfinished()}\n{self.cluster.said()}",
        )
        assert set(self.states()) == {"completed"}, self.states()


def audit(cluster: Cluster, within: float = 20) -> None:
    """Wait until nothing is left to do, then insist that nothing is wrong."""
    found: list[str] = []

    def is_clean() -> bool:
        with _looking(cluster) as cursor:
            found[:] = violations_when_quiet(cursor)
        return not found

    until(is_clean, within=within, pause=0.2, say=lambda: "quiet:\n" + "\n".join(found))
    with _looking(cluster) as cursor:
        found = violations_of_proofs(cursor, cluster.proofs)
    assert not found, "\n".join(found)


def audit_at_work(cluster: Cluster) -> None:
    """Insist that nothing is wrong in the middle of it all."""
    with _looking(cluster) as cursor:
        found = violations(cursor)
    assert not found, "\n".join(found)


@contextmanager
def _looking(cluster: Cluster) -> Iterator[psycopg.Cursor[Any]]:
    """A cursor under which the database stands still."""
    with psycopg.connect(cluster.server.place.conninfo()) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.cursor() as cursor:
            yield cursor
