"""Somebody without an account at the front door: guesses, floods, half-sent requests."""

import asyncio
import ipaddress
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection, connections
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone
from websockets.sync.client import connect

from nodes.protocol import codec
from nodes.protocol.messages import SUBPROTOCOL, Welcome
from orchestrator.access import sign_in, tokens
from orchestrator.models import Event, FailedSignIns, Session
from orchestrator.server import environment, front_door
from orchestrator.worker import housekeeping
from tests import rows
from tests.interleave.holding import Held
from tests.nodes.links import hello, joined
from tests.served import free_port, start

GOOD = "correct horse battery"


def sign_in_as(name, password, address="10.0.0.1", door="/accounts/login/", client=None):
    client = client or Client(headers={"host": "localhost"})
    said = {"username": name, "password": password}
    return client.post(door, said, REMOTE_ADDR=address)


@pytest.fixture
def ana(db):
    user = rows.user("ana", "viewer", is_staff=True)
    user.set_password(GOOD)
    user.save()
    return user


@pytest.fixture
def cheap(settings):
    """Passwords that cost nothing to look at: what is tested is how often that happens."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def after_so_many(count, **which):
    """As if there had been so many failures."""
    assert FailedSignIns.objects.filter(**which).update(count=count)


def told(what):
    return list(Event.objects.filter(topic="access", what=what).values_list("message", flat=True))


@pytest.mark.parametrize("door", ["/accounts/login/", "/admin/login/"])
def test_the_right_password_comes_too_late_after_ten_wrong_ones(cheap, ana, door, caplog):
    for _ in range(sign_in.MOST_OF_A_NAME):
        assert sign_in_as("ana", "wrong", door=door).status_code == 200
    refused = sign_in_as("ana", GOOD, door=door)
    assert refused.status_code == 429
    assert 800 < int(refused["Retry-After"]) <= 900
    assert "Too many attempts failed" in refused.content.decode()
    locked = "Sign-in of ana from 10.0.0.1 is locked for 15 minutes: 10 attempts failed"
    assert told("lock") == [locked]
    assert locked in caplog.messages
    assert caplog.messages.count("a sign-in failed: ana from 10.0.0.1") == 10
    assert sign_in_as("ana", GOOD, door=door).status_code == 429
    assert len(told("lock")) == 1
    other_machine = sign_in_as("ana", GOOD, address="10.0.0.2", door=door)
    assert other_machine.status_code == 302


def test_the_other_page_is_no_second_chance(cheap, ana):
    sign_in_as("ana", "wrong")
    after_so_many(sign_in.MOST_OF_A_NAME, name="ana")
    assert sign_in_as("ana", GOOD, door="/admin/login/").status_code == 429


@pytest.mark.parametrize("same", [" ana", "ana ", "\u3000ana", "\uff41na"])
def test_a_name_written_otherwise_is_no_second_chance(cheap, ana, same):
    sign_in_as("ana", "wrong")
    after_so_many(sign_in.MOST_OF_A_NAME, name="ana")
    assert sign_in_as(same, GOOD).status_code == 429


def test_a_name_that_is_not_there_is_answered_as_one_that_is(cheap, ana, caplog):
    answers = {}
    for name in ("ana", "nobody"):
        address = f"10.1.0.{len(name)}"
        said = [sign_in_as(name, "wrong", address)]
        after_so_many(sign_in.MOST_OF_A_NAME - 1, name=name)
        said += [sign_in_as(name, "wrong", address) for _ in range(2)]
        answers[name] = [(it.status_code, _without_name(it, name)) for it in said]
    assert answers["ana"] == answers["nobody"]
    assert not any("nobody" in it for it in [*caplog.messages, *told("lock")])


def _without_name(answer, name):
    text = answer.content.decode().replace(f'value="{name}"', "")
    return [line for line in text.splitlines() if "csrf" not in line]


def test_an_address_that_tries_many_names_is_locked(cheap, ana):
    for number in range(3):
        assert sign_in_as(f"user-{number}", "wrong").status_code == 200
    after_so_many(sign_in.MOST_OF_AN_ADDRESS, name="")
    assert sign_in_as("ana", GOOD).status_code == 429
    assert sign_in_as("user-3", "wrong").status_code == 429
    assert FailedSignIns.objects.count() == 3 + 1
    assert sign_in_as("ana", GOOD, address="10.0.0.2").status_code == 302


def test_one_network_of_ipv6_is_one_address():
    assert sign_in.source("2001:db8:1:2:3::4") == sign_in.source("2001:db8:1:2:ffff::1")
    assert sign_in.source("2001:db8:1:2::1") != sign_in.source("2001:db8:1:3::1")
    assert sign_in.source("::ffff:10.0.0.1") == "10.0.0.1"


def test_the_right_password_is_forgiven_what_came_before_and_the_journal_tells_of_many(cheap, ana):
    for _ in range(3):
        sign_in_as("ana", "wrong")
    assert sign_in_as("ana", GOOD).status_code == 302
    assert told("sign-in") == ["ana signs in from 10.0.0.1 after 3 failures"]
    assert FailedSignIns.objects.filter(name="ana").count() == 0


def test_who_is_signed_in_already_gets_no_attempts_at_another_name_for_that(cheap, ana):
    eve = Client(headers={"host": "localhost"})
    eve.force_login(rows.user("eve", "viewer"))
    sign_in_as("ana", "wrong", client=eve)
    after_so_many(sign_in.MOST_OF_A_NAME, name="ana")
    sign_in_as("ana", "wrong", client=eve)
    assert sign_in_as("ana", GOOD).status_code == 429


@pytest.mark.django_db(transaction=True)
def test_a_hundred_attempts_at_once_are_a_hundred(cheap, ana):
    def one(_):
        try:
            return sign_in_as("ana", "wrong").status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(30)))
    assert answers.count(200) == sign_in.MOST_OF_A_NAME


def test_a_lock_ends_by_itself_and_leaves_nothing(cheap, ana):
    sign_in_as("ana", "wrong")
    after_so_many(sign_in.MOST_OF_A_NAME, name="ana")
    sign_in_as("ana", "wrong")
    long_ago = Now() - sign_in.WINDOW - timedelta(seconds=1)
    FailedSignIns.objects.update(since=long_ago)
    housekeeping.tick()
    assert sign_in_as("ana", GOOD).status_code == 429
    FailedSignIns.objects.filter(name="ana").update(since=long_ago, locked_until=Now())
    assert sign_in_as("ana", GOOD).status_code == 302
    FailedSignIns.objects.update(since=long_ago)
    housekeeping.tick()
    assert not FailedSignIns.objects.exists()


@pytest.mark.parametrize("by", ["command", "admin"])
def test_an_admin_unlocks(cheap, ana, by):
    sign_in_as("ana", "wrong")
    after_so_many(sign_in.MOST_OF_A_NAME, name="ana")
    sign_in_as("ana", "wrong")
    if by == "command":
        call_command("unlock", "ana")
    else:
        root = Client(headers={"host": "localhost"})
        root.force_login(User.objects.create_superuser("root"))
        key = FailedSignIns.objects.get(name="ana").pk
        chosen = {"action": "unlock", "_selected_action": str(key)}
        root.post("/admin/orchestrator/failedsignins/", chosen)
    assert told("unlock") == ["Sign-in of ana from 10.0.0.1 is unlocked"]
    assert sign_in_as("ana", GOOD).status_code == 302


@pytest.mark.django_db(transaction=True)
def test_who_signs_in_while_somebody_unlocks_gets_an_answer():
    sign_in.attempt_password("ana", "10.0.0.1")
    listed = FailedSignIns.objects.order_by("-name")  # As the administration may have them.
    attempt = Held(lambda: sign_in.attempt_password("ana", "10.0.0.1"), at=1)
    assert attempt.is_held()
    unlocking = Held(lambda: sign_in.unlock(listed, actor="user:boss"))
    with connection.cursor() as watcher:
        assert not unlocking.is_over(watcher)
    attempt.finish()
    unlocking.finish()
    assert (attempt.error, unlocking.error) == (None, None)


def test_who_is_no_admin_neither_sees_nor_unlocks(cheap, ana):
    sign_in_as("ana", "wrong")
    pages = Client(headers={"host": "localhost"})
    pages.force_login(rows.user("olga", "operator", is_staff=True))
    assert pages.get("/admin/orchestrator/failedsignins/").status_code == 403


def ask(secret, address="10.0.0.1"):
    client = Client(headers={"host": "localhost", "authorization": f"Bearer {secret}"})
    return client.get("/api/v1/jobs", REMOTE_ADDR=address)


@pytest.fixture
def token(ana):
    yield tokens.create(user=ana, name="t", scopes=["read"], expires_in=None)
    call_command("unlock")


def test_bad_tokens_lock_their_address_and_harm_no_token_that_was_good(token, settings):
    assert ask(token).status_code == 200
    assert ask("at_00000001_guess").status_code == 401
    after_so_many(sign_in.MOST_TOKENS, door="token")
    refused = ask("at_00000000_guess")
    assert (refused.status_code, refused.json()["code"]) == (429, "too-many-attempts")
    assert int(refused["Retry-After"]) > 800
    assert told("lock") == [
        "Sign-in of API tokens from 10.0.0.1 is locked for 15 minutes: 100 attempts failed"
    ]
    assert ask(token).status_code == 200
    assert ask("at_00000000_guess", "10.0.0.2").status_code == 401


def test_what_is_locked_costs_no_query(token, django_assert_num_queries):
    ask("at_00000001_guess")
    after_so_many(sign_in.MOST_TOKENS, door="token")
    ask("at_00000001_guess")
    with django_assert_num_queries(0):
        assert ask("at_00000000_other").status_code == 429


def test_a_good_token_costs_no_query_more_for_all_this(token, django_assert_num_queries):
    first = ask(token)
    with django_assert_num_queries(1):  # The page of jobs.
        assert ask(token).status_code == first.status_code == 200


@pytest.mark.parametrize("password", ["elevenchars", "password12345", "administrator"])
def test_short_and_common_passwords_are_refused(password):
    with pytest.raises(ValidationError):
        validate_password(password)


def test_passwords_are_kept_by_argon2_and_older_ones_become_so_at_the_next_sign_in(ana):
    assert ana.password.startswith("argon2$")
    ana.password = PBKDF2PasswordHasher().encode(GOOD, "salt", 1000)
    ana.save()
    assert sign_in_as("ana", GOOD).status_code == 302
    ana.refresh_from_db()
    assert ana.password.startswith("argon2$")


# --- sessions --------------------------------------------------------------------------------


def signed_in(user):
    client = Client(headers={"host": "localhost"})
    client.force_login(user)
    return client


def test_a_session_lasts_eight_hours_after_what_its_user_did_last(ana):
    pages = Client(headers={"host": "localhost"})
    answer = sign_in_as("ana", GOOD, client=pages)
    assert answer.cookies["muster_session"]["max-age"] == 8 * 3600
    session = pages.session
    session["used"] -= 600
    session.save()
    Session.objects.update(expire_date=Now() + timedelta(minutes=1))
    pages.get("/jobs/?regions=table")
    assert Session.objects.get().expire_date < _in(hours=1)
    pages.get("/jobs/")
    assert Session.objects.get().expire_date > _in(hours=7)
    Session.objects.update(expire_date=Now())
    assert pages.get("/jobs/").status_code == 302
    housekeeping.tick()
    assert not Session.objects.exists()


def _in(**span):
    return timezone.now() + timedelta(**span)


def test_a_session_that_is_used_is_not_written_each_time(ana, django_assert_num_queries):
    pages = signed_in(ana)
    pages.get("/jobs/")
    before = Session.objects.get().expire_date
    pages.get("/jobs/")
    assert Session.objects.get().expire_date == before


def test_signing_out_everywhere_ends_all_sessions_of_that_user_alone(ana):
    here, there, other = signed_in(ana), signed_in(ana), signed_in(rows.user("eve", "viewer"))
    assert "Sign out everywhere" in here.get("/").content.decode()
    assert here.get("/accounts/logout/everywhere").status_code == 405
    assert here.post("/accounts/logout/everywhere").status_code == 302
    assert here.get("/jobs/").status_code == there.get("/jobs/").status_code == 302
    assert other.get("/jobs/").status_code == 200
    assert told("sign-out") == ["ana is signed out everywhere: 2 sessions"]


# --- before anybody is known: heads, bodies, rates, addresses --------------------------------


def test_a_proxy_of_ours_is_believed_whom_it_speaks_for_and_nobody_else_is():
    def seen(peer, *said, proxies=("10.0.0.0/24", "2001:db8::7")):
        headers = [(b"x-forwarded-for", it.encode()) for it in said]
        scope = {"client": [peer, 1], "headers": [(b"host", b"x"), *headers]}
        networks = [ipaddress.ip_network(it) for it in proxies]
        return front_door.seen_through(scope, networks)["client"][0]

    assert seen("10.0.0.7", "203.0.113.9") == "203.0.113.9"
    assert seen("10.0.0.7", "6.6.6.6, 203.0.113.9") == "203.0.113.9"
    assert seen("10.0.0.7", "6.6.6.6", "203.0.113.9, 10.0.0.8") == "203.0.113.9"
    assert seen("2001:db8::7", "[2001:db8:1::1]:443") == "2001:db8:1::1"
    assert seen("10.0.0.7", "203.0.113.9:5050") == "203.0.113.9"
    assert seen("10.0.0.7", "6.6.6.6, junk") == "10.0.0.7"
    assert seen("10.0.0.7") == "10.0.0.7"
    assert seen("203.0.113.9", "6.6.6.6") == "203.0.113.9"
    assert seen("203.0.113.9", "6.6.6.6", proxies=()) == "203.0.113.9"


def test_what_others_say_of_whom_they_speak_for_is_not_passed_on():
    said = [(b"X-Forwarded-Proto", b"https"), (b"host", b"x"), (b"x-forwarded-for", b"6.6.6.6")]
    scope = {"client": ["203.0.113.9", 1], "headers": said}
    networks = [ipaddress.ip_network("10.0.0.0/24")]
    assert front_door.seen_through(scope, networks)["headers"] == [(b"host", b"x")]


@pytest.mark.parametrize("wrong", ["10.0.0.300", "10.0.0.7/24", "proxy.example.org"])
def test_a_proxy_that_is_no_address_is_refused_at_the_start(wrong):
    with pytest.raises(environment.Misconfigured, match="MUSTER_TRUSTED_PROXIES has"):
        environment.parse({"MUSTER_TRUSTED_PROXIES": f"127.0.0.1, {wrong}"})


def test_a_failed_sign_in_takes_a_second_and_a_good_one_does_not():
    async def answered(status):
        async def application(scope, receive, send):
            await send({"type": "http.response.start", "status": status, "headers": []})

        async def sent(_):
            pass

        scope = {"type": "http", "method": "POST", "path": "/accounts/login/", "headers": []}
        began = time.monotonic()
        await front_door.at_the_door(application, failed_after=0.2)(scope, None, sent)
        return time.monotonic() - began

    for failure in (200, 429):
        assert asyncio.run(answered(failure)) >= 0.2
    assert asyncio.run(answered(302)) < 0.2


@pytest.fixture(scope="module")
def address(tmp_path_factory, django_db_setup, django_db_blocker):
    """The socket of a web process that waits no more than a moment for anything."""
    path = tmp_path_factory.mktemp("web") / "web.sock"
    impatient = {"MUSTER_TEST_HEAD_WITHIN": "0.5", "MUSTER_TEST_BODY_WITHIN": "1.5"}
    with django_db_blocker.unblock():
        process = start("-u", str(path), environment=impatient)
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield str(path)
    process.terminate()
    process.wait(20)


def speak(path, *pieces, pause=0.0):
    """All that is answered to *pieces*, until the other side closes."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(20)
        link.connect(path)
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                link.sendall(piece)
                time.sleep(pause)
        answer = b""
        with suppress(ConnectionResetError):
            while got := link.recv(65536):
                answer += got
        return answer


