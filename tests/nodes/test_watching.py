"""Live logs over a session: in order, within the credit, and told when they end."""

import asyncio
from itertools import pairwise
from uuid import uuid4

import pytest

from nodes import log_forwarding
from nodes.log_watch import CREDIT, MOST, MOST_APART, NotConnected, TooManyWatches
from nodes.protocol.messages import Ack, Close, LogChunk, Unwatch, Watch
from tests.nodes.links import execution, play

pytestmark = pytest.mark.django_db(transaction=True)


async def read(pieces, into):
    async for piece in pieces:
        into.append(piece)


@pytest.fixture
async def watched(world, node, link):
    """The pieces of a log, the first of them being awaited, and the watch that the node heard."""
    pieces = world.sessions.watch(execution(), node.pk, "stdout")
    first = asyncio.create_task(anext(pieces))
    return pieces, first, await link.hear(Watch)


async def end(link, watch, reason=""):
    """The log has ended, and the session has heard that."""
    await link.end_log(watch, reason)
    await link.report()
    await link.hear(Ack)


async def test_a_watched_log_comes_in_order_until_its_end(node, world, link):
    got, it = [], execution()
    reading = asyncio.create_task(read(world.sessions.watch(it, node.pk, "stdout", 7), got))
    watch = await link.hear(Watch)
    assert (watch.execution, watch.stream, watch.offset, watch.follow) == (
        it,
        "stdout",
        7,
        True,
    )
    await link.send_log(watch, 7, b"hello ")
    await link.send_log(watch, 13, b"\x00\xff")
    await link.end_log(watch, "it has ended")
    await reading
    assert [(p.offset, p.data) for p in got[:-1]] == [(7, b"hello "), (13, b"\x00\xff")]
    assert got[-1].reason == "it has ended"


async def test_what_comes_empty_or_after_the_end_is_not_kept(link, watched):
    pieces, first, watch = watched
    await link.send_log(watch, 0, b"")
    await link.send_log(watch, 0, b"x")
    assert (await first).data == b"x"
    for reason in ("it has ended", "again"):
        await link.end_log(watch, reason)
        await link.send_log(watch, 1, b"y")
    await link.report()
    await link.hear(Ack)
    [end] = [piece async for piece in pieces]
    assert end.reason == "it has ended"


async def test_credit_is_granted_as_the_reader_reads(link, watched):
    pieces, first, watch = watched
    assert watch.credit == CREDIT
    for number in range(4):
        await link.send_log(watch, number * CREDIT // 4, b"x" * (CREDIT // 4))
    await first
    await anext(pieces)
    assert await link.socket.receive_nothing(timeout=0.05), "nothing is granted unread"
    asking = asyncio.create_task(anext(pieces))
    more = await link.hear(Watch)
    assert (more.watch, more.credit) == (watch.watch, CREDIT // 2)
    await asking
    await pieces.aclose()
    assert (await link.hear(Unwatch)).watch == watch.watch


async def test_what_is_printed_byte_by_byte_waits_for_its_reader_in_few_pieces(link, watched):
    pieces, first, watch = watched
    printed = bytes(range(256)) * 8
    for at in range(len(printed)):
        await link.send_log(watch, at, printed[at : at + 1])
    await end(link, watch)
    found = [await first, *[it async for it in pieces if isinstance(it, LogChunk)]]
    assert len(found) <= 2 * MOST_APART
    assert b"".join(it.data for it in found) == printed
    assert all(a.offset + len(a.data) == b.offset for a, b in pairwise(found))


async def test_bytes_after_a_gap_are_a_piece_of_their_own_however_far_its_reader_is_behind(
    link, watched
):
    pieces, first, watch = watched
    numbers = [*range(2 * MOST_APART), 1000, 1001]
    for at in numbers:
        await link.send_log(watch, at, b"x")
    await end(link, watch)
    found = [await first, *[it async for it in pieces if isinstance(it, LogChunk)]]
    assert (found[-1].offset, found[-1].data) == (1000, b"xx")
    assert sum(len(it.data) for it in found) == len(numbers)


async def test_a_log_that_had_ended_before_its_link_did_is_read_to_its_end(link, watched):
    pieces, first, watch = watched
    await link.send_log(watch, 0, b"x")
    await first
    await end(link, watch, "it has ended")
    await link.leave()
    assert [it.reason async for it in pieces] == ["it has ended"]


async def test_more_than_was_granted_ends_the_session_and_the_watch(link, watched):
    pieces, first, watch = watched
    for number in range(5):
        await link.send_log(watch, number * CREDIT // 4, b"x" * (CREDIT // 4))
    assert await link.closed() == Close.TOO_FAST
    await first
    await link.leave()
    with pytest.raises(NotConnected):
        await read(pieces, [])


async def test_a_watch_ends_with_its_link(node, world, link):
    reading = asyncio.create_task(read(world.sessions.watch(execution(), node.pk, "stderr"), []))
    await link.hear(Watch)
    await link.leave()
    with pytest.raises(NotConnected):
        await reading


def test_a_node_without_a_session_here_cannot_be_watched():
    async def scene(world):
        with pytest.raises(NotConnected):
            await read(world.sessions.watch(execution(), uuid4(), "stdout"), [])

    play(scene)


async def test_a_session_that_is_replaced_elsewhere_is_asked_for_no_log(node, link):
    reading = {
        epoch: asyncio.create_task(
            read(log_forwarding.watch(execution(), node.pk, "stdout", epoch=epoch), [])
        )
        for epoch in (link.epoch, link.epoch + 1)
    }
    assert await link.hear(Watch)
    with pytest.raises(NotConnected):
        await reading[link.epoch + 1]
    assert not reading[link.epoch].done()
    reading[link.epoch].cancel()


async def test_a_node_serves_so_many_readers_and_no_more(node, world, link):
    readers = [
        asyncio.create_task(read(world.sessions.watch(execution(), node.pk, "stdout"), []))
        for _ in range(MOST)
    ]
    for _ in readers:
        await link.hear(Watch)
    with pytest.raises(TooManyWatches):
        await read(world.sessions.watch(execution(), node.pk, "stdout"), [])
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await link.report()
    assert await link.hear(Ack)
    assert world.sessions.statistics()["watches"] == 0
