"""What happens to executions whose orders are too large for any message."""

import pytest

from nodes.callbacks import Unsendable
from orchestrator.lifecycle import Desired, Observed
from orchestrator.models import BrokerTrigger, ExecutionHistory, FreedNode
from orchestrator.planners.unsendable_orders import cannot_send
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


def state(execution):
    execution.refresh_from_db()
    return execution.desired, execution.observed


def allocated(node):
    node.refresh_from_db()
    return node.allocated_cpu


def unsendable(execution):
    return Unsendable(str(execution.pk), 300_000, 261_120)


@pytest.mark.parametrize("observed", ["new", "ask_for_bid", "ask_for_bid_accepted"])
def test_an_execution_that_cannot_be_sent_is_cancelled_for_good(observed):
    node, job = rows.node(), rows.job()
    huge = rows.execution(job, node, observed=observed)
    cannot_send(node.pk, [unsendable(huge)])
    assert (state(huge), allocated(node)) == (("stopped", "cancelled"), 0)
    assert (huge.code, huge.retryable) == ("order-too-large", False)
    assert huge.message == "its order takes 300000 bytes, and a node can be sent 261120"
    assert BrokerTrigger.objects.get(job_id=job.pk).trigger == "execution-update"
    assert FreedNode.objects.filter(node_id=node.pk).exists()


def test_an_execution_is_given_up_once():
    node, job = rows.node(), rows.job()
    huge = rows.execution(job, node)
    cannot_send(node.pk, [unsendable(huge)])
    steps = ExecutionHistory.objects.filter(execution=huge).count()
    cannot_send(node.pk, [unsendable(huge)])
    assert ExecutionHistory.objects.filter(execution=huge).count() == steps
    assert (state(huge), allocated(node)) == (("stopped", "cancelled"), 0)


def test_what_may_run_goes_on_without_its_order():
    node, other, job = rows.node(), rows.node(), rows.job(count=4)
    left = [
        rows.execution(job, node, observed=Observed.BID_ACCEPTED),
        rows.execution(job, node, slot=1, observed=Observed.RUNNING),
        rows.execution(job, node, slot=2, desired=Desired.STOPPED),
        rows.execution(job, other, slot=3),
    ]
    before = [state(it) for it in left]
    cannot_send(node.pk, [unsendable(it) for it in left])
    assert [state(it) for it in left] == before
