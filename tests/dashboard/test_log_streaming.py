"""Logs over the socket of a page: from a real session, no faster than they are taken."""

import json
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from dashboard import live, log_streaming
from dashboard.consumers import MALFORMED, SIGNED_OUT, LiveConsumer
from nodes.protocol.messages import Unwatch, Watch
from tests import rows
from tests.nodes.links import play

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def viewer():
    client = Client()
    client.force_login(rows.user("vera", "viewer"))
    return client


class Page:
    """The socket of an open page."""

    def __init__(self, link):
        self._link = link

    async def say(self, **message):
        await self._link.send_to(text_data=json.dumps(message))

    async def follow(self, execution, **differing):
        ask = {"id": 1, "execution": str(execution), "stream": "stdout", **differing}
        await self.say(type="follow", **ask)

    async def hear(self):
        """A piece as (id, is note, after, data), or a message; words of the feed are left out."""
        while True:
            event = await self._link.receive_output(timeout=10)
            if event["type"] == "websocket.close":
                return event["code"]
            if event.get("bytes") is not None:
                head, data = event["bytes"][:13], event["bytes"][13:]
                name, kind, after = log_streaming.HEADER.unpack(head)
                return name, bool(kind), after, data
            message = json.loads(event["text"])
            if message["type"] not in ("hello", "changed", "ping"):
                return message

    async def hears_nothing(self):
        return await self._link.receive_nothing(timeout=0.2)


@asynccontextmanager
async def opened(client, **times):
    feed = live.Feed(process="p", subscribe=lambda _: lambda: None)
    consumer = type("Quick", (LiveConsumer,), {"feed": feed, **times})
    cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
    link = WebsocketCommunicator(
        AuthMiddlewareStack(consumer.as_asgi()), "/ws/live/", headers=[(b"cookie", cookie.encode())]
    )
    await link.connect()
    await link.receive_from(timeout=10)
    try:
        yield Page(link)
    finally:
        await link.disconnect()


def end(why="", *, name=1, again=False):
    return {"type": "end", "id": name, "why": why, "again": again}


async def test_a_log_comes_over_the_socket_each_piece_with_the_place_after_it(
    viewer, link, execution
):
    async with opened(viewer) as page:
        await page.follow(execution.pk, stream="stderr", offset=3)
        watch = await link.hear(Watch)
        assert (watch.stream, watch.offset, watch.follow) == ("stderr", 3, True)
        await link.send_log(watch, 3, b"one\n")
        await link.send_log(watch, 7, "zwölf".encode()[:3])
        assert await page.hear() == (1, False, 7, b"one\n")
        assert await page.hear() == (1, False, 10, b"zw\xc3")
        await link.end_log(watch)
        assert await page.hear() == end()


async def test_notes_of_ours_are_told_from_what_was_printed(viewer, link, execution):
    async with opened(viewer) as page:
        await page.follow(execution.pk, offset=0)
        watch = await link.hear(Watch)
        await link.send_log(watch, 100, b"late\n")
        note = b"[muster: 100 bytes not kept any longer]\n"
        assert await page.hear() == (1, True, 100, note)
        assert await page.hear() == (1, False, 105, b"late\n")
        await link.end_log(watch, "it cannot be read")
        assert await page.hear() == (1, True, 105, b"[muster: it cannot be read]\n")
        assert await page.hear() == end()


async def test_a_page_asks_again_for_what_it_cannot_have_now_and_shows_no_note(
    viewer, link, execution
):
    async with opened(viewer) as page:
        with pytest.MonkeyPatch.context() as crowded:
            crowded.setattr("nodes.log_watch.MOST", 0)
            await page.follow(execution.pk, offset=0)
            why = "too many read the logs of this node; try again later"
            assert await page.hear() == end(why, again=True)
        await page.follow(execution.pk, offset=0)
        await link.send_log(await link.hear(Watch), 0, b"more\n")
        assert await page.hear() == (1, False, 5, b"more\n")


async def test_a_tail_tells_where_it_is_in_the_log(viewer, link, execution):
    async with opened(viewer) as page:
        await page.follow(execution.pk, tail=5)
        watch = await link.hear(Watch)
        assert (watch.offset, watch.follow) == (-5, True)
        await link.send_log(watch, 95, b"tail\n")
        assert await page.hear() == (1, False, 100, b"tail\n")


