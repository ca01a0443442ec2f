"""Logs by offset, their ends as text, and how long they are kept."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sys
import time
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.agent.log_streaming import Watches
from nodes.agent.logs import KEPT, KEPT_FOR, Keeper, LogFile, readable
from nodes.agent.room import ENOUGH, FULL, RESERVE, Room
from nodes.agent.task_output import SEGMENTS, Stream
from nodes.protocol.messages import Watch
from tests.agent.disks import fill, small_disk


@pytest.fixture
def log(tmp_path):
    file = LogFile(tmp_path, "e", "stdout")
    yield file
    file.close()


def segment(directory, offset, data, name="e.stdout"):
    (directory / f"{name}.{offset:015d}").write_bytes(data)


def test_segments_read_as_one_stream(tmp_path, log):
    segment(tmp_path, 0, b"hello ")
    segment(tmp_path, 6, b"world")
    assert log.read(0, 100) == (0, b"hello ")
    assert log.read(6, 3) == (6, b"wor")
    assert log.read(11, 100) == (11, b"")
    assert (log.size(), log.tail()) == (11, b"hello world")


def test_what_was_rotated_away_shows_as_a_jump_of_the_offset(tmp_path, log):
    segment(tmp_path, 10, b"later")
    assert log.read(0, 100) == (10, b"later")


def test_a_gap_in_the_middle_is_jumped_over(tmp_path, log):
    segment(tmp_path, 0, b"abc")
    segment(tmp_path, 100, b"xyz")
    assert log.read(0, 10) == (0, b"abc")
    assert log.read(3, 10) == (100, b"xyz")


def test_what_is_appended_is_seen(tmp_path, log):
    assert log.read(0, 10) == (0, b"")
    segment(tmp_path, 0, b"a")
    assert log.read(0, 10) == (0, b"a")
    segment(tmp_path, 0, b"ab")
    assert log.read(1, 10) == (1, b"b")


@given(st.text(), st.integers(0, 20))
def test_a_cut_never_leaves_half_a_character(text, cut):
    data = text.encode()
    assert "\0" not in readable(data[cut:], len(data))
    assert text.replace("\0", "?").endswith(readable(data[cut:], len(data)))


def test_bytes_that_are_no_text_are_replaced():
    assert readable(b"a\xffb\0c\xe2\x82d", 8) == "a?b?c??d"


def test_logs_are_kept_for_a_while_and_never_of_what_lives(tmp_path):
    keeper = Keeper(tmp_path)
    for name in ("live", "retired", "ancient"):
        segment(tmp_path, 0, b"x", name=f"{name}.stdout")
    for name in ("live", "ancient"):
        os.utime(tmp_path / f"{name}.stdout.{0:015d}", (0, 0))
    keeper.retire("retired")
    keeper.tidy({"live"})
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"live", "retired"}
    for number in range(KEPT):
        keeper.retire(f"e{number}")
    keeper.tidy(set())
    assert list(tmp_path.iterdir()) == []
    assert KEPT_FOR > 0


def test_the_logs_of_the_last_executions_are_kept_whichever_agent_ran_them(tmp_path):
    now = time.time()
    for number in range(KEPT + 1):
        segment(tmp_path, 0, b"x", name=f"former{number}.stdout")
        os.utime(tmp_path / f"former{number}.stdout.{0:015d}", (now, now - number))
    segment(tmp_path, 0, b"x", name="mine.stdout")
    keeper = Keeper(tmp_path)
    keeper.retire("mine")
    keeper.tidy({f"former{KEPT}"})
    left = {path.name.split(".")[0] for path in tmp_path.iterdir()}
    assert left == {"mine", f"former{KEPT}", *(f"former{number}" for number in range(KEPT - 1))}


def test_a_full_disk_keeps_the_log_that_there_is(tmp_path):
    logs = os.open(tmp_path, os.O_RDONLY)
    stream = Stream(logs, "e.stdout.")
    stream.take(b"the reason")
    stream.close()
    with no_room_for_files():
        for _ in range(SEGMENTS + 1):
            stream.take(b"lost")
    stream.take(b"later")
    stream.close()
    os.close(logs)
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    later = len("the reason") + (SEGMENTS + 1) * len("lost")
    assert kept == {
        f"e.stdout.{0:015d}": b"the reason",
        f"e.stdout.{later:015d}": b"later",
    }


@contextmanager
def no_room_for_files():
    """No file of this process takes another byte, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_who_does_not_follow_reads_what_there_is_however_fast_more_is_printed(tmp_path):
    segment(tmp_path, 0, b"x" * 10)
    chunks, ends = [], []

    def take(chunk):
        chunks.append(chunk.data)
        segment(tmp_path, 10 * len(chunks), b"y" * 10)

    watches = Watches(tmp_path, lambda _: True, ends.append, take)
    watches.follow(Watch(1, "w", "e", "stdout", offset=4, credit=1000, follow=False))
    async with asyncio.timeout(10):
        while not ends:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert chunks == [b"x" * 6]


