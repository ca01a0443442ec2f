"""The broker as django-q2 knows it: it hands out tickets, and outlives the database."""

import pytest
from django.db import InterfaceError, OperationalError, connection

from orchestrator.server.cluster.evaluation_broker import TICKET, EvaluationBroker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pusher():
    it = EvaluationBroker()
    yield it
    it.close()


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_a_database_that_does_not_answer_does_not_end_it(queue, pusher, caplog, kind):
    def fails(*_):
        raise kind("connection already closed")

    queue.job()
    with connection.execute_wrapper(fails):
        assert pusher.dequeue() is None
    assert "the database does not answer, trying again" in caplog.text
    ((what, _),) = pusher.dequeue()
    assert what == TICKET
