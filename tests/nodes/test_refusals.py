"""What a node, or somebody who is none, may not do: each gets its close code, and harms nobody."""

import asyncio

import msgspec
import pytest

from nodes import membership
from nodes.models import Node, NodeSession
from nodes.protocol.messages import (
    MAX_FRAME,
    WINDOW,
    Ack,
    Close,
    Happened,
    Heartbeat,
    LogChunk,
    Report,
    Reports,
)
from nodes.protocol.resources import Resources
from tests.nodes.links import Above, execution, hello, joined, look, play, until

pytestmark = pytest.mark.django_db(transaction=True)


def refusal(act, *, node=None, above=None, greet=True, **options):
    """The code that a link is closed with after *act*."""
    node, credential = node or joined()

    async def scene(world):
        link = world.link(credential)
        await (link.greet() if greet else link.open())
        await act(link)
        code = await link.closed()
        assert world.sessions.refusals[code] == 1
        scene.code = code

    play(scene, above, **options)
    return scene.code


# --- before the handshake is accepted ----------------------------------------------------------


def test_who_does_not_sign_in_gets_no_further_than_the_handshake():
    token = membership.create_join_token(created_by=None)
    node, revoked = joined()
    membership.revoke(node.pk)
    rejected, of_rejected = joined()
    membership.reject(rejected.pk, actor="ada")

    async def scene(world):
        for credential in (None, "nt_wrong", token, revoked, of_rejected, "x" * 10_000, "ü"):
            assert not await world.link(credential).open()
        assert world.sessions.refusals[403] == 7

    play(scene)


async def test_a_removed_node_gets_a_code_of_its_own_on_the_link_it_has_and_on_the_next(
    node, world
):
    link, late = world.link(node.credential), world.link(node.credential)
    await link.greet()
    await late.open()
    await look(lambda: membership.remove(node.pk, actor="ada"))
    await link.say(Heartbeat(link.epoch, 0, ""))
    assert await link.closed() == Close.REMOVED
    await late.say(hello())
    assert await late.closed() == Close.REMOVED
    again = world.link(node.credential)
    assert await again.open()
    assert await again.closed() == Close.REMOVED


async def test_a_browser_is_no_node(node, world):
    assert not await world.link(node.credential, origin=b"https://evil.example").open()


@pytest.mark.parametrize("protocols", [(), ("muster.node.v2",), ("graphql-ws", "v1")])
async def test_another_subprotocol_is_unsupported(protocols, node, world):
    link = world.link(node.credential, protocols=protocols)
    assert await link.open()
    assert await link.closed() == Close.UNSUPPORTED


async def test_who_reconnects_too_often_has_to_wait(node, world):
    for _ in range(5):
        assert await world.link(node.credential).open()
    link = world.link(node.credential)
    assert await link.open()
    assert await link.closed() == Close.SHUTTING_DOWN


# --- hello -------------------------------------------------------------------------------------


async def silence(link):
    pass


def test_no_hello_in_time():
    assert refusal(silence, greet=False, hello_within=0.01) == Close.NO_HELLO


def test_a_second_hello():
    assert refusal(lambda link: link.say(hello())) == Close.OUT_OF_SEQUENCE


def test_something_else_before_the_hello():
    work = Reports(1, 1, 0)
    assert refusal(lambda link: link.say(work), greet=False) == Close.MALFORMED


def test_a_log_chunk_before_the_hello():
    chunk = msgspec.msgpack.encode(LogChunk(1, "1", 0, b"x"))
    assert refusal(lambda link: link.put_bytes(chunk), greet=False) == Close.MALFORMED


@pytest.mark.parametrize("version", [0, 2, 999])
def test_another_version(version):
    said = hello(version=version)
    assert refusal(lambda link: link.say(said), greet=False) == Close.UNSUPPORTED


@pytest.mark.parametrize(
    "said",
    [
        hello(resources=Resources(cpu=-1)),
        hello(attributes={"a b": "x"}),
        hello(attributes={"a": "x" * 1025}),
        hello(attributes={f"k{i}": "" for i in range(257)}),
    ],
)
def test_an_offer_that_makes_no_sense(said):
    assert refusal(lambda link: link.say(said), greet=False) == Close.MALFORMED


def test_a_quarantined_node_stays_out_whichever_copy_calls():
    node, credential = joined()

    async def scene(world):
        first, copy = world.link(credential), world.link(credential)
        await first.greet()
        await copy.open()
        await copy.say(hello(ledger="another"))
        assert await copy.closed() == Close.REFUSED
        assert await first.closed() == Close.REFUSED
        again = world.link(credential)
        await again.open()
        await again.say(hello())
        assert await again.closed() == Close.REFUSED

    above = play(scene)
    why = Node.objects.get(pk=node.pk).quarantined
    assert "different state directories" in why
    assert above.recorded == [(node.pk, "quarantine", f"{node.name} is quarantined: {why}")]


