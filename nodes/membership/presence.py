"""The session row of a node: who may speak for it, and how far it has been heard.

It is locked first in every transaction that writes what a session said; see ``nodes.locks``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction

from nodes import labels
from nodes.callbacks import Inbound, Record, Verdict
from nodes.errors import Fenced, Quarantined, Removed, Revoked, Superseded, TooLittleIsolation
from nodes.locks import Lock, lock_rows
from nodes.models import Node, NodeSession
from nodes.protocol.lifecycle import CONNECTION, Approval, Connection
from nodes.protocol.messages import ISOLATION, Hello
from nodes.protocol.resources import Resources

from . import capacity
from .silence import DISCONNECTED_AFTER

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Greeting:
    """A session begins.  ``order_rev`` is the node's newest order as of then."""

    epoch: int
    approved: bool
    order_rev: int


@dataclass(frozen=True)
class Beat:
    """A session was heard of, and what it said of itself; None where it has not said it yet."""

    node: UUID
    epoch: int
    running: int | None = None
    load: float | None = None
    degraded: str = ""


@dataclass(frozen=True)
class Anomalies:
    """Of the sessions that were heard of, those that are not as they should be.

    ``fenced``: a newer one exists, or the node was rejected or revoked.  ``given_up``: the node
    was lost meanwhile and must say hello again, so that what it holds is reconciled.  ``back``:
    the node was thought disconnected; see ``reconnect``.  ``removed``: the node is no more.
    ``changed``: why it takes no work, or that it does again; see ``set_degraded``.
    """

    fenced: frozenset[UUID]
    given_up: frozenset[UUID]
    back: frozenset[UUID]
    removed: frozenset[UUID]
    changed: frozenset[UUID] = frozenset()


def greet(
    node_id: UUID, hello: Hello, holder: str, address: str = "", *, record: Record
) -> Greeting:
    """Begin a session: a new epoch, which fences all the earlier ones.

    *holder* is the process that has it, *address* where the other web processes reach that.

    The same agent, or its successor on the same ledger, supersedes the link it had.  Two that
    are alive with one identity are both shut out: raises Quarantined, and the node stays so until
    an operator releases it, which *record* is told.  Raises Superseded for an older copy of the
    ledger that has not heard of the newer one yet, Revoked for a rejected node, Removed for one
    that is no more, TooLittleIsolation for one whose tasks are not walled off as far as this
    cluster asks for, and InvalidLabels or InvalidOffer for what cannot be stored.
    """
    offer = capacity.checked(hello.resources)
    attributes = labels.own(hello.attributes)
    refused = _too_little_isolation(hello.attributes)
    with transaction.atomic():
        session, _ = NodeSession.objects.select_for_update().get_or_create(node_id=node_id)
        node = Node.every.select_for_update(no_key=True).get(pk=node_id)
        if node.removed_at is not None:
            raise Removed(name=node.name)
        if node.approval == Approval.REJECTED:
            raise Revoked
        conflict = _conflict(session, node, hello)
        if conflict:
            # Written, not raised in here: the quarantine must be committed.
            _quarantine(session, node, conflict, record)
        elif _is_older(session, node, hello):
            raise Superseded
        elif refused:
            # Not quarantined: the next agent that is good enough is the node again.
            _say_degraded(node, str(refused), record)
        else:
            session.holder, session.address = holder[:128], address[:255]
            greeting = _begin(session, node, hello, offer, attributes)
            _say_degraded(node, hello.degraded, record)
    if conflict or node.quarantined:
        raise Quarantined(name=node.name, why=node.quarantined)
    if refused:
        raise refused
    return greeting


def hold_session(node: UUID, epoch: int) -> None:
    """Keep the session of *node* as it is until the transaction ends.

    Call it first in a transaction that writes what this session said or asked for: raises Fenced
    when there is a newer one.
    """
    if lock_rows(Lock.SESSIONS, [node], "epoch") != [(epoch,)]:
        raise Fenced


def leave(node_id: UUID, epoch: int) -> bool:
    """The link of this session is gone: the node is disconnected, if it has no newer one."""
    with transaction.atomic():
        try:
            hold_session(node_id, epoch)
        except Fenced:
            return False
        left = Node.objects.filter(pk=node_id, connection__in=_sources("silence"))
        return bool(left.update(connection=Connection.DISCONNECTED.value))


def reconnect(sessions: Mapping[UUID, int]) -> list[Node]:
    """These sessions, by node, are heard of again: their nodes are connected, where they were not.

    Only a current epoch counts, and a node that was given up has to say hello first.  The nodes
    that this changed; call it in the transaction that tells of them.
    """
    epochs = dict(lock_rows(Lock.SESSIONS, sessions, "node_id, epoch"))
    current = [node for node, epoch in sessions.items() if epochs.get(node) == epoch]
    locked = lock_rows(Lock.NODES, current, "id, connection")
    back = [node for node, at in locked if at == Connection.DISCONNECTED]
    Node.objects.filter(pk__in=back).update(connection=Connection.CONNECTED.value)
    return list(Node.objects.filter(pk__in=back).order_by("pk"))


