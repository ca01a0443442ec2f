"""What do an evaluation, a submission, lists and pages cost as history grows?"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import django
import httpx

from tests.chaos.cluster import Cluster

from .stage import TRUE, options, stage, wait_until_completed
from .table import Row, percentile, publish

SMALLEST = 10_000
AT_ONCE = 50_000
"""Executions that one statement makes."""

DAYS = 80
"""Over which history is spread: all of it is kept."""

TARGET = 150.0
"""Milliseconds of a list or a page, p95."""

LISTS = (
    *("jobs", "jobs?state=completed", "jobs?state=failed", "jobs?type=batch", "jobs?name=old-1"),
    *("jobs/{job}", "jobs/{job}/executions", "jobs/{job}/evaluations", "jobs/{job}/versions"),
    *("executions", "executions?observed=failed", "executions?node={node}"),
    *("executions/{execution}", "evaluations", "evaluations?state=failed", "events?last=100"),
    *("events", "nodes", "nodes/{node}", "namespaces", "queue", "status"),
)
PAGES = (
    *("", "jobs/", "jobs/?state=failed", "jobs/?text=old-12", "jobs/{job}/"),
    *("executions/{execution}/", "nodes/", "nodes/{node}/", "queue/"),
)

# Past the triggers: of each job one execution of seven moves, two evaluations, two events.
_FILL = (
    """
    WITH new AS (
    INSERT INTO orchestrator_job (id, namespace_id, name, type, priority, version, round,
        intent_rev, seen_intent, state, reason, stop_requested, stop_reason, count, progress,
        tally, labels, rev, created_at, round_at, updated_at, ended_at)
    SELECT gen_random_uuid(), 'default', 'old-' || n, 'batch', 50, 1, 1, 1, 1,
        CASE WHEN n %% 100 = 0 THEN 'failed' ELSE 'completed' END, '[]', false, '', 1, '{}',
        '{"completed": 1}', '{}', 5, at, at, at, at + interval '10 s'
    FROM generate_series(%(first)s::int, %(last)s::int) n,
        LATERAL (SELECT now() - interval '1 day' * (%(days)s * (1 - n / %(all)s::float8)) AS at) t
    RETURNING id, name, state, created_at, ended_at)
    INSERT INTO made SELECT * FROM new
    """,
    """
    INSERT INTO orchestrator_jobversion (job_id, number, spec, digest, generation, actor)
    SELECT id, 1, (SELECT spec FROM orchestrator_jobversion ORDER BY id LIMIT 1), md5(name), '',
        'user:ana' FROM made
    """,
    """
    INSERT INTO orchestrator_execution (id, job_id, node_id, version, round, slot, attempt, desired,
        observed, rev, order_rev, told_rev, cpu, memory, disk, gpu, reserved, settled, code,
        message, hint, retryable, created_at, started_at, ended_at)
    SELECT gen_random_uuid(), id, (SELECT id FROM nodes_node LIMIT 1), 1, 1, 0, 1, 'stopped',
        state, 5, 1, 1, 100, 0, 0, 0, false, true, '', '', '', true, created_at, created_at,
        ended_at FROM made
    """,
    """
    INSERT INTO orchestrator_executionhistory
        (execution_id, rev, lane, before, after, writer, actor, reason, at)
    SELECT e.id, n, 'observed', 'running', e.observed, 'endpoint', '', '', e.created_at
    FROM orchestrator_execution e JOIN made ON made.id = e.job_id, generate_series(1, 7) n
    """,
    """
    INSERT INTO orchestrator_executionoutput
        (execution_id, stdout, stderr, stdout_size, stderr_size)
    SELECT e.id, 'done', '', 4, 0
    FROM orchestrator_execution e JOIN made ON made.id = e.job_id WHERE name LIKE '%7'
    """,
    """
    INSERT INTO orchestrator_event (topic, what, actor, message, data, namespace, job_id, at)
    SELECT 'job', what, 'user:ana', 'ana submits ' || name, '{}', 'default', id, created_at
    FROM made, unnest(ARRAY['submit', 'completed']) what ORDER BY created_at
    """,
)
_EVALUATIONS = """
    INSERT INTO orchestrator_evaluation (job_id, type, priority, state, triggers, {more} delivery,
        worker, leased_at, finished_at, outcome, error)
    SELECT id, 'batch', 50, 'complete', '{{}}', {values} 1, 'w', created_at, created_at,
        'placed 1', ''
    FROM made, generate_series(1, 2) ORDER BY created_at
