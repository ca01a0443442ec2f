import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from dashboard import live
from dashboard.consumers import SIGNED_OUT, LiveConsumer
from tests import rows


def feed(**differing):
    return live.Feed(**{"process": "p", "subscribe": lambda _: lambda: None, **differing})


async def until(question):
    async with asyncio.timeout(5):
        while not question():  # noqa: ASYNC110 - what is waited for is a plain call.
            await asyncio.sleep(0)


async def test_the_first_change_is_told_at_once_and_the_others_together():
    told = []
    it = feed(pause=0.01)
    it.join(lambda: told.append(it.cursor.number))
    it.changed()
    assert told == [2]
    for _ in range(100):
        it.changed()
    assert told == [2]
    await until(lambda: told == [2, 3])


async def test_who_has_left_is_told_nothing():
    told = []
    listener = told.append
    it = feed()
    it.join(lambda: listener(1))
    leaver = lambda: listener(2)  # noqa: E731 - a listener is known by itself.
    it.join(leaver)
    it.leave(leaver)
    it.changed()
    assert told == [1]


async def test_hints_are_heard_while_somebody_is_there_and_a_moment_longer():
    heard = []

    def subscribe(callback):
        heard.append("on")
        return lambda: heard.append("off")

    it = feed(subscribe=subscribe, linger=0)
    one = lambda: None  # noqa: E731
    it.join(one)
    it.join(lambda: None)
    it.leave(one)
    await asyncio.sleep(0)
    assert heard == ["on"]
    it.leave(next(iter(it._listeners)))
    await until(lambda: heard == ["on", "off"])


async def test_what_nobody_listened_to_is_news_to_a_page_of_before():
    it = feed(linger=0)
    one = lambda: None  # noqa: E731
    seen = [it.cursor.number]  # Of a page that is being rendered before its socket is open.
    for _ in range(2):
        it.join(one)
        it.join(lambda: None)
        seen.append(it.cursor.number)
        for listener in tuple(it._listeners):
            it.leave(listener)
        await until(lambda: it._unsubscribe is None)
    assert seen == [0, 1, 2]


def test_another_loop_begins_anew():
    it = feed()
    told = []

    async def run():
        it.join(lambda: told.append(1))
        it.changed()

    asyncio.run(run())
    asyncio.run(run())
    assert told == [1, 1]


def test_a_cursor_is_read_back_and_nonsense_is_none():
    assert live.Cursor.parse("ab.12") == live.Cursor("ab", 12)
    assert str(live.Cursor("ab", 12)) == "ab.12"
    assert live.Cursor.parse("ab") is live.Cursor.parse("ab.x") is live.Cursor.parse("") is None


@asynccontextmanager
async def socket(client, **times):
    its = times.pop("feed", None) or feed(pause=0.001)
    consumer = type("Quick", (LiveConsumer,), {"feed": its, **times})
    application = AuthMiddlewareStack(consumer.as_asgi())
    cookie = client.cookies.get(settings.SESSION_COOKIE_NAME)
    header = f"{settings.SESSION_COOKIE_NAME}={cookie.value}" if cookie else ""
    headers = [(b"cookie", header.encode())]
    link = WebsocketCommunicator(application, "/ws/live/", headers=headers)
    await link.connect()
    try:
        yield link, its
    finally:
        await link.disconnect()


@pytest.fixture
def somebody(transactional_db):
    client = Client()
    client.force_login(rows.user("vera", "viewer"))
    return client


async def said(link):
    return json.loads(await link.receive_from(timeout=5))


async def test_a_socket_hears_hello_then_of_every_change(somebody):
    async with socket(somebody) as (link, its):
        assert await said(link) == {"type": "hello", "cursor": "p.1"}
        its.changed()
        assert await said(link) == {"type": "changed", "cursor": "p.2"}
        its.changed()
        assert await said(link) == {"type": "changed", "cursor": "p.3"}


async def test_a_silent_socket_shows_signs_of_life(somebody):
    async with socket(somebody, heartbeat=0.01) as (link, _):
        assert [(await said(link))["type"] for _ in range(3)] == ["hello", "ping", "ping"]


async def test_strangers_are_sent_away(transactional_db):
    async with socket(Client()) as (link, _):
        assert await link.receive_output(timeout=5) == {
            "type": "websocket.close", "code": SIGNED_OUT,
        }  # fmt: skip


@pytest.mark.parametrize("event", ["deactivated", "signed out", "password changed"])
async def test_a_socket_ends_when_its_user_may_no_longer_look(somebody, event):
    def happens():
        user = User.objects.get(username="vera")
        if event == "deactivated":
            User.objects.update(is_active=False)
        elif event == "signed out":
            somebody.session.flush()
        else:
            user.set_password("another one")
            user.save()

    async with socket(somebody, recheck=0.05) as (link, _):
        await said(link)
        await sync_to_async(happens)()
        answer = await link.receive_output(timeout=5)
        assert answer == {"type": "websocket.close", "code": SIGNED_OUT}
