"""What a node that means harm can get: no trust, no room, no ear beyond what it was given."""

from contextlib import suppress

import pytest

from nodes import membership
from nodes.callbacks import Inbound
from nodes.errors import Rejected, Removed
from nodes.models import Node
from nodes.protocol.messages import Ack, Close, Happened, Report, Reports
from nodes.protocol.resources import Resources
from nodes.token_bucket import TokenBucket
from orchestrator import endpoint
from orchestrator.explain import wording
from orchestrator.models import Event
from orchestrator.scheduling.feasibility import demand, refusals, suitable
from orchestrator.worker import snapshot
from tests import rows
from tests.api.conftest import Api
from tests.nodes.links import hello, joined, look

pytestmark = pytest.mark.django_db(transaction=True)


def chosen(constraint):
    """The names of the nodes that a job with this constraint may run on."""
    cluster = snapshot.ClusterView().refresh().nodes
    mask = suitable(cluster, demand(rows.job_spec(constraints=[constraint])))
    return [name for name, it in zip(cluster.names, mask, strict=True) if it]


# --- what it is selected by ------------------------------------------------------------------


async def test_a_node_is_not_selected_by_labels_that_it_gives_itself(world):
    spoof, credential = await look(joined)
    own = {"pool": "prod", "name": "local-1", "driver.process": "true"}
    await world.greeted(credential, hello(attributes=own))
    for constraint in ("pool = prod", "name = local-1", "pool", "pool != dev, pool"):
        assert await look(lambda it=constraint: chosen(it)) == [], constraint
    assert await look(lambda: chosen("node.pool = prod, !pool")) == [spoof.name]
    assert await look(lambda: chosen(f"name = {spoof.name}")) == [spoof.name]


def test_a_node_that_enrols_with_labels_is_not_selected_by_them():
    rows.node(name="local-1", labels={"pool": "prod"})
    token = membership.create_join_token(created_by=None)
    claims = {"name": "local-1", "pool": "prod", "driver.process": "true"}
    answer = Api().post("nodes/enrol", {"token": token, "name": "spoof", "labels": claims})
    assert answer.status_code == 201
    assert (chosen("name = local-1"), chosen("pool = prod")) == (["local-1"], ["local-1"])
    assert Node.objects.get(name="spoof").labels == {}


# --- how much it may hold --------------------------------------------------------------------


async def test_a_node_that_says_it_has_grown_holds_no_more_than_was_approved(world):
    node, credential = await look(joined)
    await world.greeted(credential)
    await world.greeted(credential, hello(resources=Resources(cpu=10**15)))
    node = await look(lambda: Node.objects.get(pk=node.pk))
    assert (node.capacity_cpu, list(node.growth)) == (4000, ["cpu"])
    await look(lambda: endpoint.approve_node(node.pk, actor="user:ada"))
    assert (await look(lambda: Node.objects.get(pk=node.pk))).capacity_cpu > 4000


async def test_what_is_approved_is_what_the_node_offered_then(world):
    node, credential = await look(lambda: joined(auto_approve=False))
    await world.greeted(credential)
    await look(lambda: endpoint.approve_node(node.pk, actor="user:ada"))
    for said, holds in ((8000, 4000), (1000, 1000), (8000, 4000)):
        await world.greeted(credential, hello(resources=Resources(cpu=said)))
        assert (await look(lambda: Node.objects.get(pk=node.pk))).capacity_cpu == holds


def test_a_job_that_only_the_growth_of_a_node_could_hold_says_who_can_accept_it():
    rows.node(name="n", cpu=4000, approved_cpu=4000, advertised_cpu=16000)
    room = snapshot.ClusterView().refresh()
    wanted = demand(rows.job_spec(task={"resources": {"cpu": 8}}))
    assert refusals(room, 0, wanted) == [
        "has 4 cores in all, needs 8 cores (offers 16 cores: `muster node approve` accepts that)"
    ]
    assert wording.node(Node.objects.get()) == (
        "takes work; offers 16 cores, more than was approved: `muster node approve n` accepts it"
    )


