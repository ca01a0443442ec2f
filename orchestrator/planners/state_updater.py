"""The StateUpdater writes plans and acknowledges their evaluations, in one transaction.

Locks are taken in the order of ``nodes.locks``.  What no longer fits is dropped from a plan, the
rest is applied, and that job is evaluated again: what was decided may be old, what is written is
true.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection, transaction

from nodes.hints import Hint, after_commit
from nodes.locks import Lock, lock_rows
from nodes.protocol.resources import Resources
from orchestrator import broker
from orchestrator.explain import reasons, wording
from orchestrator.lifecycle import ENDED, OBSERVED, Desired, Observed, Writer
from orchestrator.models import journal, spec_cache
from orchestrator.planners import slot_rows
from orchestrator.planners.transitions import (
    LockedExecution,
    LockedNode,
    Wish,
    desire,
    lock_executions,
    lock_nodes,
    reserve,
)
from orchestrator.scheduling.feasibility import demand
from orchestrator.scheduling.plan import Place, Plan
from orchestrator.scheduling.world import World


@dataclass(slots=True, eq=False)
class Decision:
    """A plan, the world it was made from, and the lease under which it may be written.

    ``plan`` is what of it is still to be written, ``dropped`` what of the rest was not.
    ``is_in_doubt`` says that nobody knows whether a part of it is: it must not be tried again.
    """

    lease: broker.Lease
    world: World
    plan: Plan
    dropped: list[str] = field(default_factory=list)
    is_in_doubt: bool = False


@dataclass(slots=True)
class _Writing:
    """What of one decision is written; ``dropped`` are sentences about what is not."""

    decision: Decision
    plan: Plan
    job: _Job = field(init=False)
    wishes: list[Wish] = field(default_factory=list)
    places: list[tuple[Place, int]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


MOST_PLACED = 1000
"""New executions that one transaction writes: it holds the rows of their nodes until it ends."""


def apply(decisions: Sequence[Decision]) -> None:
    """Write the plans of *decisions* and acknowledge their evaluations.

    A decision whose lease was taken over, or whose job has changed meanwhile, is thrown away:
    its job is evaluated again.  What takes more than MOST_PLACED placements is written in several
    transactions, in the order of *decisions*; the first parts of a large plan are no less wanted
    if its rest is thrown away.  After an error apply them one by one: what was written is not
    written again.  Those that are in doubt are to be decided again.
    """
    group: list[_Writing] = []
    for decision in decisions:
        if len(decision.plan.place) > MOST_PLACED and group:
            _write(group, is_last=True)
            group = []
        while len(decision.plan.place) > MOST_PLACED:
            part, rest = parts(decision.plan)
            decision.dropped += _write_part(_Writing(decision, part))
            decision.plan = rest
        placed = sum(len(it.plan.place) for it in group)
        if group and placed + len(decision.plan.place) > MOST_PLACED:
            _write(group, is_last=True)
            group = []
        group.append(_Writing(decision, decision.plan, dropped=[*decision.dropped]))
    _write(group, is_last=True)


def _write_part(writing: _Writing) -> list[str]:
    """Write a part that is not the last, whose lease does not tell whether it was written."""
    connection.ensure_connection()
    before = connection.connection
    try:
        return _write([writing], is_last=False)
    except Exception:
        # After a connection that was lost there is another by now.
        writing.decision.is_in_doubt = connection.connection is not before
        raise


def parts(plan: Plan) -> tuple[Plan, Plan]:
    """What of a large *plan* is written first, with all that makes room for the rest; the rest."""
    first = Plan(place=plan.place[:MOST_PLACED], stop=plan.stop, approve=plan.approve)
    return first, replace(plan, place=plan.place[MOST_PLACED:], stop=(), approve=())


def _write(writings: Sequence[_Writing], *, is_last: bool) -> list[str]:
    """Write them in one transaction, and acknowledge what is written *is_last*; what is dropped."""
    with transaction.atomic(durable=True):
        if any(w.plan.blocked for w in writings):
            broker.lock_blocking()
        held = broker.hold([w.decision.lease for w in writings])
        writings = [w for w in writings if w.decision.lease in held]
        jobs = _lock_jobs(w.decision.lease.job for w in writings)
        current, stale = [], []
        for writing in writings:
            job = jobs.get(writing.decision.lease.job)
            if job is not None and _is_current(job, writing.decision.world):
                writing.job = job
                current.append(writing)
            else:
                stale.append(writing.decision)
        _write_executions(current)
        if is_last:
            _write_jobs(current)
            slot_rows.write(
                (w.job.id, w.decision.world.job.progress.slots, w.plan.progress.slots)
                for w in current
            )
            broker.ack([_result(w) for w in current] + [_thrown_away(d) for d in stale])
        after_commit(Hint.VIEW)
    return [sentence for w in current for sentence in w.dropped]


class _Job(NamedTuple):
    id: UUID
    name: str
    intent_rev: int
    seen_intent: int
    round: int
    state: str
    reason: str
    progress: str
    tally: str


def _lock_jobs(ids: Iterable[UUID]) -> dict[UUID, _Job]:
    columns = "id, name, intent_rev, seen_intent, round, state, reason, progress, tally"
    return {row[0]: _Job(*row) for row in lock_rows(Lock.JOBS, ids, columns)}


def _is_current(job: _Job, world: World) -> bool:
    return job.intent_rev == world.job.intent_rev


# --- executions and nodes --------------------------------------------------------------------


def _write_executions(writings: Sequence[_Writing]) -> None:
    touched = {
        UUID(execution)
        for w in writings
        for execution in (
            *(stop.execution for stop in w.plan.stop),
            *w.plan.approve,
        )
    }
    settled = {UUID(execution) for w in writings for execution in w.plan.settle}
    executions = lock_executions(touched | settled)
    nodes = lock_nodes(
        {e.node for e in executions.values() if e.id in touched}
        | {UUID(place.node) for w in writings for place in w.plan.place}
    )
    free = {key: node.free for key, node in nodes.items()}
    order_rev = {key: node.order_rev for key, node in nodes.items()}
    taken: dict[UUID, Resources] = {}
    for writing in writings:
        _choose_wishes(writing, executions, order_rev)
        _choose_places(writing, nodes, free, order_rev, taken)
    # Stops come first: a slot has one wanted execution at most.
    desire([wish for w in writings for wish in w.wishes if wish.after is Desired.STOPPED])
    desire([wish for w in writings for wish in w.wishes if wish.after is Desired.RUNNING])
    _settle(settled)
    _insert([(w, place, rev) for w in writings for place, rev in w.places])
    moved = {key: rev for key, rev in order_rev.items() if rev != nodes[key].order_rev}
    reserve(taken, moved)
    if moved:
        after_commit(Hint.ORDERS)


def _choose_wishes(
    writing: _Writing, executions: dict[UUID, LockedExecution], order_rev: dict[UUID, int]
) -> None:
    def wish(execution: LockedExecution, after: Desired, reason: str, cause: str = "") -> None:
        order_rev[execution.node] += 1
        rev = order_rev[execution.node]
        writing.wishes.append(Wish(execution.id, execution.desired, after, rev, reason, cause))

    for stop in writing.plan.stop:
        execution = executions.get(UUID(stop.execution))
        if execution is not None and execution.desired is not Desired.STOPPED:
            wish(execution, Desired.STOPPED, stop.detail, stop.cause)
    for approved in writing.plan.approve:
        execution = executions.get(UUID(approved))
        if execution is None or not _bids(execution):
            writing.dropped.append(f"the bid of execution {approved[:8]} is gone")
        else:
            wish(execution, Desired.RUNNING, "its bid is accepted")


def _bids(execution: LockedExecution) -> bool:
    return (
        execution.desired is Desired.PENDING and execution.observed is Observed.ASK_FOR_BID_ACCEPTED
    )


def _choose_places(
    writing: _Writing,
    nodes: dict[UUID, LockedNode],
    free: dict[UUID, Resources],
    order_rev: dict[UUID, int],
    taken: dict[UUID, Resources],
) -> None:
    for place in writing.plan.place:
        node = UUID(place.node)
        refusal = _refusal(nodes.get(node), free.get(node), place.need)
        if refusal is not None:
            writing.dropped.append(f"slot {place.slot}: {refusal}")
            continue
        free[node] -= place.need
        taken[node] = taken.get(node, Resources()) + place.need
        order_rev[node] += 1
        writing.places.append((place, order_rev[node]))


def _refusal(node: LockedNode | None, free: Resources | None, need: Resources) -> str | None:
    """Why a placement that was good when it was decided is not any longer."""
    if node is None or free is None:
        return "its node is gone"
    if node.closed:
        return f"{node.name} {node.closed}"
    short = need.shortfalls(free)
    if short:
        return f"{node.name} filled first, short of " + ", ".join(
            f"{amount} {dimension}" for dimension, amount in short.items()
        )
    return None


def _settle(executions: Collection[UUID]) -> None:
    if not executions:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE orchestrator_execution SET settled = true"
            " WHERE id = ANY(%s) AND observed = ANY(%s)",
            [list(executions), [str(it) for it in OBSERVED.terminal]],
        )


_INSERT = """
    INSERT INTO orchestrator_execution (
        id, job_id, node_id, evaluation_id, version, generation, round, slot, attempt, desired,
        observed, rev, order_rev, told_rev, cpu, memory, disk, gpu, reserved, settled, code,
        message, hint, retryable, by_writer, by_reason)
    SELECT gen_random_uuid(), p.job, p.node, p.evaluation, p.version, v.generation, p.round,
        p.slot, p.attempt, p.desired, %s, 1, p.order_rev, 0, p.cpu, p.memory, p.disk, p.gpu, true,
        false, '', '', '', true, %s, 'placed'
    FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::int[], %s::int[], %s::int[], %s::int[],
                %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS p(job, node, evaluation, version, round, slot, attempt, desired, order_rev,
             cpu, memory, disk, gpu)
    JOIN orchestrator_jobversion v ON v.job_id = p.job AND v.number = p.version