@pytest.mark.processes
@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"GET /healthz HTTP/1.1\r\n"],
        [bytes([it]) for it in b"GET /healthz HTTP/1.1\r\nX: " + 200 * b"a"],
        [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"],
        [b"POST /nodes/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n12"],
    ],
    ids=["nothing", "a half", "byte by byte", "a second one", "half a body"],
)
def test_a_request_that_does_not_come_whole_is_cut_off(address, pieces):
    began = time.monotonic()
    answer = speak(address, *pieces, pause=0.02)
    assert b"408 Request Timeout" in answer
    assert time.monotonic() - began < 8


@pytest.mark.processes
@pytest.mark.parametrize("path", [b"/api/v1/nodes/enrol", b"/nodes/enrol", b"/accounts/login/"])
@pytest.mark.parametrize("how", [b"Content-Length: 150000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_is_too_large_is_refused_before_it_is_kept(address, path, how):
    head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + how + b"\r\n\r\n"
    piece = 256 * 1024 * b"x"
    if b"chunked" in how:
        piece = b"40000\r\n" + piece + b"\r\n"
    answer = speak(address, head, *5 * [piece])
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "too-large"


@pytest.mark.processes
def test_a_body_that_may_be_is_heard_whole(address):
    body = b'{"token":"' + 300_000 * b"x" + b'"}'
    head = b"POST /api/v1/nodes/enrol HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    head += b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = speak(address, head, body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"may have" in answer


@pytest.mark.processes
@pytest.mark.parametrize(
    "lists",
    [
        [b"chunked, identity"],
        [b"identity"],
        [b"chunked", b"identity"],
        [b"identity", b"chunked"],
        [b"gzip, chunked"],
        [b"chunked", b"chunked"],
        [b"xchunked"],
        [b""],
    ],
    ids=lambda lists: b" and ".join(lists).decode(),
)
def test_a_body_that_is_sent_in_any_other_way_than_in_chunks_is_refused(address, lists):
    head = b"POST /api/v1/nodes/enrol HTTP/1.1\r\nHost: localhost\r\n"
    head += b"".join(b"Transfer-Encoding: " + it + b"\r\n" for it in lists) + b"\r\n"
    answer = speak(address, head, b"2\r\n{}\r\n0\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n")
    assert answer == b"HTTP/1.1 400 Bad Request\r\n\r\n"


# --- connections of one address ------------------------------------------------------------------

MOST = 3


@pytest.fixture
def crowded(tmp_path, db, eventually):
    """A function that connects, from an address of this machine, to a web process with a log."""
    port = free_port()
    settings = {"MUSTER_CONNECTIONS_PER_ADDRESS": str(MOST), "MUSTER_TRUSTED_PROXIES": "127.0.0.9"}
    log, links = tmp_path / "log", ExitStack()
    with log.open("wb") as to:
        binding = ("-b", "127.0.0.1", "-p", str(port))
        process = start(*binding, environment=settings, stdout=to, stderr=to)

    def visit(source="127.0.0.1"):
        """A connection, and whether it is let be: whoever is refused hears of it at once."""
        link = links.enter_context(
            socket.create_connection(("127.0.0.1", port), 20, source_address=(source, 0))
        )
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with suppress(ConnectionResetError):
            return link, link.recv(65536).startswith(b"HTTP/1.1 200")
        return link, False

    def is_there():
        with suppress(ConnectionRefusedError):
            link, _ = visit("127.0.0.9")
            return not link.close()
        return False

    eventually(is_there, within=60)
    visit.log, visit.port = log, port
    yield visit
    links.close()
    process.terminate()
    process.wait(20)


@pytest.mark.processes
def test_one_address_has_so_many_connections_and_is_in_nobody_s_way(crowded, eventually):
    held = [crowded() for _ in range(MOST)]
    assert [is_let_be for _, is_let_be in held] == [True] * MOST
    assert [crowded()[1] for _ in range(20)] == [False] * 20
    assert crowded("127.0.0.2")[1], "another address"
    assert [crowded("127.0.0.9")[1] for _ in range(3 * MOST)] == [True] * 3 * MOST, "a proxy"
    said = "127.0.0.1 has 3 connections open, and gets no more for now"
    assert 1 <= crowded.log.read_text().count(said) <= 12, "bounded, however many are refused"
    held[0][0].close()
    eventually(lambda: crowded()[1])


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
def test_nodes_do_not_count_once_they_are_greeted_and_whoever_knocks_does(crowded, eventually):
    at, credential = f"ws://127.0.0.1:{crowded.port}/ws/nodes/", joined()[1]
    with ExitStack() as links:

        def knock(credential):
            headers = {"Authorization": f"Node {credential}"}
            return links.enter_context(
                connect(
                    at,
                    additional_headers=headers,
                    subprotocols=[SUBPROTOCOL],
                    compression=None,
                    close_timeout=1,
                )
            )

        for _ in range(2 * MOST):
            link = knock(joined()[1])
            link.send(codec.encode(hello()))
            assert isinstance(codec.decode_from_server(link.recv(20)), Welcome)
        silent = knock(credential)
        assert [crowded()[1] for _ in range(MOST)] == [True] * (MOST - 1) + [False]
        silent.close()
        eventually(lambda: crowded()[1])