def test_what_ends_on_a_node_that_says_it_has_grown_gives_it_no_more_room():
    node = rows.node(cpu=4000, approved_cpu=4000, approved_memory=8 * rows.GIB)
    made = rows.execution(rows.job(), node, observed="running", cpu=1000)
    Node.objects.filter(pk=node.pk).update(advertised_cpu=64000)
    ended = Report(str(made.pk), Happened.COMPLETE, exit_code=0)
    endpoint.receive([Inbound(node.pk, 1, 1, 0, (), (ended,))])
    node.refresh_from_db()
    assert (node.capacity_cpu, node.allocated_cpu) == (4000, 0)


# --- how long it is let in -------------------------------------------------------------------


@pytest.mark.parametrize("verb", [endpoint.reject_node, endpoint.remove_node])
async def test_a_node_that_is_turned_away_is_cut_off_also_when_it_says_nothing(world, verb):
    node, credential = await look(joined)
    link = await world.greeted(credential)
    await look(lambda: verb(node.pk, actor="user:ada"))
    assert await link.closed() in {Close.FENCED, Close.REMOVED}
    assert await look(lambda: signs_in(credential)) is None


def signs_in(credential):
    with suppress(Removed):
        return membership.authenticate(credential)


def test_a_rejected_node_is_not_let_in_again_by_an_approval():
    node, credential = joined()
    endpoint.reject_node(node.pk, actor="user:ada")
    with pytest.raises(Rejected):
        endpoint.approve_node(node.pk, actor="user:ada")
    assert membership.authenticate(credential) is None


# --- what it may have written ----------------------------------------------------------------


def late_frames(node, made, number):
    """Frames of a hundred reports each, all of them of what is over, and no two alike in a row."""
    says = (Happened.COMPLETE, Happened.FAIL)
    for seq in range(1, number + 1):
        items = tuple(Report(str(made.pk), says[it % 2]) for it in range(100))
        yield Inbound(node.pk, 1, seq, 0, (), items)


def test_a_frame_writes_one_row_however_much_of_it_comes_too_late():
    node = rows.node()
    made = rows.execution(rows.job(), node, observed="cancelled")
    endpoint.receive(list(late_frames(node, made, 3)))
    told = Event.objects.filter(node_id=node.pk, what="late-report").order_by("pk")
    assert [it.message.partition(",")[0] for it in told] == ["100 late reports"] * 3


def test_a_node_that_floods_the_journal_is_left_out_and_the_journal_says_so():
    node, other = rows.node(), rows.node()
    made = rows.execution(rows.job(), node, observed="cancelled")
    for frame in late_frames(node, made, 200):
        endpoint.receive([frame])
    written = Event.objects.filter(node_id=node.pk, what="late-report").count()
    assert 60 <= written < 150
    endpoint.record_node(other.pk, "degraded", "others are heard")
    assert Event.objects.filter(node_id=other.pk).exists()


def test_a_bucket_fills_again_and_a_clock_that_is_set_back_fills_nothing():
    bucket = TokenBucket(burst=2, rate=1)
    taken = [now for now in (5, 5, 5, 4, 6, 6) if bucket.takes(now)]
    assert taken == [5, 5, 6]


# --- what it may say before anybody has approved it ------------------------------------------


async def test_a_node_that_waits_for_approval_and_floods_is_cut_off(world):
    _, credential = await look(lambda: joined(auto_approve=False))
    link = await world.greeted(credential)
    await link.report()
    for _ in range(100):
        await link.say(Reports(link.epoch, 1, 0))
    assert await link.closed() == Close.TOO_FAST


async def test_a_node_that_is_approved_may_repeat_what_it_said(world, node):
    link = await world.greeted(node.credential)
    for _ in range(100):
        await link.say(Reports(link.epoch, 1, 0))
    assert (await link.hear(Ack)).seq == 1