async def test_an_older_copy_is_fenced_and_the_newer_stays(node, world):
    newer, older = world.link(node.credential), world.link(node.credential)
    await newer.greet(hello(run=2))
    await older.open()
    await older.say(hello(run=1, instance="i0"))
    assert await older.closed() == Close.FENCED
    await newer.report()
    assert (await newer.hear(Ack)).seq == 1


# --- frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "17",
        "{}",
        '{"type":"dispatch"}',
        '{"type":"__init__"}',
        '{"type":"_private"}',
        '{"type":"heartbeat"}',
        '{"type":"heartbeat","epoch":1,"order_rev":0,"digest":"","load":NaN}',
        '{"type":"reports","epoch":1,"seq":-1,"order_rev":0}',
        '{"type":"reports","epoch":1,"seq":"1","order_rev":0}',
        '{"type":"reports","epoch":1,"seq":9223372036854775808,"order_rev":0}',
        '{"type":"reports","epoch":1,"seq":1,"order_rev":0,"items":[{"execution":"","happened":"start"}]}',
        '{"type":"reports","epoch":1,"seq":1,"order_rev":0,"items":[{"execution":"1","happened":"start"}]}',
        '{"type":"reports","epoch":1,"seq":1,"order_rev":0,"items":[{"execution":"1","happened":"win"}]}',
        '{"type":"heartbeat","epoch":1,"order_rev":0,"digest":"\\ud800"}',
        "[" * 10_000,
    ],
)
def test_what_is_no_message_is_malformed(text):
    assert refusal(lambda link: link.put(text)) == Close.MALFORMED


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff", b"{}", msgspec.msgpack.encode([1, 2])),
        *(msgspec.msgpack.encode(LogChunk(1, "1", at, b"x")) for at in (-1, 2**54)),
    ],
)
def test_bytes_that_are_no_log_chunk_are_malformed(data):
    assert refusal(lambda link: link.put_bytes(data)) == Close.MALFORMED


def test_a_frame_that_is_too_large():
    assert refusal(lambda link: link.put(" " * (MAX_FRAME + 1))) == Close.TOO_LARGE


def test_a_report_left_out():
    assert refusal(lambda link: link.say(Reports(1, 2, 0))) == Close.OUT_OF_SEQUENCE


def test_orders_acknowledged_that_were_never_sent():
    assert refusal(lambda link: link.report(order_rev=5)) == Close.OUT_OF_SEQUENCE


@pytest.mark.parametrize("epoch", [0, 2])
def test_another_epoch_is_fenced(epoch):
    assert refusal(lambda link: link.say(Heartbeat(epoch, 0, ""))) == Close.FENCED


def test_heartbeats_without_end():
    async def flood(link):
        for _ in range(20):
            await link.say(Heartbeat(link.epoch, 0, ""))

    assert refusal(flood) == Close.TOO_FAST


async def test_more_frames_than_the_window_end_the_link_and_those_within_it_count(
    above, node, link
):
    above.gate.clear()
    for _ in range(WINDOW + 1):
        await link.report()
    assert await link.closed() == Close.TOO_FAST
    above.gate.set()
    await until(lambda: NodeSession.objects.get(node=node).received == WINDOW)


def test_a_frame_that_can_never_be_written():
    above, refused = Above(), execution()
    above.refused.add(refused)
    node = joined()
    reports = [Report(execution(), Happened.START), Report(refused, Happened.START)]
    assert refusal(lambda link: link.report(*reports), node=node, above=above) == Close.REFUSED
    assert Node.objects.get(pk=node[0].pk).labels == {}


async def test_log_chunks_nobody_asked_for_are_dropped(link):
    for name in ("1", "x" * 1000):
        chunk = msgspec.msgpack.encode(LogChunk(link.epoch, name, 0, b"x" * 1000))
        await link.put_bytes(chunk)
    await link.report()
    assert await link.hear(Ack)


def test_one_link_refused_harms_no_other():
    nodes = [joined() for _ in range(3)]

    async def scene(world):
        links = [world.link(credential) for _, credential in nodes]
        await asyncio.gather(*(link.greet() for link in links))
        await links[0].put("nonsense")
        for link in links[1:]:
            await link.report(Report(execution(), Happened.START))
        assert await links[0].closed() == Close.MALFORMED
        for link in links[1:]:
            assert (await link.hear(Ack)).seq == 1
        left = {
            it.pk for it in await look(lambda: list(Node.objects.filter(connection="connected")))
        }
        assert {node.pk for node, _ in nodes[1:]} <= left

    play(scene)
