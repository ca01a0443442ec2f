"""A log that is read through another web process: what is signed, sent, and said of it."""

import asyncio
import struct
import time
from dataclasses import asdict, replace

import pytest
from django.core import signing
from django.test import Client

from nodes import log_forwarding
from nodes.log_forwarding import Kind, Wanted, address_of, frames
from nodes.log_watch import NotConnected, SessionEnded, TooManyWatches
from nodes.protocol.messages import LogChunk, Watch
from tests.nodes.links import execution, joined, play

WANTED = Wanted(
    execution=execution(), node=execution(), stream="stdout", offset=7, follow=True, credit=1000
)


def signed(wanted, *, salt="muster.internal.logs"):
    return f"Muster-Signed {signing.dumps(asdict(wanted), salt=salt)}"


def ask(authorization=None, method="get"):
    headers = {} if authorization is None else {"Authorization": authorization}
    client = Client(enforce_csrf_checks=True)
    return getattr(client, method)("/internal/logs/", headers=headers)


@pytest.mark.parametrize(
    "authorization",
    [
        *(None, "", "Muster-Signed", "Muster-Signed x", "Bearer mt_x", "Muster-Signed a:b:c"),
        signed(WANTED, salt="something else"),
        signed(WANTED)[:-1] + "~",
        signed(WANTED).replace("Muster-Signed", "Bearer"),
    ],
)
def test_who_does_not_share_our_secret_reads_nothing(authorization):
    answer = ask(authorization)
    assert answer.status_code == 403
    assert b"not signed, or too old" in answer.content


@pytest.mark.parametrize(("age", "status"), [(0, 200), (55, 200), (65, 403), (-5, 200)])
def test_a_signature_is_good_for_a_minute(age, status):
    class Earlier(signing.TimestampSigner):
        def timestamp(self):
            return signing.b62_encode(int(time.time()) - age)

    made = Earlier(salt="muster.internal.logs").sign_object(asdict(WANTED))
    assert ask(f"Muster-Signed {made}").status_code == status


def test_it_is_only_read():
    assert ask(signed(WANTED), method="post").status_code == 405


async def decoded(pieces):
    return [it async for it in log_forwarding._decoded(pieces)]


async def cut(data, size):
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", range(1, 20))
async def test_frames_come_through_wherever_they_are_cut(size):
    said = [(kind, b"x" * length) for length, kind in enumerate(Kind)]
    data = b"".join(log_forwarding._frame(kind, data, 2**40) for kind, data in said)
    found = await decoded(cut(data, size))
    assert [(kind, data) for kind, _, data in found] == said


@pytest.mark.django_db(transaction=True)
def test_what_the_node_sends_is_passed_on_with_its_places_and_its_end():
    node, credential = joined()
    wanted = replace(WANTED, node=str(node.pk))

    async def scene(world):
        link = await world.greeted(credential)
        reading = asyncio.create_task(decoded(frames(wanted, heartbeat=0.05)))
        watch = await link.hear(Watch)
        assert (watch.execution, watch.offset, watch.follow, watch.credit) == (
            *(wanted.execution, 7, True, 1000),
        )
        await link.send_log(watch, 7, b"one\n")
        await asyncio.sleep(0.1)
        await link.end_log(watch, "it has ended")
        said = [it for it in await reading if it[0] != Kind.ALIVE]
        assert said == [(Kind.CHUNK, 7, b"one\n"), (Kind.END, 0, b"it has ended")]
        assert len(await decoded(frames(replace(wanted, node=execution())))) == 1

    play(scene)


# --- the end that asks, against one that answers so ----------------------------------------------


HEADER = struct.Struct(">BQI")
CHUNK = HEADER.pack(0, 5, 3) + b"one"


async def heard(answer, status=b"200 OK"):
    """What comes of a web process that gives this answer, and how it ends."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n" + answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = []
    async with server:
        try:
            async for it in log_forwarding._watch_elsewhere(WANTED, f"http://127.0.0.1:{port}"):
                found.append(it.data if isinstance(it, LogChunk) else it.reason)  # noqa: PERF401
        except (NotConnected, TooManyWatches) as why:
            return found, type(why), str(why).replace(str(port), "PORT")
    return found, None, ""


def elsewhere(what):
    return f"the web process at http://127.0.0.1:PORT, which holds its session, {what}"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (CHUNK + HEADER.pack(2, 0, 4) + b"over", ([b"one", "over"], None, "")),
        (HEADER.pack(3, 0, 0), ([], NotConnected, "the node is not connected")),
        (CHUNK + HEADER.pack(4, 0, 0), ([b"one"], SessionEnded, "the node is not connected")),
        (HEADER.pack(5, 0, 0), ([], TooManyWatches, "")),
        (CHUNK, ([b"one"], SessionEnded, elsewhere("broke off"))),
        (HEADER.pack(1, 0, 0), ([], SessionEnded, elsewhere("broke off"))),
        (CHUNK[:-1], ([], NotConnected, elsewhere("does not answer"))),
        (b"", ([], NotConnected, elsewhere("does not answer"))),
    ],
)
async def test_every_end_of_an_answer_is_what_it_means(answer, said):
    assert await heard(answer) == said


async def test_a_process_with_another_secret_is_named_with_the_cure():
    found, why, sentence = await heard(b"", b"403 Forbidden")
    assert (found, why) == ([], NotConnected)
    assert sentence == elsewhere(
        "refuses to pass its log on (403): give all web processes one MUSTER_SECRET_KEY, "
        "and set their clocks"
    )


@pytest.mark.parametrize(
    ("status", "answer", "what"),
    [
        (b"301 Moved Permanently", b"", "HTTP 301"),
        (b"404 Not Found", b"", "HTTP 404"),
        (b"200 OK", b"<!doctype html><title>Welcome</title>", "what is no log"),
    ],
)
async def test_who_is_no_web_process_of_ours_is_named_with_the_cure(status, answer, what):
    found, why, sentence = await heard(answer, status)
    assert (found, why) == ([], NotConnected)
    assert sentence == elsewhere(
        f"answers {what}: MUSTER_INTERNAL_URL of that process must be where the others reach it, "
        "and all be of one version"
    )


@pytest.mark.parametrize(
    ("server", "address"),
    [
        (["10.0.0.5", 8000], "http://10.0.0.5:8000"),
        (["::1", 80], "http://[::1]:80"),
        (["/run/web.sock", None], ""),
        (None, ""),
    ],
)
def test_the_address_of_a_process_is_where_its_node_reaches_it(server, address):
    assert address_of({"server": server}) == address
