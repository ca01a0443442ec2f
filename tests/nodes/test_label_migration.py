"""What nodes of an earlier release had for labels, once it is known who said what."""

import pytest
from django.core.management import call_command

from nodes import membership
from nodes.models import Node
from orchestrator import broker
from orchestrator.models import BrokerRow
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def before_labels_were_told_apart():
    def migrate():
        call_command("migrate", "orchestrator", "0006", verbosity=0)
        call_command("migrate", "nodes", "0006", verbosity=0)

    yield migrate
    call_command("migrate", verbosity=0)


def joined(name, **given):
    token = membership.create_join_token(created_by=None, labels=given)
    return membership.enrol(token, name)[0]


def test_labels_that_a_token_surely_gave_stay_and_all_others_are_the_nodes_own_word(
    before_labels_were_told_apart,
):
    claims = {"name": "local-1", "node.x": "1"}
    first = joined("first", pool="dev", zone="a")
    before_labels_were_told_apart()
    of_first = {"pool": "dev", "zone": "a", "disk": "ssd", **claims}
    Node.objects.filter(pk=first.pk).update(labels=of_first, attributes={"arch": "x"})
    call_command("migrate", verbosity=0)
    first.refresh_from_db()
    assert first.labels == {"pool": "dev", "zone": "a"}
    own = {"node.arch": "x", "node.disk": "ssd", "node.name": "local-1", "node.node.x": "1"}
    assert first.attributes == own


def test_a_label_that_only_one_of_two_tokens_may_have_given_is_the_nodes_own_word(
    before_labels_were_told_apart,
):
    membership.create_join_token(created_by=None, labels={"pool": "prod"})
    node = joined("spoof")
    before_labels_were_told_apart()
    Node.objects.filter(pk=node.pk).update(labels={"pool": "prod"})
    call_command("migrate", verbosity=0)
    node.refresh_from_db()
    assert (node.labels, node.attributes) == ({}, {"node.pool": "prod"})


def test_a_job_that_waits_for_a_driver_goes_on_waiting_for_it(before_labels_were_told_apart):
    rows.submitted()
    broker.lease(None, 1, "w")
    before_labels_were_told_apart()
    where = ["driver.process = true", "zone = driver.x"]
    BrokerRow.objects.update(blocked_on={"where": where, "missing": 1})
    call_command("migrate", verbosity=0)
    assert BrokerRow.objects.get().blocked_on == {
        "where": ["node.driver.process = true", "zone = driver.x"],
        "missing": 1,
    }