async def test_the_beginning_ends_where_what_is_shown_begins(viewer, link, execution):
    async with opened(viewer) as page:
        await page.follow(execution.pk, offset=10, until=16)
        watch = await link.hear(Watch)
        assert (watch.offset, watch.follow) == (10, False)
        await link.send_log(watch, 10, b"0123456789")
        assert await page.hear() == (1, False, 16, b"012345")
        assert await page.hear() == end()
        assert (await link.hear(Unwatch)).watch == watch.watch


async def test_no_more_is_on_its_way_than_a_page_takes(viewer, link, execution):
    piece = (b"x" * 1023 + b"\n") * 64
    async with opened(viewer) as page:
        await page.follow(execution.pk, offset=0)
        watch = await link.hear(Watch)
        for number in range(4):
            await link.send_log(watch, number * len(piece), piece)
        assert (await link.hear(Watch)).credit == log_streaming.CREDIT // 2
        for number in range(4, 6):
            await link.send_log(watch, number * len(piece), piece)
        heard = [(await page.hear())[2] for _ in range(4)]
        assert heard[-1] == log_streaming.CREDIT
        assert await page.hears_nothing()
        await page.say(type="taken", id=1, bytes=len(piece))
        assert (await page.hear())[2] == log_streaming.CREDIT + len(piece)
        assert await page.hears_nothing()


@pytest.mark.parametrize("how", ["unfollow", "leave", "deactivated"])
async def test_a_node_is_asked_no_longer_for_who_has_left(viewer, how, link, execution):
    async with opened(viewer, recheck=0.05 if how == "deactivated" else 60) as page:
        await page.follow(execution.pk, offset=0)
        watch = await link.hear(Watch)
        if how == "unfollow":
            await page.say(type="unfollow", id=1)
        elif how == "deactivated":
            await sync_to_async(User.objects.update)(is_active=False)
            assert await page.hear() == SIGNED_OUT
        if how != "leave":
            assert (await link.hear(Unwatch)).watch == watch.watch
    if how == "leave":
        assert (await link.hear(Unwatch)).watch == watch.watch


async def test_a_page_follows_only_a_few_logs_and_one_more_when_it_has_left_another(
    viewer, link, execution
):
    async with opened(viewer) as page:
        for name in range(log_streaming.MOST + 1):
            await page.follow(execution.pk, id=name, offset=0)
        why = f"no more than {log_streaming.MOST} logs a page"
        assert await page.hear() == end(why, name=log_streaming.MOST, again=True)
        await page.say(type="unfollow", id=0)
        await page.follow(execution.pk, id=9, stream="stderr", offset=77)
        while (watch := await link.hear(Watch)).offset != 77:
            pass
        await link.send_log(watch, 77, b"!")
        assert await page.hear() == (9, False, 78, b"!")


def test_an_execution_that_is_not_there_is_told(viewer):
    async def scene(world):
        async with opened(viewer) as page:
            await page.follow(uuid4(), offset=0)
            assert await page.hear() == end("this execution is no longer there")

    play(scene)


ASK = {"type": "follow", "id": 1, "execution": str(uuid4()), "stream": "stdout", "offset": 0}


@pytest.mark.parametrize(
    "text",
    [
        *("no json", "[]", "{}", "\x00", "null", "1e999", "[" * 500, "x" * 2000),
        '{"type": "stop", "job": "all"}',
        '{"type": "taken", "id": 1, "bytes": -5}',
        '{"type": "unfollow", "id": "1"}',
        *(
            json.dumps(ASK | wrong)
            for wrong in (
                *({"id": -1}, {"id": 2**32}, {"id": 1.5}, {"id": None}),
                *({"execution": "../x"}, {"execution": None}, {"stream": "stdin"}),
                *({"offset": -1}, {"offset": 10**30}, {"offset": None}, {"tail": 5}),
                *({"offset": None, "tail": 2**40}, {"until": -1}, {"offset": 5, "until": 4}),
                {"more": 1},
            )
        ),
    ],
)
def test_what_no_page_of_ours_says_closes_the_socket(viewer, text):
    async def scene(world):
        async with opened(viewer) as page:
            await page._link.send_to(text_data=text)
            assert await page.hear() == MALFORMED

    play(scene)


async def test_bytes_and_a_second_follow_of_one_name_close_the_socket(viewer, link, execution):
    async with opened(viewer) as page:
        await page._link.send_to(bytes_data=b"\x00\xff")
        assert await page.hear() == MALFORMED
    async with opened(viewer) as page:
        await page.follow(execution.pk, offset=0)
        watch = await link.hear(Watch)
        await page.follow(execution.pk, offset=0)
        assert (await link.hear(Unwatch)).watch == watch.watch
        assert await page.hear() == MALFORMED
