"""What nodes of an earlier release had for labels, once it is known who said what."""

import json

import pytest
from django.core.management import call_command
from django.db import connection

from nodes import membership
from nodes.models import Node
from orchestrator import broker
from orchestrator.models import BrokerTrigger
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
    job = rows.submitted()
    BrokerTrigger.objects.all().delete()
    before_labels_were_told_apart()
    where = ["driver.process = true", "zone = driver.x"]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orchestrator_brokerrow (job_id, type, priority, want, done, token, worker,"
            " not_before_trigger, deliveries, blocked_class, triggers, blocked_on)"
            " SELECT id, type, priority, 1, 1, 1, '', '', 0, 'c', '{}',"
            " jsonb_build_object('where', %s::jsonb, 'missing', 1) FROM orchestrator_job",
            [json.dumps(where)],
        )
        call_command("migrate", "orchestrator", "0017", verbosity=0)
        cursor.execute("SELECT blocked_on->'where' FROM orchestrator_brokerrow")
        assert json.loads(cursor.fetchone()[0]) == ["node.driver.process = true", "zone = driver.x"]
    call_command("migrate", verbosity=0)
    assert [one.job for one in broker.lease(None, 1, "w")] == [job.pk]
