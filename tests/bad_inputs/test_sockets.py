"""Sockets: what a node may not say, and what a page may not ask; each ends its own link alone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import msgspec
import pytest

from nodes.protocol.messages import MAX_FRAME, Ack, Close, Heartbeat, Held, Holding, LogChunk, Pulse
from orchestrator.models import Event, Execution
from tests import rows
from tests.bad_inputs.table import case, tries
from tests.nodes.links import Orchestrator, hello, joined, look, play, running

pytestmark = pytest.mark.django_db(transaction=True)

ID = "0123abcd-0123-4abc-8abc-0123456789ab"
REPORTS = {"type": "reports", "epoch": 1, "seq": 1, "order_rev": 0}
BEAT = {"type": "heartbeat", "epoch": 1, "order_rev": 0, "digest": ""}
HELLO = msgspec.to_builtins(hello()) | {"type": "hello"}
NOT_A_NUMBER = float("nan")


def said(base: dict, **differing) -> str:
    return json.dumps({**base, **differing})


def about(execution: str = ID, **differing) -> str:
    return said(REPORTS, items=[{"execution": execution, "happened": "start", **differing}])


def ended_with(*frames: str | bytes, greet: bool) -> tuple[int, str]:
    """How the link of a node ends that says these *frames*; another node's is not harmed."""
    (_, credential), (_, other) = joined(), joined()
    found = []

    async def scene(world):
        bystander = await world.greeted(other)
        link = world.link(credential)
        await (link.greet() if greet else link.open())
        for frame in frames:
            await (link.put(frame) if isinstance(frame, str) else link.put_bytes(frame))
        while (event := await link.socket.receive_output(timeout=20))["type"] != "websocket.close":
            pass
        found.extend((event["code"], event["reason"]))
        await bystander.say(Heartbeat(bystander.epoch, 0, ""))
        await bystander.hear(Pulse)

    play(scene, Orchestrator())
    return tuple(found)


FIRST = [
    case(79, "work before hello", Close.MALFORMED, "first message must be a hello", said(BEAT)),
    case(79, "log before hello", Close.MALFORMED, "hello", msgspec.msgpack.encode(LogChunk(1, "1", 0, b"x"))),
    case(80, "version 0", Close.UNSUPPORTED, "version 0 is not spoken here, only 1", said(HELLO, version=0)),
    case(80, "version 999", Close.UNSUPPORTED, "only 1", said(HELLO, version=999)),
    case(80, "version in quotes", Close.MALFORMED, "version", said(HELLO, version="1")),
    case(93, "cpu -1", Close.MALFORMED, "cpu", said(HELLO, resources={"cpu": -1})),
    case(93, "memory NaN", Close.MALFORMED, "", said(HELLO, resources={"memory": NOT_A_NUMBER})),
    case(93, "cpu in quotes", Close.MALFORMED, "resources.cpu", said(HELLO, resources={"cpu": "4"})),
    case(93, "attributes", Close.MALFORMED, "attributes", said(HELLO, attributes={f"l{n}": "" for n in range(300)})),
    case(93, "attributes 10 MB", Close.TOO_LARGE, "limit", said(HELLO, attributes={"a": "x" * 10_000_000})),
    case(93, "attribute's name", Close.MALFORMED, "a b", said(HELLO, attributes={"a b": "x"})),
    case(89, "no id", Close.MALFORMED, "is not the id", said(HELLO, holds=[{"execution": "x", "state": "running"}])),
    case(89, "no state", Close.MALFORMED, "state", said(HELLO, holds=[{"execution": ID, "state": "happy"}])),
    case(17, "instance", Close.MALFORMED, "", '{"type":"hello","instance":"\\ud800"}'),
    case(18, "missing", Close.MALFORMED, "version", '{"type": "hello"}'),
    case(99, "run -1", Close.MALFORMED, "run", said(HELLO, run=-1)),
]  # fmt: skip