"""


def _insert(placed: Sequence[tuple[_Writing, Place, int]]) -> None:
    if not placed:
        return
    rows = [
        (
            w.job.id,
            UUID(place.node),
            w.decision.lease.evaluation,
            place.version,
            w.job.round,
            place.slot,
            place.attempt,
            str(place.desired),
            rev,
            *place.need.astuple(),
        )
        for w, place, rev in placed
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            _INSERT,
            [
                str(Observed.NEW),
                str(Writer.STATE_UPDATER),
                *(list(column) for column in zip(*rows, strict=True)),
            ],
        )


# --- jobs and evaluations --------------------------------------------------------------------


def _write_jobs(writings: Sequence[_Writing]) -> None:
    changed = [
        (w.job.id, str(w.plan.state), why, progress, tally)
        for w in writings
        if _differs(
            w,
            why := _reasons(w),
            progress := spec_cache.dump_progress(w.plan.progress),
            tally := dict(w.plan.tally),
        )
    ]
    if not changed:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE orchestrator_job j SET state = m.state, reason = m.reason,
                progress = m.progress, tally = m.tally, seen_intent = j.intent_rev
            FROM unnest(%s::uuid[], %s::text[], %s::jsonb[], %s::jsonb[], %s::jsonb[])
                AS m(id, state, reason, progress, tally)
            WHERE j.id = m.id
            """,
            [
                [row[0] for row in changed],
                [row[1] for row in changed],
                [json.dumps(row[2]) for row in changed],
                [json.dumps(row[3]) for row in changed],
                [json.dumps(row[4]) for row in changed],
            ],
        )
    journal.record(
        journal.fact(
            "job",
            f"job-{w.plan.state}",
            wording.ending(w.job.name, w.plan.state, w.plan.reasons or ()),
            actor="scheduler",
            job=w.job.id,
            evaluation=w.decision.lease.evaluation,
        )
        for w in writings
        if w.job.state != w.plan.state
    )


