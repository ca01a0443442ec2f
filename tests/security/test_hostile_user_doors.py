"""Somebody with an account who asks for more than their share, or goes on when they may not."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from collections import Counter

import pytest
import yaml
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.test import Client, RequestFactory

from dashboard.consumers import TOO_MANY, LiveConsumer
from orchestrator import access
from orchestrator.access import limits, tokens
from orchestrator.api import logs
from orchestrator.api.authentication import READ
from orchestrator.cli import sanitise
from orchestrator.cli.output import Format, Output
from orchestrator.endpoint.logs import Lines, Piece
from orchestrator.models import journal
from orchestrator.server import front_door
from orchestrator.server.logging import escape_controls
from tests import pace, rows

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
    """Three requests at once, and then one in a long while."""
    monkeypatch.setattr(limits, "requests", limits.Requests(0.001, burst=3))
    monkeypatch.setattr(front_door, "requests_of_addresses", limits.Requests(0.001, burst=3))


@pytest.mark.parametrize("door", ["token", "session", "pages"])
def test_who_asks_without_end_is_told_to_wait_and_others_are_not(slow, eve, door):
    client = Client(headers=api(eve)) if door == "token" else browser(eve)
    path = "/queue/" if door == "pages" else "/api/v1/jobs"
    answers = [client.get(path) for _ in range(4)]
    assert [it.status_code for it in answers[:3]] == [200] * 3
    assert answers[-1].status_code == 429
    assert answers[-1]["Retry-After"] == "1"
    assert "eve asks more often than 0.001 times a second" in answers[-1].content.decode()
    assert Client(headers=api(rows.user("ana", "viewer"))).get("/api/v1/jobs").status_code == 200


def test_another_token_of_the_same_user_is_no_second_share(slow, eve):
    answers = [Client(headers=api(eve)).get("/api/v1/jobs").status_code for _ in range(4)]
    assert answers.count(200) == 3


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
        first = [await _knock("http", "/") for _ in range(3)]
        assert first == [[{"type": "passed"}]] * 3
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


def test_of_too_many_followed_logs_the_last_is_refused_until_another_has_ended(settings, eve):
    settings.STREAMS_PER_USER = 2
    execution, client = rows.execution(rows.job(), rows.node()), Client(headers=api(eve))

    def follow():
        return client.get(f"/api/v1/executions/{execution.pk}/logs?follow=true")

    open_ones = [follow(), follow()]
    assert [it.status_code for it in open_ones] == [200, 200]
    refused = follow()
    assert (refused.status_code, refused.json()["code"]) == (429, "too-many-streams")
    assert refused["Retry-After"] == "5"
    del open_ones[0]  # Nobody ever read it.
    gc.collect()
    assert follow().status_code == 200


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


class Answer:
    """One that nobody reads: the garbage collector gives its slot back."""

    def __init__(self, slot):
        self.me = self
        weakref.finalize(self, slot.release)


class Collecting(Counter):
    """Where garbage is collected in the middle, as it may at any allocation."""

    def __missing__(self, key):
        gc.collect()
        return 0


def test_a_slot_that_is_given_back_while_another_is_taken_blocks_nobody_and_is_free():
    slots = limits.Slots()
    slots._taken = Collecting()
    Answer(slots.take("eve", 1))
    taking = threading.Thread(target=slots.take, args=("mallory", 1), daemon=True)
    taking.start()
    taking.join(10)
    assert not taking.is_alive(), "whoever takes one from now on waits for ever"
    assert slots.take("eve", 1), "it was given back"
    assert slots.take("eve", 1) is slots.take("mallory", 1) is None, "both have one"


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
    request = RequestFactory().get("/", **meta)
    request.user = user
    return READ(request)


def test_who_follows_is_asked_for_again_by_session(eve):
    request = RequestFactory().get("/")
    request.user, request.session = eve, browser(eve).session
    who = READ(request)
    assert who.again() is not None
    eve.sessions.all().delete()
    assert who.again() is None


# --- lines without an end ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_of_a_line_without_end_only_the_beginning_is_passed_on_however_it_comes(size):
    text = b"one\n" + 50_000 * "ä".encode() + b"\ntwo\n\n" + 16384 * b"x" + b"\nthree"
    lines = Lines()
    made = b"".join(lines.cut(text[at : at + size]) for at in range(0, len(text), size))
    first, long, *rest = made.decode().split("\n")
    assert first == "one"
    assert long == 8192 * "ä" + " [muster: this line is longer, and cut here]"
    assert rest == ["two", "", 16384 * "x", "three"]


def test_a_line_of_gigabytes_costs_no_more_than_its_bytes():
    lines, piece = Lines(), 65536 * b"x"
    assert sum(len(lines.cut(piece)) for _ in range(1000)) < 17_000
    assert lines.cut(b"x\nnext") == b"next"


def test_a_bar_that_is_drawn_over_and_over_is_no_long_line():
    bar = Lines()
    assert all(bar.cut(it) == it for it in 1000 * [b"\r 42 % of it" * 100])


# --- what is hidden in text ----------------------------------------------------------------------

HIDDEN = "a\u202eb\x9b2J\x07\u2066"


def test_no_text_of_a_user_becomes_the_token_of_who_looks(eve):
    from dashboard.rendering import ANYBODY

    rows.job(labels={"x": "csrf-token-of-whoever-asks"})
    assert len(ANYBODY) > 32
    assert subprocess_says("from dashboard.rendering import ANYBODY; print(ANYBODY)") != ANYBODY


def subprocess_says(code):
    setup = "import django; django.setup(); "
    environ = os.environ | {"DJANGO_SETTINGS_MODULE": "orchestrator.server.settings"}
    done = subprocess.run(
        [sys.executable, "-c", setup + code],
        env=environ,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("door", ["page", "region", "admin"])
def test_control_and_turning_characters_are_named_on_pages(door):
    rows.execution(rows.job(), rows.node())
    fact = journal.fact("cluster", "pause", f"paused: {HIDDEN}")
    journal.record([fact])
    root = browser(User.objects.create_superuser("root"))
    path = {
        "page": "/",
        "region": "/?regions=changes",
        "admin": "/admin/orchestrator/event/",
    }[door]
    text = root.get(path).content.decode()
    assert "a[U+202E]b[U+009B]2J[U+0007][U+2066]" in text
    assert not set(HIDDEN) & set(text) - set("ab2J")


def test_a_line_of_the_log_has_nothing_that_a_terminal_obeys():
    event = {"event": f"goodbye\n{HIDDEN}\x1b[2J", "exception": "line\n\tline\x1b[2J", "n": 1}
    assert escape_controls(None, "", event) == {
        "event": r"goodbye\na\u202eb\x9b2J\x07\u2066\x1b[2J",
        "exception": "line\n\tline\\x1b[2J",
        "n": 1,
    }


def test_a_flood_of_openers_is_sanitised_in_no_time():
    for opener in "\x9d\x90\x98\x9e\x9f\x9b\x1b":
        with pace.within(1):
            sanitise.block(opener * 120_000)


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_objects_on_a_terminal_are_the_same_with_nothing_that_it_obeys(kind, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    Output(Format(kind)).one({"name": HIDDEN, "of": "ä"}, ())
    text = capsys.readouterr().out
    assert not set("\u202e\x9b\x07\u2066") & set(text)
    assert (json.loads if kind == "json" else yaml.safe_load)(text) == {"name": HIDDEN, "of": "ä"}
