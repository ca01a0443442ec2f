"""Live logs over a session: in order, within the credit, and told when they end."""

import asyncio
from itertools import pairwise
from uuid import uuid4

import pytest

from nodes import log_forwarding
from nodes.log_watch import CREDIT, MOST, MOST_APART, NotConnected, TooManyWatches, Watches
from nodes.protocol.messages import Ack, Close, LogChunk, Unwatch, Watch
from nodes.shared_watch import KEPT
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


# --- one watch for all who follow ----------------------------------------------------------------


async def taken(pieces, size):
    """The next *size* bytes."""
    got = b""
    while len(got) < size:
        got += (await anext(pieces)).data
    return got


async def test_who_follows_what_others_follow_gets_the_same_bytes_of_one_watch(node, world, link):
    it = execution()
    first, second, third = (world.sessions.watch(it, node.pk, "stdout") for _ in range(3))
    waits = [asyncio.create_task(taken(pieces, 4)) for pieces in (first, second)]
    watch = await link.hear(Watch)
    await link.send_log(watch, 0, b"one\n")
    assert await asyncio.gather(*waits) == [b"one\n"] * 2
    assert await taken(third, 4) == b"one\n"
    assert world.sessions.statistics()["watches"] == 1
    waits = [asyncio.create_task(taken(pieces, 4)) for pieces in (third, second)]
    await link.send_log(watch, 4, b"two\n")
    assert await asyncio.gather(*waits) == [b"two\n"] * 2
    await first.aclose()
    await link.end_log(watch, "it has ended")
    for pieces in (second, third):
        assert (await anext(pieces)).reason == "it has ended"
        await pieces.aclose()
    assert world.sessions.statistics()["watches"] == 0


async def test_the_node_is_told_when_the_last_of_them_has_left(node, world, link):
    it = execution()
    readers = [world.sessions.watch(it, node.pk, "stdout") for _ in range(2)]
    waits = [asyncio.create_task(taken(pieces, 1)) for pieces in readers]
    watch = await link.hear(Watch)
    await link.send_log(watch, 0, b"x")
    await asyncio.gather(*waits)
    await readers[0].aclose()
    assert world.sessions.statistics()["watches"] == 1
    await readers[1].aclose()
    assert (await link.hear(Unwatch)).watch == watch.watch


async def test_who_comes_while_the_last_of_them_leaves_reads_on():
    said, leaves, may_leave = [], asyncio.Event(), asyncio.Event()

    async def say(message):
        said.append(type(message))
        if isinstance(message, Watch):
            watches.feed(LogChunk(1, message.watch, 0, b"x"))
        else:
            leaves.set()
            await may_leave.wait()

    watches, it = Watches(1, say), execution()
    first = watches.watch(it, "stdout", offset=0, follow=True)
    assert await taken(first, 1) == b"x"
    leaving = asyncio.create_task(first.aclose())
    await leaves.wait()
    second = watches.watch(it, "stdout", offset=0, follow=True)
    async with asyncio.timeout(10):
        assert await taken(second, 1) == b"x"
    may_leave.set()
    await leaving
    assert len(watches) == 1
    third = watches.watch(it, "stdout", offset=0, follow=True)
    assert await taken(third, 1) == b"x"
    assert said == [Watch, Unwatch, Watch], "two share the second"
    for pieces in (second, third):
        await pieces.aclose()
    assert len(watches) == 0


@pytest.mark.parametrize("offset", [0, -100])
async def test_who_comes_later_reads_what_came_before_by_a_watch_of_their_own(
    node, world, link, offset
):
    it = execution()
    early = world.sessions.watch(it, node.pk, "stdout", 1000)
    waits = asyncio.create_task(taken(early, 4))
    shared = await link.hear(Watch)
    await link.send_log(shared, 1000, b"new\n")
    await waits
    late = world.sessions.watch(it, node.pk, "stdout", offset)
    waits = asyncio.create_task(taken(late, 1004 if offset == 0 else 100))
    own = await link.hear(Watch)
    assert (own.offset, own.follow) == (offset, False)
    begin = 0 if offset == 0 else 904
    await link.send_log(own, begin, (1000 - begin) * b"o" + b"new\n")
    await link.end_log(own)
    assert await waits == (1000 - begin) * b"o" + b"new\n"
    waits = [asyncio.create_task(taken(pieces, 5)) for pieces in (early, late)]
    await link.send_log(shared, 1004, b"more\n")
    assert await asyncio.gather(*waits) == [b"more\n"] * 2
    for pieces in (early, late):
        await pieces.aclose()


async def test_a_slow_reader_holds_nobody_up_and_misses_nothing(node, world, link):
    it, piece = execution(), KEPT // 4
    quick, slow = (world.sessions.watch(it, node.pk, "stdout") for _ in range(2))
    waits = [asyncio.create_task(taken(pieces, piece)) for pieces in (quick, slow)]
    shared = await link.hear(Watch)
    for number in range(8):
        await link.send_log(shared, number * piece, bytes([number]) * piece)
        if number:
            assert await taken(quick, piece) == bytes([number]) * piece
        else:
            await asyncio.gather(*waits)
    waits = asyncio.create_task(taken(slow, 7 * piece))
    while True:
        own = await link.hear(Watch)
        if own.watch != shared.watch:  # Beside the credit of the other.
            break
    assert (own.offset, own.follow) == (piece, False)
    for number in (1, 2, 3):
        await link.send_log(own, number * piece, bytes([number]) * piece)
    await link.end_log(own)
    assert await waits == b"".join(bytes([number]) * piece for number in range(1, 8))
    for pieces in (quick, slow):
        await pieces.aclose()
