"""A real Daphne sends a stream no faster than it is read, and holds little of it meanwhile."""

import http.client
import json
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from tests.chaos.cluster import until
from tests.server.streaming import STALLED_AFTER

pytestmark = pytest.mark.processes

#: What a unix socket takes up by itself, and what may be on its way in the process.
BOUND = 1024 * 1024


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


@contextmanager
def serving(directory):
    """The path of the socket of a process that serves streams; it ends when it is told to."""
    path = directory / "web.sock"
    with (directory / "web.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.streaming", str(path)], stdout=log, stderr=log
        )
    until(path.exists, within=20)
    yield str(path)
    process.terminate()
    try:
        assert process.wait(20) == 0
    finally:
        process.kill()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("web")) as path:
        yield path


def test_it_ends_when_told_to_while_a_thread_waits_for_the_event_loop(tmp_path):
    with serving(tmp_path) as path, closing(Unix(path)) as link:
        link.request("GET", "/waits")
        assert link.getresponse().read1() == b"begun"


@pytest.fixture
def get(address):
    with ExitStack() as until_the_end:

        def get(path):
            link = Unix(address)
            until_the_end.callback(link.close)
            link.request("GET", f"/{path}")
            return link.getresponse()

        yield get


@pytest.fixture
def known(get):
    return lambda: json.loads(get("").read())


def settled(known, *names):
    """What is known when these have begun, and nothing more has been produced for a while."""
    now, before = known(), None
    while before is None or now["produced"] != before or not now["produced"].keys() >= {*names}:
        time.sleep(0.3)
        now, before = known(), now["produced"]
    return now


def test_who_reads_nothing_is_sent_little(get, known):
    before = known()["rss"]
    readers = [get(f"endless-{number}") for number in range(8)]
    now = settled(known, *(f"endless-{number}" for number in range(8)))
    assert [now["produced"][f"endless-{number}"] < BOUND for number in range(8)] == [True] * 8
    assert now["rss"] - before < len(readers) * BOUND


def test_who_reads_late_reads_everything_in_order(get, known):
    answer = get("endless-late")
    settled(known, "endless-late")
    size = 8 * BOUND
    data = answer.read(size)
    assert struct.unpack(f">{size // 8}Q", data) == tuple(range(size // 8))
    assert known()["produced"]["endless-late"] < size + BOUND


def test_who_takes_nothing_for_long_is_let_go(get, known, eventually):
    answer = get("endless-stalled")
    answer.read(100)
    begun = time.monotonic()
    eventually(lambda: "endless-stalled" in known()["ended"])
    assert time.monotonic() - begun > STALLED_AFTER - 0.5


def test_who_reads_slowly_is_not_let_go(get, known):
    answer = get("endless-slow")
    until = time.monotonic() + 3 * STALLED_AFTER
    while time.monotonic() < until:
        answer.read(4096)
        time.sleep(0.05)
    assert "endless-slow" not in known()["ended"]


def test_who_leaves_amid_a_stream_ends_it(address, known, eventually):
    link = Unix(address)
    link.request("GET", "/endless-left")
    answer = link.getresponse()
    answer.read(100)
    answer.close()
    link.close()
    eventually(lambda: "endless-left" in known()["ended"], within=2)


def test_a_stream_that_fails_is_not_taken_for_whole_and_harms_no_other(get, known, eventually):
    """In Daphne itself its reader waits for ever, and no connection is cleaned up ever after."""
    with pytest.raises(http.client.IncompleteRead) as cut:
        get("broken").read()
    assert cut.value.partial == b"begun"
    for _ in range(5):
        link = get("short")
        assert link.read() == b"012"
        link.close()
    few = known()["connections"]
    for _ in range(10):
        known()
    eventually(lambda: known()["connections"] <= few + 1, say="connections are cleaned up")


def test_an_answer_that_is_no_stream_comes_whole(get):
    answer = get("large")
    time.sleep(0.2)
    assert len(answer.read()) == 8 * 1024 * 1024


def test_several_streams_come_over_one_connection(address):
    link = Unix(address)
    for path, text in (("short", b"012"), ("large", b"x" * 8 * 1024 * 1024), ("short", b"012")):
        link.request("GET", f"/{path}")
        assert link.getresponse().read() == text
    link.close()


def test_a_page_that_reads_nothing_is_sent_little_and_let_go(address, known, eventually):
    with unix_connect(
        address, "ws://web/endless-page", compression=None, max_queue=1, max_size=None
    ):
        assert settled(known, "endless-page")["produced"]["endless-page"] < BOUND
        eventually(lambda: "endless-page" in known()["ended"])
        assert known()["produced"]["endless-page"] < BOUND


def test_a_page_that_says_much_and_reads_nothing_is_let_go(address, known, eventually):
    with unix_connect(address, "ws://web/words", compression=None, max_queue=1) as link:
        with suppress(ConnectionClosed):
            while "words" not in known()["ended"]:
                for _ in range(1000):
                    link.send("y" * 1000)
    eventually(lambda: "words" in known()["ended"])
    assert known()["produced"]["words"] < 4 * BOUND
