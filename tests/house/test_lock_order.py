"""The watch over the order of locks: what it sees, and that it looks at every connection."""

import pytest
from django.db import connection, transaction

from nodes.locks import Lock, lock_rows
from tests import rows
from tests.lock_order import LockOrderBroken, locked_by

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("sql", "locks"),
    [
        ("SELECT id FROM nodes_node WHERE id = ANY(%s)", set()),
        ("SELECT id FROM nodes_node ORDER BY id FOR NO KEY UPDATE", {Lock.NODES}),
        ('SELECT 1 FROM "orchestrator_job" WHERE x FOR UPDATE OF "t"', {Lock.JOBS}),
        ("UPDATE orchestrator_execution SET settled = true", {Lock.EXECUTIONS}),
        ('DELETE FROM "nodes_nodesession" WHERE node_id = %s', {Lock.SESSIONS}),
        (
            "WITH a AS (SELECT 1 FROM orchestrator_brokerrow FOR UPDATE), b AS (SELECT 1 FROM"
            " nodes_node) SELECT 1",
            {Lock.QUEUE},
        ),
    ],
)
def test_a_statement_locks_what_it_changes_or_selects_for_update(sql, locks):
    assert locked_by(sql) == locks


def test_going_back_in_the_order_is_an_error():
    node, execution = rows.node(), rows.execution(rows.job(), rows.node())
    with transaction.atomic():
        lock_rows(Lock.NODES, [node.pk], "id")
        with pytest.raises(LockOrderBroken):
            lock_rows(Lock.EXECUTIONS, [execution.pk], "id")


def test_what_a_savepoint_gave_back_is_not_held():
    node, execution = rows.node(), rows.execution(rows.job(), rows.node())
    with transaction.atomic():
        savepoint = transaction.savepoint()
        lock_rows(Lock.NODES, [node.pk], "id")
        transaction.savepoint_rollback(savepoint)
        assert lock_rows(Lock.EXECUTIONS, [execution.pk], "id")


def test_a_transaction_begins_with_nothing_held():
    node, execution = rows.node(), rows.execution(rows.job(), rows.node())
    for lock, row in ((Lock.NODES, node), (Lock.EXECUTIONS, execution)):
        with transaction.atomic():
            assert lock_rows(lock, [row.pk], "id")


def test_a_connection_of_another_thread_is_watched_too(in_threads):
    node, execution = rows.node(), rows.execution(rows.job(), rows.node())

    def back() -> None:
        with transaction.atomic():
            lock_rows(Lock.NODES, [node.pk], "id")
            lock_rows(Lock.EXECUTIONS, [execution.pk], "id")

    [error] = in_threads(back)
    assert isinstance(error, LockOrderBroken)
    assert connection.execute_wrappers