LATER = [
    case(79, "a second hello", Close.OUT_OF_SEQUENCE, "hello", said(HELLO)),
    case(81, "nothing", Close.MALFORMED, "", ""),
    case(81, "no JSON", Close.MALFORMED, "", "{"),
    case(81, "list", Close.MALFORMED, "object", "[]"),
    case(81, "null", Close.MALFORMED, "object", "null"),
    case(81, "no type", Close.MALFORMED, "type", "{}"),
    case(81, "unknown type", Close.MALFORMED, "type", '{"type": "nonsense"}'),
    case(81, "bytes", Close.MALFORMED, "", b"\xc1"),
    case(81, "bytes of another type", Close.MALFORMED, "", msgspec.msgpack.encode([1, 2])),
    case(82, "__init__", Close.MALFORMED, "type", '{"type": "__init__"}'),
    case(82, "_private", Close.MALFORMED, "type", '{"type": "_private"}'),
    case(82, "dispatch", Close.MALFORMED, "type", '{"type": "dispatch"}'),
    case(82, "number", Close.MALFORMED, "type", '{"type": 1}'),
    case(7, "lists", Close.MALFORMED, "", "[" * 100_000),
    case(7, "objects", Close.MALFORMED, "", '{"type":' * 30_000),
    case(83, "text", Close.TOO_LARGE, "limit 262144", said(BEAT, digest="x" * MAX_FRAME)),
    case(83, "bytes", Close.TOO_LARGE, "limit 262144", b"\xc4" + b"x" * MAX_FRAME),
    case(86, "skipped", Close.OUT_OF_SEQUENCE, "frame 5 came after 0", said(REPORTS, seq=5)),
    case(86, "negative", Close.MALFORMED, "seq", said(REPORTS, seq=-1)),
    case(86, "2^63", Close.MALFORMED, "seq", said(REPORTS, seq=2**63)),
    case(86, "text", Close.MALFORMED, "seq", said(REPORTS, seq="1")),
    case(86, "null", Close.MALFORMED, "seq", said(REPORTS, seq=None)),
    case(86, "fraction", Close.MALFORMED, "seq", said(REPORTS, seq=1.5)),
    case(87, "older epoch", Close.FENCED, "", said(BEAT, epoch=0)),
    case(87, "newer epoch", Close.FENCED, "", said(REPORTS, epoch=9)),
    case(88, "no id", Close.MALFORMED, "is not the id of an execution", about("x")),
    case(88, "uppercase", Close.MALFORMED, "is not the id of an execution", about(ID.upper())),
    case(88, "nothing", Close.MALFORMED, "items[0].execution", about("")),
    case(88, "too many", Close.MALFORMED, "items", said(REPORTS, items=[{"execution": ID, "happened": "start"}] * 300)),
    case(90, "no such event", Close.MALFORMED, "items[0].happened", about(happened="win")),
    case(91, "quoted", Close.MALFORMED, "items[0].exit_code", about(exit_code="0")),
    case(91, "2^31", Close.MALFORMED, "items[0].exit_code", about(exit_code=2**31)),
    case(91, "fraction", Close.MALFORMED, "items[0].exit_code", about(exit_code=0.5)),
    case(91, "ran NaN", Close.MALFORMED, "", about(ran=NOT_A_NUMBER)),
    case(97, "price", Close.MALFORMED, "", about(happened="bid", ran=float("inf"))),
    case(98, "load NaN", Close.MALFORMED, "", said(BEAT, load=NOT_A_NUMBER)),
    case(98, "running -1", Close.MALFORMED, "running", said(BEAT, running=-1)),
    case(98, "without end", Close.TOO_FAST, "heartbeats", *[said(BEAT)] * 50),
    case(17, "surrogate", Close.MALFORMED, "", '{"type":"goodbye","epoch":1,"reason":"\\ud800"}'),
]  # fmt: skip


def close_of(code, says, *frames, greet):
    found, reason = ended_with(*frames, greet=greet)
    assert found == code, reason
    assert says in reason
    assert reason


@pytest.mark.parametrize("expected", [pytest.param(it.values, id=it.id) for it in FIRST])
def test_a_first_word_that_is_none_ends_the_link(expected, harmless):
    close_of(*expected, greet=False)


@pytest.mark.parametrize("expected", [pytest.param(it.values, id=it.id) for it in LATER])
def test_a_word_that_no_agent_says_ends_the_link(expected):
    close_of(*expected, greet=True)


# --- reports that are well-formed, and wrong ---------------------------------------------------


@pytest.fixture
def scene():
    """A node with its credential, and what it and another one run."""
    node, credential = joined()
    job = rows.job(name="talks", count=3)
    mine, theirs = running(node, job=job), running(joined()[0], job=job, slot=1)
    return SimpleNamespace(node=node, credential=credential, job=job, mine=mine, theirs=theirs)


def reported(scene, *items: dict) -> Execution:
    """What the node's execution is after a frame with these *items*, which is acknowledged."""

    async def play_it(world):
        held = Held(str(scene.mine.pk), Holding.RUNNING)
        link = await world.greeted(scene.credential, hello(holds=(held,)))
        await link.put(said({**REPORTS, "epoch": link.epoch}, items=list(items)))
        await link.hear(Ack)

    play(play_it, Orchestrator())
    return Execution.objects.get(pk=scene.mine.pk)


