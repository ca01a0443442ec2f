"""The ComputeForwarder tells the nodes, and writes what they have been told.

An execution row is the order to its node: every change of desired state gives it the node's next
``order_rev``.  Orders are read from there after a hint, sent by the session that the node has,
and written as told when the node has taken them.  There is no outbox to drain.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from msgspec.structs import replace

from nodes import membership
from nodes.callbacks import DesiredSet, NodeOrders, Unsendable
from nodes.locks import Lock, lock_rows
from nodes.protocol.lifecycle import Approval
from nodes.protocol.messages import (
    BATCH,
    Happened,
    Held,
    Hello,
    Holding,
    Order,
    SecretValues,
    Want,
)
from nodes.protocol.resources import Resources
from orchestrator import broker
from orchestrator.broker.looking import Pace
from orchestrator.lifecycle import (
    NOT_BEGUN,
    OBSERVED,
    TOLD,
    Desired,
    Observed,
    StopCause,
    Writer,
    path,
    want,
)
from orchestrator.models import Event, Execution, journal, spec_cache
from orchestrator.planners.transitions import (
    Changes,
    LockedExecution,
    Outcome,
    execution_id,
    lock_executions,
)
from orchestrator.spec import JobBody

from . import secret_values, unapproved_starts


class _Row(NamedTuple):
    """What an order is made of."""

    execution: UUID
    node: UUID
    job: UUID
    name: str
    slots: int
    version: int
    slot: int
    attempt: int
    desired: str
    observed: str
    rev: int
    cpu: int
    memory: int
    disk: int
    gpu: int
    reserved: bool


_COLUMNS = """
    e.id, e.node_id, e.job_id, j.name, j.count, e.version, e.slot, e.attempt, e.desired,
    e.observed, e.order_rev, e.cpu, e.memory, e.disk, e.gpu, e.reserved
"""

#: Orders in one answer, at most: more than one node is given, and no more than memory bears.
MOST_ORDERS = 4 * BATCH

# Which nodes have something untold.  The key of what is untold gives them one by one, whatever the
# number of nodes that have nothing.
_HOP = """
    WITH RECURSIVE waiting (node) AS (
        (SELECT node_id FROM orchestrator_untoldorder ORDER BY node_id LIMIT 1)
        UNION ALL
        SELECT (SELECT u.node_id FROM orchestrator_untoldorder u
                WHERE u.node_id > w.node ORDER BY u.node_id LIMIT 1)
        FROM waiting w WHERE w.node IS NOT NULL
    )
    SELECT node, rev FROM waiting JOIN unnest(%s::uuid[], %s::bigint[]) AS s(node, rev) USING (node)
"""

# While somebody's old snapshot is open, what was told stays in that key, and a hop wades through
# all of it.  It lies below what was sent, so that to ask for each node finds nothing of it.
_PROBE = """
    SELECT node, rev FROM unnest(%s::uuid[], %s::bigint[]) AS s(node, rev)
    WHERE (SELECT true FROM orchestrator_untoldorder
           WHERE node_id = s.node AND orchestrator_untoldorder.rev > s.rev
           ORDER BY orchestrator_untoldorder.rev LIMIT 1)
"""

#: Seconds that a hop may take to be had each time; else for a share of all time.
BRISK = 0.002
_hops = Pace()

# One statement, so one snapshot: an order revision is given under the node's lock and becomes
# visible with all those before it, so what is read is complete up to the last one that is read.
# With OFFSET executions are looked up one by one, in that order, until there are enough; and nodes
# once each, not once an order, as there may be thousands of versions of one.
_UNTOLD = f"""
    SELECT {_COLUMNS}
    FROM (
        SELECT node, rev FROM unnest(%s::uuid[], %s::bigint[]) AS s(node, rev)
        WHERE (SELECT approval FROM nodes_node WHERE id = s.node) = 'approved' OFFSET 0
    ) s CROSS JOIN LATERAL (
        SELECT it.*
        FROM (
            SELECT rev, execution_id FROM orchestrator_untoldorder
            WHERE node_id = s.node AND rev > s.rev ORDER BY rev OFFSET 0
        ) u CROSS JOIN LATERAL (
            SELECT * FROM orchestrator_execution WHERE id = u.execution_id OFFSET 0) it
        WHERE reserved AND observed <> %s
        ORDER BY u.rev LIMIT {BATCH}
    ) e
    JOIN orchestrator_job j ON j.id = e.job_id
    ORDER BY e.node_id, e.order_rev LIMIT %s
