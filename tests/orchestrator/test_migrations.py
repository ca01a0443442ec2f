"""A database of an earlier release becomes one of today, with what is in it."""

import pytest
from django.core.management import call_command
from django.db import connection

from orchestrator.explain import reasons
from orchestrator.lifecycle import Observed
from orchestrator.models import Execution, Job
from tests import rows
from tests.invariants import violations

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def back_to_0_1():
    """Make the schema that of 0.1.0, with what is in it; today's is there again afterwards."""

    def migrate():
        for app in ("orchestrator", "nodes"):
            call_command("migrate", app, "0002_storage", verbosity=0)

    yield migrate
    call_command("migrate", verbosity=0)


def test_rows_of_before_are_kept_and_what_nobody_approved_is_stopped(back_to_0_1):
    job, node = rows.job(count=3), rows.node()
    over = rows.execution(job, node, observed=Observed.COMPLETED)
    Execution.objects.filter(pk=over.pk).update(settled=True)
    rows.execution(job, node, slot=1, observed=Observed.RUNNING)
    eager = rows.execution(job, node, slot=2)
    back_to_0_1()
    for observed, writer in (("bid_accepted", "compute-forwarder"), ("running", "endpoint")):
        Execution.objects.filter(pk=eager.pk).update(observed=observed, by_writer=writer)
    said = 'no node has the label "gpu"'
    with connection.cursor() as cursor:
        cursor.execute("UPDATE orchestrator_job SET reason = %s", [said])
    call_command("migrate", verbosity=0)
    assert reasons.load(Job.objects.get().reason) == (reasons.Said(said),)
    states = Execution.objects.order_by("slot").values_list("desired", "observed")
    assert list(states) == [
        ("stopped", "completed"),
        ("running", "running"),
        ("stopped", "running"),
    ]
    with connection.cursor() as cursor:
        assert violations(cursor) == []