@pytest.mark.parametrize(
    "differing",
    [
        case(91, "1", {"exit_code": 1}),
        case(91, "300", {"exit_code": 300}),
        case(91, "-9", {"exit_code": -9}),
        case(91, "none", {}),
        case(91, "null", {"exit_code": None}),
    ],
)
def test_nobody_completes_with_another_exit_code_than_0(scene, differing):
    found = reported(scene, {"execution": str(scene.mine.pk), "happened": "complete", **differing})
    assert (found.observed, found.code) == ("failed", "unknown-outcome")
    assert "exit code" in found.message
    assert found.exit_code == differing.get("exit_code")


@tries(88)
def test_a_report_on_what_another_node_runs_has_no_effect_and_is_noted(scene):
    found = reported(scene, {"execution": str(scene.theirs.pk), "happened": "fail"})
    assert found.observed == "running"
    assert Execution.objects.get(pk=scene.theirs.pk).observed == "running"
    assert Event.objects.filter(what="foreign-report").count() == 1


@tries(89)
def test_what_nobody_knows_is_no_execution(scene):
    assert reported(scene, {"execution": ID, "happened": "complete"}).observed == "running"
    assert Execution.objects.count() == 2


@tries(90)
@pytest.mark.parametrize("happened", ["bid", "prepare", "decline"])
def test_nothing_goes_back(scene, happened):
    again = {"execution": str(scene.mine.pk), "happened": happened}
    assert reported(scene, again).observed == "running"


@tries(89)
def test_a_hello_that_holds_what_is_not_its_own_is_told_to_end_that(scene):
    """What nobody knows may be of another database: it is left running, and noted."""
    held = [{"execution": it, "state": "running"} for it in (ID, str(scene.theirs.pk))]
    told = []

    async def play_it(world):
        link = world.link(scene.credential)
        await link.open()
        await link.put(said(HELLO, holds=held))
        welcome = await link.hear()
        told.extend((it.execution, it.want) for it in welcome.desired)

    play(play_it, Orchestrator())
    stops = {execution for execution, want in told if want == "stop"}
    assert stops == {str(scene.theirs.pk)}
    assert any(ID in str(it) for it in Event.objects.values_list())


@tries(94)
def test_what_a_node_has_less_of_than_it_runs_is_not_offered(scene):
    less = hello(resources=msgspec.structs.replace(hello().resources, cpu=1))

    async def play_it(world):
        await world.link(scene.credential).greet(less)

    play(play_it, Orchestrator())
    scene.node.refresh_from_db()
    assert scene.node.capacity_cpu >= 0
    assert scene.node.advertised_cpu == 1


@tries(96)
def test_log_pieces_that_nobody_asked_for_are_dropped(scene):
    async def play_it(world):
        link = await world.greeted(scene.credential)
        for offset in (0, 5, 2, 2**53):
            await link.put_bytes(
                msgspec.msgpack.encode(LogChunk(link.epoch, "9", offset, b"x\0\xff"))
            )
        await link.say(Heartbeat(link.epoch, 0, ""))
        await link.hear(Pulse)

    play(play_it, Orchestrator())


# --- the sockets of pages ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        case(116, "nothing", ""),
        case(116, "no JSON", "{"),
        case(116, "list", "[]"),
        case(116, "unknown type", '{"type": "subscribe"}'),
        case(116, "unknown field", said({"type": "unfollow", "id": 1}, all=True)),
        case(116, "id -1", '{"type": "unfollow", "id": -1}'),
        case(116, "10,000 ids", said({"type": "follow"}, execution=[ID] * 10_000)),
        case(116, "no execution", '{"type":"follow","id":1,"execution":"x","stream":"stdout","tail":1}'),
        case(116, "stream", said({"type": "follow", "id": 1, "stream": "both"}, execution=ID, tail=1)),
        case(116, "no place", said({"type": "follow", "id": 1, "stream": "stdout"}, execution=ID)),
        case(116, "deep", "[" * 1000),
        case(116, "surrogate", '{"type": "\\ud800"}'),
        case(116, "bytes", b"\x00\xff"),
    ],
)  # fmt: skip
async def test_a_page_says_nothing_that_no_page_says(message, transactional_db):
    from channels.testing import WebsocketCommunicator

    from dashboard.consumers import MALFORMED, LiveConsumer

    user = await look(lambda: rows.user("vera", "viewer"))
    socket = WebsocketCommunicator(LiveConsumer.as_asgi(), "/ws/live/")
    socket.scope["user"] = user
    assert (await socket.connect(timeout=20))[0]
    await socket.receive_from(timeout=20)
    kind = "bytes" if isinstance(message, bytes) else "text"
    await socket.send_input({"type": "websocket.receive", kind: message})
    assert (await socket.receive_output(20))["code"] == MALFORMED
    await socket.disconnect()