def set_degraded(said: Mapping[UUID, tuple[int, str]]) -> list[Node]:
    """Why these nodes take no new work, each by the epoch and the words of its session.

    Only a current epoch counts.  The nodes that this changed; call it in the transaction that
    tells of them.
    """
    epochs = dict(lock_rows(Lock.SESSIONS, said, "node_id, epoch"))
    current = [node for node, (epoch, _) in said.items() if epochs.get(node) == epoch]
    before = dict(lock_rows(Lock.NODES, current, "id, degraded"))
    changed = {node: why for node in before if (why := _short(said[node][1])) != before[node]}
    for node, why in changed.items():
        Node.objects.filter(pk=node).update(degraded=why)
        log.warning("node degraded" if why else "node recovered", node=str(node), why=why)
    return list(Node.objects.filter(pk__in=changed).order_by("pk"))


def degraded_sentence(node: Node) -> str:
    """What the journal is told when ``degraded`` has changed."""
    if node.degraded:
        return f"{node.name} takes no new work: {node.degraded}"
    return f"{node.name} takes new work again"


def fence(batch: Sequence[Inbound]) -> list[Verdict]:
    """Which frames of *batch* may have effects, in its order; counts those as received.

    Call it first in the transaction that writes their effects: it holds the session rows until
    that commits, so neither a repeat nor a newer session can slip in between.
    """
    nodes = {frame.node for frame in batch}
    locked = lock_rows(Lock.SESSIONS, nodes, "node_id, epoch, received")
    sessions = {node: (epoch, received) for node, epoch, received in locked}
    received = {node: number for node, (_, number) in sessions.items()}
    verdicts = []
    for frame in batch:
        epoch, _ = sessions.get(frame.node, (None, 0))
        verdict = _verdict(frame, epoch, received.get(frame.node, 0))
        if verdict is Verdict.ACCEPTED:
            received[frame.node] = frame.seq
        verdicts.append(verdict)
    _advance({n: number for n, number in received.items() if number != sessions[n][1]})
    return verdicts


def outdated(sessions: Mapping[UUID, int]) -> Anomalies:
    """Those of these sessions, by node, that are fenced or whose node is no more; reads only."""
    with connection.cursor() as cursor:
        cursor.execute(_OUTDATED, [list(sessions), list(sessions.values())])
        odd = cursor.fetchall()
    removed = frozenset(node for node, is_removed in odd if is_removed)
    fenced = frozenset(node for node, _ in odd) - removed
    return Anomalies(fenced, frozenset(), frozenset(), removed)


def beat(beats: Sequence[Beat]) -> Anomalies:
    """Write that these sessions were heard of now: one statement, guarded by their epochs."""
    with connection.cursor() as cursor:
        cursor.execute(
            _BEAT,
            [
                [beat.node for beat in beats],
                [beat.epoch for beat in beats],
                [beat.running and min(beat.running, 2**31 - 1) for beat in beats],
                [beat.load for beat in beats],
                [_short(beat.degraded) for beat in beats],
            ],
        )
        odd = cursor.fetchall()
    removed = frozenset(node for node, _, state, _ in odd if state == "removed")
    fenced = frozenset(node for node, is_current, _, _ in odd if not is_current) - removed
    at = {node: state for node, is_current, state, _ in odd if is_current}
    given_up = frozenset(node for node in at if at[node] == Connection.LOST)
    back = frozenset(node for node in at if at[node] != Connection.CONNECTED) - given_up
    changed = frozenset(node for node, is_current, _, differs in odd if is_current and differs)
    return Anomalies(fenced, given_up, back, removed, changed)


# --- greeting --------------------------------------------------------------------------------


def _conflict(session: NodeSession, node: Node, hello: Hello) -> str:
    """Why two agents seem to be this one node; empty when there is no reason to think so."""
    if node.quarantined:
        return node.quarantined
    if not session.ledger or not _is_held(node):
        return ""
    if session.ledger != hello.ledger:
        return "two agents with different state directories use its credential at once"
    # The successor of an agent starts when that has ended.  A hello of an ended one may be late,
    # but it is not one that heard of its successor and asks all the same.
    is_same_start = session.run == hello.run and session.instance != hello.instance
    if is_same_start or (hello.fenced and hello.run < session.run):
        return "its state directory was copied, and both copies run"
    return ""


def _is_older(session: NodeSession, node: Node, hello: Hello) -> bool:
    return session.ledger == hello.ledger and hello.run < session.run and _is_held(node)


def _is_held(node: Node) -> bool:
    """Whether the link that the node has is alive: it was neither closed nor silent."""
    if node.connection != Connection.CONNECTED:
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM nodes_nodeheartbeat"
            " WHERE node_id = %s AND seen_at > clock_timestamp() - make_interval(secs => %s)",
            [node.pk, DISCONNECTED_AFTER.total_seconds()],
        )
        return cursor.fetchone() is not None