@pytest.fixture
def listings():
    """The directories that are listed, as the interpreter tells them."""
    listed, is_over = [], []

    def hear(event, arguments):
        if event in ("os.listdir", "os.scandir") and not is_over:
            listed.append(str(arguments[0]))

    sys.addaudithook(hear)  # It can never be taken away again.
    yield listed
    is_over.append(True)


async def test_who_follows_a_log_does_not_list_all_logs_at_each_look(tmp_path, listings):
    chunks = asyncio.Queue()
    segment(tmp_path, 0, b"0")
    assert list(tmp_path.iterdir())  # This listing is heard.
    began = time.monotonic()
    watches = Watches(tmp_path, lambda _: True, None, chunks.put_nowait)
    watches.follow(Watch(1, "w", "e", "stdout", offset=0, credit=1000, follow=True))
    async with asyncio.timeout(10):
        for number in range(1, 20):
            assert (await chunks.get()).offset == number - 1
            segment(tmp_path, number, b"x")
    watches.clear()
    assert 1 <= listings.count(str(tmp_path)) <= 2 + (time.monotonic() - began) / 2


def of_ended(state, **ages):
    """Logs of a MiB each, of executions that ended so many seconds ago."""
    (state / "logs").mkdir(exist_ok=True)
    for name, age in ages.items():
        for stream in ("stdout", "stderr"):
            segment(state / "logs", 0, bytes(512 << 10), f"{name}.{stream}")
            file = state / "logs" / f"{name}.{stream}.{0:015d}"
            os.utime(file, (time.time() - age,) * 2)


def kept_logs(state):
    return {file.name.split(".")[0] for file in (state / "logs").iterdir()}


def test_the_oldest_logs_of_what_ended_go_when_they_are_too_many(tmp_path):
    of_ended(tmp_path, unacknowledged=900, old=300, middle=200, young=100)
    room = Room(tmp_path, logs=3 << 20)
    room.tidy({"unacknowledged"})
    assert kept_logs(tmp_path) == {"unacknowledged", "middle", "young"}
    room = Room(tmp_path, logs=0)
    room.tidy({"unacknowledged"})
    assert kept_logs(tmp_path) == {"unacknowledged"}


def test_room_is_kept_in_reserve_and_given_when_the_disk_is_full(tmp_path):
    with small_disk(tmp_path / "disk", megabytes=40) as disk:
        of_ended(disk, unacknowledged=900, old=300, young=100)
        room = Room(disk)
        room.look({"unacknowledged"})
        assert (disk / "reserve").stat().st_blocks * 512 >= RESERVE
        assert kept_logs(disk) == {"unacknowledged", "old", "young"}
        filler = fill(disk)
        room.look({"unacknowledged"})
        assert kept_logs(disk) == {"unacknowledged"}
        assert room.degraded == "its disk is full"
        assert (disk / "reserve").exists()
        fill(disk)
        room.give({"unacknowledged"})
        assert shutil.disk_usage(disk).free >= RESERVE - FULL
        room.look({"unacknowledged"})
        assert not (disk / "reserve").exists()
        filler.unlink()
        assert ENOUGH > FULL
        room.look({"unacknowledged"})
        assert (room.degraded, (disk / "reserve").exists()) == ("", True)


def test_a_reserve_that_an_agent_had_no_time_to_fill_is_filled(tmp_path):
    (tmp_path / "reserve").touch()
    Room(tmp_path).look(set())
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE
