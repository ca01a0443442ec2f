"""Changes of executions, with what follows from them."""

import pytest
from django.db import transaction

from nodes.models import Node
from orchestrator.lifecycle import Observed, Trigger
from orchestrator.models import BrokerTrigger, Execution
from orchestrator.planners.transitions import Changes, lock_executions
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


def changed(how, *executions):
    with transaction.atomic():
        changes = Changes()
        for execution in lock_executions([it.pk for it in executions]).values():
            how(changes, execution)
        changes.write()


def test_what_was_given_back_is_not_given_back_again():
    node = rows.node()
    over, goes_on = (rows.execution(rows.job(), node, observed=Observed.RUNNING) for _ in range(2))

    def end_twice(changes, execution):
        changes.follow(execution, ["complete"], reason="it ended")
        changes.give_up(execution)

    changed(end_twice, over)
    changed(lambda changes, execution: changes.give_up(execution), over)
    assert Node.objects.get().allocated_cpu == goes_on.cpu
    assert not Execution.objects.get(pk=over.pk).reserved


def test_a_job_is_evaluated_once_for_what_weighs_most_among_its_executions():
    node, job = rows.node(), rows.job(count=3)
    executions = [
        rows.execution(job, node, slot=slot, observed=Observed.RUNNING) for slot in range(3)
    ]
    BrokerTrigger.objects.all().delete()
    events = dict(zip((it.pk for it in executions), ("complete", "fail", "lose"), strict=True))
    changed(lambda changes, it: changes.follow(it, [events[it.id]], reason="so it is"), *executions)
    asked = BrokerTrigger.objects.filter(job_id=job.pk)
    assert [it.trigger for it in asked] == [Trigger.NODE_LOST]


def test_what_the_node_alone_has_taken_asks_for_no_evaluation():
    told = rows.execution(rows.job(), rows.node())
    BrokerTrigger.objects.all().delete()
    changed(lambda changes, it: changes.follow(it, ["ask"], reason="the node has taken it"), told)
    assert Execution.objects.get().observed == Observed.ASK_FOR_BID
    assert not BrokerTrigger.objects.exists()