"""  # noqa: S608 - only our own columns and numbers

_DESIRED = f"""
    SELECT {_COLUMNS}
    FROM orchestrator_liveexecution l
    JOIN orchestrator_execution e ON e.id = l.execution_id
    JOIN orchestrator_job j ON j.id = e.job_id
    WHERE l.node_id = %s AND e.reserved AND e.observed <> ALL (%s)
    ORDER BY e.order_rev
"""  # noqa: S608 - only our own columns


def orders(nodes: Mapping[UUID, int], /, *, at_most: int = MOST_ORDERS) -> Sequence[NodeOrders]:
    """What each of these nodes must still be told, above the revision last sent to it.

    Three queries at most, a bounded answer; see ``nodes.callbacks.PendingOrders``.  Nodes that are
    not approved are told nothing, and nobody is told anything of what is over and gone.
    """
    if not nodes:
        return ()
    with connection.cursor() as cursor:
        waiting = _waiting(cursor, nodes)
        if not waiting:
            return ()
        # What is neither is over and gone, or is told when its node says hello; see `want`.
        lost = Observed.LOST.value
        cursor.execute(_UNTOLD, [list(waiting), list(waiting.values()), lost, at_most])
        rows = [_Row(*row) for row in cursor.fetchall()]
    found: dict[UUID, list[tuple[int, Order | Unsendable]]] = {}
    for row, order in zip(rows, _orders(rows), strict=True):
        if order is not None:
            found.setdefault(row.node, []).append((row.rev, order))
    return [
        NodeOrders(node, listed[-1][0], *_apart(order for _, order in listed))
        for node, listed in found.items()
    ]


def _waiting(cursor: CursorWrapper, nodes: Mapping[UUID, int]) -> dict[UUID, int]:
    """Those of *nodes* that have something untold."""
    asked = (list(nodes), list(nodes.values()))
    if not _hops.allows():
        cursor.execute(_PROBE, asked)
        return dict(cursor.fetchall())
    began = time.monotonic()
    cursor.execute(_HOP, asked)
    found = dict(cursor.fetchall())
    _hops.took(time.monotonic() - began, BRISK)
    return found


def desired(node: UUID, hello: Hello, epoch: int, /) -> DesiredSet:
    """Everything that *node* should hold, after catching up with what it says it holds.

    What it holds of executions that are over here, or are another node's, comes with STOP; what
    this database has never heard of is left alone, and written to the journal.  Raises Fenced, and
    changes nothing, when the node has a newer session than *epoch*: what that one holds is not in
    this hello.
    """
    held = {key: it for it in hello.holds if (key := execution_id(it.execution)) is not None}
    with transaction.atomic():
        membership.hold_session(node, epoch)
        stops = _catch_up(node, held, partial=hello.partial)
        # The node's row keeps plans out, so that the set and its revision belong together.
        [(order_rev, approval)] = lock_rows(Lock.NODES, [node], "order_rev, approval")
        if approval != Approval.APPROVED:
            return DesiredSet(order_rev, tuple(stops))
        broker.capacity_freed([node])  # It may hold what nothing else could.
        with connection.cursor() as cursor:
            cursor.execute(_DESIRED, [node, sorted(OBSERVED.terminal)])
            rows = [_Row(*found) for found in cursor.fetchall()]
        made, unsendable = _apart(order for order in _orders(rows) if order is not None)
        return DesiredSet(order_rev, (*made, *stops), unsendable)


def told(observed: Observed, wanted: Want) -> tuple[str, ...]:
    """The events that follow when a node has taken an order, for an execution in *observed*.

    STOP leads to none: the node's own report ends the execution.
    """
    event = TOLD.get(wanted)
    if event is None:
        return ()
    if wanted is Want.REJECT and observed is not Observed.ASK_FOR_BID_ACCEPTED:
        return ()
    return path(observed, event) or ()


# --- what a node holds, against what it should -----------------------------------------------

_PROVES = {
    Holding.BID: Happened.BID,
    Holding.PREPARING: Happened.PREPARE,
    Holding.RUNNING: Happened.START,
}


def _catch_up(node: UUID, held: Mapping[UUID, Held], *, partial: bool) -> list[Order]:
    here = Execution.objects.filter(live__node=node, reserved=True)
    reserved = here.values_list("pk", flat=True)
    locked = lock_executions({*reserved, *held})
    changes = Changes()
    stops: list[UUID] = []
    eager: list[LockedExecution] = []
    for execution in locked.values():
        holding = held.get(execution.id)
        over = execution.observed in OBSERVED.terminal
        if holding is None:
            if not partial:  # Else it may be held, and not be named.
                _not_held(changes, execution)
        elif execution.node != node or over:
            # Another node's, whose state directory this was, or over: it is not wanted here.
            if holding.state is not Holding.ENDED:
                stops.append(execution.id)
        elif holding.state in _PROVES:
            events = path(execution.observed, _PROVES[holding.state]) or ()
            if unapproved_starts.lacks_approval(execution, events):
                unapproved_starts.refuse(changes, execution, actor="node")
                eager.append(execution)
                stops.append(execution.id)
            else:
                changes.follow(execution, events, actor="node", reason="the node holds it so")
    changes.write()
    unapproved_starts.record(eager)
    _record_strangers(node, [key for key in held if key not in locked])
    return [Order(execution=str(key), want=Want.STOP, rev=0) for key in stops]


def _not_held(changes: Changes, execution: LockedExecution) -> None:
    """Its node does not hold it: it was never told, has given it back, or forgotten it."""
    observed, is_wanted = execution.observed, execution.desired is not Desired.STOPPED
    if observed in OBSERVED.terminal:
        # Its job may wait for the node to come back.
        changes.give_up(execution)
    elif observed in (Observed.NEW, Observed.ASK_FOR_BID):
        if not is_wanted:  # Else it comes with the desired set.
            reason = "stopped before its node was told"
            changes.follow(
                execution,
                ["cancel"],
                writer=Writer.COMPUTE_FORWARDER,
                reason=reason,
                outcome=Outcome(message=reason),
            )
    elif observed is Observed.ASK_FOR_BID_ACCEPTED and not is_wanted:
        changes.follow(execution, ["reject"], reason="its bid was not needed")
    else:
        changes.lose(execution, StopCause.FORGOTTEN_BY_NODE)


def _record_strangers(node: UUID, unknown: Sequence[UUID]) -> None:
    """Write down what only the node knows, once each however often it says hello."""
    if not unknown:
        return
    written = Event.objects.filter(
        node_id=node, what="unknown-execution", execution_id__in=unknown
    ).values_list("execution_id", flat=True)
    new = sorted(set(unknown) - set(written))
    journal.record(
        journal.fact(
            "node",
            "unknown-execution",
            f"the node holds execution {key}, which is not known here; it is left running",
            node=node,
            execution=key,
        )
        for key in new[:20]
    )


# --- rows to orders --------------------------------------------------------------------------


def _orders(rows: Sequence[_Row]) -> list[Order | Unsendable | None]:
    specs = spec_cache.specs((row.job, row.version) for row in rows)
    orders = [(row, _order(row, specs[row.job, row.version])) for row in rows]
    named = {
        row.execution: names
        for row, order in orders
        if order is not None and order.want is Want.RUN and row.observed in NOT_BEGUN
        if (names := specs[row.job, row.version].task.secrets)
    }
    found = secret_values.find(named)
    return [_with_secrets(order, found.get(row.execution)) for row, order in orders]


def _with_secrets(
    order: Order | None, found: secret_values.Found | None
) -> Order | Unsendable | None:
    if order is None or found is None:
        return order
    if found.lacks:
        return Unsendable(
            order.execution, lacks=found.lacks, hint=found.hint, elsewhere=found.elsewhere
        )
    return replace(order, secrets=SecretValues(found.values))


def _apart(
    orders: Iterable[Order | Unsendable],
) -> tuple[tuple[Order, ...], tuple[Unsendable, ...]]:
    listed = list(orders)
    return (
        tuple(it for it in listed if isinstance(it, Order)),
        tuple(it for it in listed if isinstance(it, Unsendable)),
    )


def _order(row: _Row, spec: JobBody) -> Order | None:
    """The order in one row; None when there is nothing left to say."""
    wanted = want(Desired(row.desired), Observed(row.observed), reserved=row.reserved)
    if wanted is None:
        return None
    begins = wanted in (Want.BID, Want.RUN)
    return Order(
        execution=str(row.execution),
        want=wanted,
        rev=row.rev,
        task=spec.task.as_message(_environment(row)) if begins else None,
        resources=Resources(row.cpu, row.memory, row.disk, row.gpu) if begins else Resources(),
        timeout=spec.timeouts.execution if begins else None,
        grace=spec.grace,
    )


def _environment(row: _Row) -> dict[str, str]:
    facts: dict[str, Any] = {
        "MUSTER_JOB_ID": row.job,
        "MUSTER_JOB_NAME": row.name,
        "MUSTER_EXECUTION_ID": row.execution,
        "MUSTER_SLOT": row.slot,
        "MUSTER_COUNT": row.slots,
        "MUSTER_ATTEMPT": row.attempt,
        "MUSTER_NODE_ID": row.node,
    }
    return {name: str(value) for name, value in facts.items()}