"""


def rows(chosen: argparse.Namespace) -> list[Row]:
    with stage(chosen, agents=1) as cluster:
        os.environ.update(cluster.environ, DJANGO_SETTINGS_MODULE="orchestrator.server.settings")
        django.setup()
        browser = _signed_in(cluster)
        _run(cluster, "warm-up", chosen.jobs)
        found, first, size = [], {}, 0
        for wanted in sizes(chosen.most):
            _fill(cluster, size + 1, wanted, chosen.most)
            size = wanted
            costs = _measure(cluster, browser, wanted, chosen)
            first = first or costs["evaluation"]
            found += _rows(wanted, costs, first)
        return found


def sizes(most: int) -> Iterator[int]:
    """From the smallest on each ten times the one before, and *most*."""
    size = SMALLEST
    while size < most:
        yield size
        size *= 10
    yield most


Costs = Mapping[str, Any]


def _measure(
    cluster: Cluster, browser: httpx.Client, size: int, chosen: argparse.Namespace
) -> dict[str, Costs]:
    """Milliseconds: of evaluations and submissions p50 and p95, of each list and page p95."""
    submits = _run(cluster, f"probe-{size}", chosen.jobs)
    looks = cluster.rows(
        "SELECT 1000 * extract(epoch FROM e.finished_at - e.leased_at)::float"
        " FROM orchestrator_evaluation e JOIN orchestrator_job j ON j.id = e.job_id"
        " WHERE j.name LIKE %s AND e.finished_at IS NOT NULL",
        f"probe-{size}-%",
    )
    job, execution, node = cluster.rows(
        "SELECT j.id::text, e.id::text, e.node_id::text"
        " FROM orchestrator_job j JOIN orchestrator_execution e ON e.job_id = j.id"
        " WHERE j.name = 'old-7'"
    )[0]
    known = {"job": job, "execution": execution, "node": node}

    def asked(client: httpx.Client, path: str) -> float:
        to = path.format(**known)
        return percentile(_times(lambda: client.get(to).raise_for_status(), chosen.asks), 0.95)

    return {
        "evaluation": _ends([time for (time,) in looks]),
        "submission": _ends(submits),
        "list of the API": {path: asked(cluster.client, path) for path in LISTS},
        "page": {path: asked(browser, path) for path in PAGES},
    }


def _run(cluster: Cluster, name: str, jobs: int) -> list[float]:
    """Submit so many jobs, one after the other, and see them end; how long each submission took."""
    numbers = iter(range(jobs))

    def submit() -> None:
        job = {"name": f"{name}-{next(numbers)}", "type": "batch", "task": TRUE}
        cluster.client.post("jobs", json=job).raise_for_status()

    times = _times(submit, jobs)
    wait_until_completed(cluster, f"{name}-", jobs)
    return times


def _times(does: Callable[[], object], number: int) -> list[float]:
    """Milliseconds of each call."""
    found = []
    for _ in range(number):
        began = time.perf_counter()
        does()
        found.append(1000 * (time.perf_counter() - began))
    return found


def _ends(times: list[float]) -> Costs:
    return {"p50": percentile(times, 0.5), "p95": percentile(times, 0.95)}


def _rows(size: int, costs: Mapping[str, Costs], first: Costs) -> Iterator[Row]:
    past = f"{size:,} executions in history"
    for what in ("evaluation", "submission"):
        cost = costs[what]
        target = round(first["p50"] * 1.1, 2) if what == "evaluation" else None
        yield Row(f"{past}: {what}, p50", round(cost["p50"], 2), "ms", target, detail=dict(cost))
    for what in ("list of the API", "page"):
        slowest = max(costs[what], key=costs[what].__getitem__)
        detail = {path or "overview": round(cost, 1) for path, cost in costs[what].items()}
        yield Row(
            f"{past}: slowest {what}, p95",
            round(costs[what][slowest], 1),
            "ms",
            TARGET,
            detail={"slowest": slowest or "overview", "p95_ms": detail},
        )


def _signed_in(cluster: Cluster) -> httpx.Client:
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.test import Client

    visitor = Client()
    visitor.force_login(User.objects.create_superuser("benchmark"))
    name = settings.SESSION_COOKIE_NAME
    return httpx.Client(
        base_url=f"{cluster.here}/",
        cookies={name: visitor.cookies[name].value},
        timeout=60,
        trust_env=False,
    )


def _fill(cluster: Cluster, first: int, last: int, most: int) -> None:
    """Make the jobs of these numbers with all that belongs to them, past all triggers."""
    database = cluster.database
    if first == 1:
        database.execute(
            "INSERT INTO orchestrator_event (topic, what, actor, message, data, at)"
            " SELECT 'job', 'x', '', '', '{}', now() - n * interval '7 days'"
            " FROM generate_series(0, 13) n"
        )
        database.execute("SELECT orchestrator_open_event_weeks(5)")
    fenced = cluster.one(
        "SELECT count(*) FROM pg_attribute WHERE attname = 'token' AND NOT attisdropped"
        " AND attrelid = 'orchestrator_evaluation'::regclass"
    )
    columns = {"more": "token,", "values": "1,"} if fenced else {"more": "", "values": ""}
    jobs, *others = _FILL
    for start in range(first, last + 1, AT_ONCE):
        numbers = {"first": start, "last": min(start + AT_ONCE - 1, last)}
        with database.transaction():
            database.execute("SET LOCAL session_replication_role = replica")
            database.execute(
                "CREATE TEMPORARY TABLE made (id uuid, name text, state text,"
                " created_at timestamptz, ended_at timestamptz) ON COMMIT DROP"
            )
            database.execute(jobs, {**numbers, "all": most, "days": DAYS})
            database.execute("ANALYZE made")
            for statement in others:
                database.execute(statement)
            database.execute(_EVALUATIONS.format(**columns))
    database.execute("VACUUM ANALYZE")


if __name__ == "__main__":
    publish("history", rows(options(__doc__, most=1_000_000, jobs=100, asks=40)))