def _reasons(writing: _Writing) -> Any:
    """The JSON of the reasons that the plan gives, or that the job has where it leaves them."""
    planned = writing.plan.reasons
    return json.loads(writing.job.reason) if planned is None else reasons.dump(planned)


def _differs(writing: _Writing, why: Any, progress: dict[str, Any], tally: dict[str, int]) -> bool:
    job = writing.job
    if job.seen_intent != job.intent_rev:
        return True
    before = (json.loads(job.reason), json.loads(job.progress), json.loads(job.tally))
    return (job.state, *before) != (str(writing.plan.state), why, progress, tally)


def _result(writing: _Writing) -> broker.Result:
    plan, lease = writing.plan, writing.decision.lease
    ended = plan.state in ENDED
    outcome = plan.summary or ("nothing to do" if not ended else f"the job is {plan.state}")
    if writing.dropped:
        outcome += "; not any longer: " + "; ".join(writing.dropped[:5])
    return broker.Result(
        lease=lease,
        complete=not writing.dropped,
        outcome=outcome,
        followups=tuple((followup.at, followup.trigger) for followup in plan.followups),
        blocked=plan.blocked if not writing.dropped else None,
        demand=demand(writing.decision.world.job.spec) if plan.blocked else None,
        revision=writing.decision.world.room.revision,
        record=dict(plan.record) if plan.record is not None else None,
    )


def _thrown_away(decision: Decision) -> broker.Result:
    return broker.Result(
        lease=decision.lease,
        complete=False,
        outcome="thrown away: the job changed while it was being evaluated",
    )
