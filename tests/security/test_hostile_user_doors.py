"""Somebody with an account who asks for more than their share, or goes on when they may not."""

import asyncio
import gc
import json

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.test import AsyncClient, Client

from dashboard.consumers import TOO_MANY, LiveConsumer
from orchestrator import access
from orchestrator.access import limits, tokens
from orchestrator.api import logs
from orchestrator.endpoint.logs import Piece
from orchestrator.server import front_door
from tests import rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def eve(db):
    return rows.user("eve", "viewer")


def api(user):
    secret = tokens.create(user=user, name="t", scopes=["read"], expires_in=None)
    return {"host": "localhost", "authorization": f"Bearer {secret}"}


def browser(user):
    client = Client(headers={"host": "localhost"})
    client.force_login(user)
    return client


@pytest.fixture
def slow(monkeypatch):
    """One request a second, ten at once."""
    monkeypatch.setattr(limits, "requests", limits.Requests(1))
    monkeypatch.setattr(front_door, "requests_of_addresses", limits.Requests(1))


@pytest.mark.parametrize("door", ["token", "session", "pages"])
def test_who_asks_without_end_is_told_to_wait_and_others_are_not(slow, eve, door):
    client = Client(headers=api(eve)) if door == "token" else browser(eve)
    path = "/queue/" if door == "pages" else "/api/v1/jobs"
    answers = [client.get(path) for _ in range(12)]
    assert [it.status_code for it in answers[:10]] == [200] * 10
    assert answers[-1].status_code == 429
    assert answers[-1]["Retry-After"] == "1"
    assert "eve asks more often than 1 times a second" in answers[-1].content.decode()
    assert Client(headers=api(rows.user("ana", "viewer"))).get("/api/v1/jobs").status_code == 200


def test_another_token_of_the_same_user_is_no_second_share(slow, eve):
    answers = [Client(headers=api(eve)).get("/api/v1/jobs").status_code for _ in range(12)]
    assert answers.count(200) == 10


async def _knock(kind, path):
    async def application(scope, receive, send):
        await send({"type": "passed"})

    async def receive():
        return {"type": "websocket.connect"}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "client": ["203.0.113.9", 1], "headers": []}
    await front_door.at_the_door(application)(scope, receive, send)
    return sent


def test_an_address_that_asks_without_end_is_told_to_wait_and_its_nodes_are_not(slow):
    async def many():
        first = [await _knock("http", "/") for _ in range(10)]
        assert first == [[{"type": "passed"}]] * 10
        start, body = await _knock("http", "/api/v1/jobs")
        assert (start["status"], json.loads(body["body"])["code"]) == (429, "too-many-requests")
        assert (b"retry-after", b"1") in start["headers"]
        assert (await _knock("websocket", "/ws/live/"))[-1]["code"] == 4429
        assert await _knock("websocket", "/ws/nodes/") == [{"type": "passed"}]

    asyncio.run(many())


# --- sockets and streams -----------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
async def test_of_too_many_open_pages_the_last_is_sent_away_until_another_is_closed(
    settings, eventually
):
    settings.SOCKETS_PER_USER = 2
    eve = await sync_to_async(rows.user)("eve", "viewer")

    async def opened():
        link = WebsocketCommunicator(LiveConsumer.as_asgi(), "/ws/live/")
        link.scope["user"], link.scope["session"] = eve, None
        await link.connect()
        return link, await link.receive_output(timeout=5)

    links = [await opened() for _ in range(3)]
    assert [it["type"] for _, it in links] == ["websocket.send"] * 2 + ["websocket.close"]
    assert links[-1][1]["code"] == TOO_MANY == 4429
    await links[0][0].disconnect()
    link, first = await opened()
    assert first["type"] == "websocket.send"
    for it in (links[1][0], link):
        await it.disconnect()


@pytest.mark.django_db(transaction=True)
async def test_of_too_many_followed_logs_the_last_is_refused_until_another_has_ended(settings):
    settings.STREAMS_PER_USER = 2
    eve = await sync_to_async(rows.user)("eve", "viewer")
    execution = await sync_to_async(rows.execution)(observed="new")
    client, path = AsyncClient(headers=await sync_to_async(api)(eve)), f"executions/{execution.pk}"

    async def follow():
        return await client.get(f"/api/v1/{path}/logs?follow=true")

    open_ones = [await follow() for _ in range(2)]
    assert [it.status_code for it in open_ones] == [200, 200]
    refused = await follow()
    assert (refused.status_code, refused.json()["code"]) == (429, "too-many-streams")
    assert refused["Retry-After"] == "5"
    reading = asyncio.ensure_future(anext(aiter(open_ones[0])))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await open_ones[0].streaming_content.aclose()
    assert (await follow()).status_code == 200
    del open_ones, reading  # Nobody ever read them.
    gc.collect()
    assert (await follow()).status_code == 200


async def test_a_followed_log_breaks_off_when_it_may_no_longer_be_read():
    allowed = True

    async def endless():
        while True:
            yield Piece(rows.unknown_id(), b"line\n", 5)
            await asyncio.sleep(0)

    slots = limits.Slots()
    slot = slots.take("eve", 1)
    pieces = logs.while_allowed(endless(), lambda: allowed, slot, every=0.02)
    records = logs.as_records(pieces)
    assert b'"data"' in await anext(records)
    allowed = False
    async with asyncio.timeout(10):
        rest = [it async for it in records]
    assert json.loads(rest[-1])["note"] is True
    assert not any(b'"end"' in it for it in rest)
    assert slots.take("eve", 1)


@pytest.mark.parametrize("event", ["revoked", "deactivated", "role taken", "nothing"])
def test_who_follows_is_asked_for_again_by_token(eve, event):
    secret = tokens.create(user=eve, name="t", scopes=["read"], expires_in=None)
    who = _caller({"HTTP_AUTHORIZATION": f"Bearer {secret}"}, eve)
    assert access.may(who.again(), "see", "default")
    if event == "revoked":
        tokens.revoke(eve.api_tokens.get().pk)
    elif event == "deactivated":
        User.objects.update(is_active=False)
        tokens._believed.clear()
    elif event == "role taken":
        eve.roles.all().delete()
    rights = who.again()
    assert (rights is not None and access.may(rights, "see", "default")) == (event == "nothing")


def _caller(meta, user):
    from django.test import RequestFactory

    from orchestrator.api.authentication import READ

    request = RequestFactory().get("/", **meta)
    request.user = user
    return READ(request)


def test_who_follows_is_asked_for_again_by_session(eve):
    from django.test import RequestFactory

    from orchestrator.api.authentication import READ

    request = RequestFactory().get("/")
    request.user, request.session = eve, browser(eve).session
    who = READ(request)
    assert who.again() is not None
    eve.sessions.all().delete()
    assert who.again() is None