def _quarantine(session: NodeSession, node: Node, why: str, record: Record) -> None:
    session.epoch += 1
    session.save(update_fields=["epoch"])
    if node.quarantined:
        return
    node.quarantined = why
    if node.connection == Connection.CONNECTED:
        node.connection = CONNECTION.after(Connection.CONNECTED, "silence").value
    node.save(update_fields=["quarantined", "connection"])
    record(node.pk, "quarantine", f"{node.name} is quarantined: {why}")
    log.error("node quarantined", node=str(node.pk), name=node.name, why=why)


def _begin(
    session: NodeSession,
    node: Node,
    hello: Hello,
    offer: Resources,
    attributes: dict[str, str],
) -> Greeting:
    session.epoch += 1
    session.received = 0
    session.instance, session.ledger, session.run = hello.instance, hello.ledger, hello.run
    session.boot = hello.boot
    session.save()
    capacity.offer(node, offer)
    node.attributes = attributes
    if node.connection != Connection.CONNECTED:
        node.connection = CONNECTION.after(Connection(node.connection), "greet").value
    node.save(update_fields=["attributes", "connection", *capacity.COLUMNS])
    with connection.cursor() as cursor:
        cursor.execute(_FIRST_BEAT, [node.pk])
    log.info("node greeted", node=str(node.pk), name=node.name, epoch=session.epoch)
    return Greeting(session.epoch, node.approval == Approval.APPROVED, node.order_rev)


def _too_little_isolation(attributes: Mapping[str, str]) -> TooLittleIsolation | None:
    """The refusal of a node that says this of itself; None if it is walled off far enough."""
    level, minimum = attributes.get("isolation", ""), settings.MINIMUM_ISOLATION
    if level not in ISOLATION:
        level = ISOLATION[0]  # One that says nothing promises nothing.
    if ISOLATION.index(level) >= ISOLATION.index(minimum):
        return None
    return TooLittleIsolation(level=level, minimum=minimum)


def _say_degraded(node: Node, why: str, record: Record) -> None:
    if node.degraded != (why := _short(why)):
        node.degraded = why
        node.save(update_fields=["degraded"])
        record(node.pk, "degraded", degraded_sentence(node))


def _short(why: str) -> str:
    """*why* as there is room for it in the row."""
    return why.replace("\0", "")[:200]


# --- fencing and beating ---------------------------------------------------------------------


def _verdict(frame: Inbound, epoch: int | None, received: int) -> Verdict:
    if frame.epoch != epoch:
        return Verdict.FENCED
    if frame.seq <= received:
        return Verdict.REPEATED
    return Verdict.ACCEPTED if frame.seq == received + 1 else Verdict.OUT_OF_SEQUENCE


def _advance(received: dict[UUID, int]) -> None:
    if not received:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE nodes_nodesession s SET received = v.received"
            " FROM unnest(%s::uuid[], %s::bigint[]) AS v(node, received) WHERE s.node_id = v.node",
            [list(received), list(received.values())],
        )


def _sources(event: str) -> list[str]:
    return [state.value for state in CONNECTION.sources(event)]


_FIRST_BEAT = """
    INSERT INTO nodes_nodeheartbeat (node_id, seen_at, running, load)
    VALUES (%s, clock_timestamp(), 0, 0)
    ON CONFLICT (node_id) DO UPDATE SET seen_at = clock_timestamp()
"""

_OUTDATED = """
    SELECT said.node, n.removed_at IS NOT NULL
    FROM unnest(%s::uuid[], %s::bigint[]) AS said(node, epoch)
    JOIN nodes_node n ON n.id = said.node
    JOIN nodes_nodesession s ON s.node_id = said.node
    WHERE s.epoch <> said.epoch OR n.removed_at IS NOT NULL
"""

_BEAT = """
    WITH said AS (
        SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::int[], %s::float8[], %s::text[])
            AS v(node, epoch, running, load, degraded)
    ), current AS (
        SELECT said.* FROM said
        JOIN nodes_nodesession s ON s.node_id = said.node AND s.epoch = said.epoch
    ), held AS MATERIALIZED (
        SELECT node_id FROM nodes_nodeheartbeat WHERE node_id IN (SELECT node FROM current)
        ORDER BY node_id FOR NO KEY UPDATE
    ), beaten AS (
        UPDATE nodes_nodeheartbeat h
        SET seen_at = clock_timestamp(),
            running = coalesce(current.running, h.running), load = coalesce(current.load, h.load)
        FROM current JOIN held ON held.node_id = current.node WHERE h.node_id = current.node
    )
    SELECT said.node, current.node IS NOT NULL,
        CASE WHEN n.removed_at IS NULL THEN n.connection ELSE 'removed' END,
        n.degraded <> said.degraded
    FROM said
    LEFT JOIN nodes_node n ON n.id = said.node
    LEFT JOIN current ON current.node = said.node
    WHERE current.node IS NULL OR n.connection <> 'connected' OR n.degraded <> said.degraded
"""
