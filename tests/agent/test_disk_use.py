"""How much of the disk a task takes: cheaply seen, and whatever is done to hide it."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.agent.disk_use import LATE, MOST_UNSURE, REST, SOON, WORK, DiskUse


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a task, in which we are."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Clock:
    """On which each file that is looked at takes a thousandth of a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def walked(disk: DiskUse, walks: int = 1) -> bool:
    """Whether too much is found by so many walks; who calls does something at each rest."""
    for _ in range(walks):
        while not (found := disk.is_too_much(0.0)) and disk.due == REST:
            pass
        if found:
            return True
    return False


def test_disk_is_looked_at_seldom_while_little_is_used() -> None:
    disk, pauses, now = DiskUse(1 << 20, 0.0), [], 0.0
    for _ in range(5):
        assert disk.due is not None
        pauses.append(disk.due - now)
        now = disk.due
        assert not disk.is_too_much(now)
    assert pauses == [SOON, 2 * SOON, 4 * SOON, LATE, LATE]
    Path("much").write_bytes(b"x" * (3 << 19))
    assert disk.is_too_much(now)
    assert disk.used >= 3 << 19


def test_many_files_are_looked_at_in_pieces_with_little_rest() -> None:
    for number in range(300):
        Path(str(number)).write_bytes(b"x")
    disk, looks = DiskUse(300 * 4096, 0.0, clock := Clock()), 1
    while not disk.is_too_much(0.0):
        assert disk.due == REST < SOON, "the rest comes soon"
        assert clock.now < looks * (WORK + 0.002)
        looks += 1
    assert looks >= 300 * 0.001 / (WORK + 0.002)


def test_what_lies_deeper_than_a_path_is_long_is_counted_too(inside: Path) -> None:
    for number in range(100):
        os.mkdir("d" * 150)  # noqa: PTH102 - a path of pathlib's would be too long
        if number % 10 == 0:
            Path("some").write_bytes(b"x" * 4096)
        os.chdir("d" * 150)
    Path("much").write_bytes(b"x" * (3 << 20))
    os.chdir(inside)
    before, disk = len(os.listdir("/proc/self/fd")), DiskUse(2 << 20, 0.0)  # noqa: PTH208
    assert disk.is_too_much(0.0)
    assert disk.used >= (3 << 20) + 10 * 4096
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_empty_files_take_room_too() -> None:
    for number in range(300):
        Path(str(number)).touch()
    assert DiskUse(1 << 20, 0.0).is_too_much(0.0)


@contextlib.contextmanager
def few_files(more: int) -> Iterator[None]:
    """We may open so many more files."""
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(more)]
    for it in free:
        os.close(it)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free) + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def descend(levels: int) -> None:
    for _ in range(levels):
        os.mkdir("d" * 250)  # noqa: PTH102 - a path of pathlib's would be too long
        os.chdir("d" * 250)


def test_what_lies_deeper_than_files_may_be_open_is_counted(inside: Path) -> None:
    descend(200)
    Path("much").write_bytes(b"x" * (1 << 20))
    for _ in range(100):
        os.chdir("..")
    Path("more").write_bytes(b"x" * (1 << 20))
    os.chdir(inside)
    disk = DiskUse(1 << 30, 0.0)
    try:
        with few_files(3):
            assert not walked(disk)
    finally:
        subprocess.run(["rm", "-rf", "d" * 250], check=True)
    assert 201 * 4096 + (2 << 20) <= disk.used <= 201 * 8192 + (2 << 20)


def test_a_walk_that_is_given_up_leaves_nothing_open(inside: Path) -> None:
    descend(10)
    for number in range(100):
        Path(str(number)).touch()
    os.chdir(inside)
    before, disk = len(os.listdir("/proc/self/fd")), DiskUse(1 << 30, 0.0, Clock())  # noqa: PTH208
    assert not disk.is_too_much(0.0)
    assert len(os.listdir("/proc/self/fd")) > before  # noqa: PTH208
    del disk
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_directory_of_another_name_by_the_time_it_is_opened_is_counted_once() -> None:
    size = 0
    for name in "abcdefgh":
        for deep in (Path(name, "1"), Path(name, "2"), Path(name, "3")):
            deep.mkdir(parents=True)
            for number in range(4):
                (deep / f"{number}").write_bytes(b"x" * (1 << 16))
            size += 4 * (1 << 16) + 4096
        size += 4096
    disk, names = DiskUse(1 << 30, 0.0, Clock()), map(str, itertools.count())
    assert not disk.is_too_much(0.0)
    while disk.due == REST:
        for name in os.listdir("."):  # noqa: PTH208
            os.rename(name, next(names))  # noqa: PTH104
        assert not disk.is_too_much(0.0)
    assert 0 <= disk.used - size <= 4096, "and the directory itself"


def test_another_directory_in_its_place_hides_none() -> None:
    for name in "ab":
        Path(name).mkdir()
        for number in range(60):
            Path(name, f"{number}").write_bytes(b"x" * (1 << 16))
    disk = DiskUse(1 << 30, 0.0, Clock())
    assert not disk.is_too_much(0.0)
    for name in "ab":
        Path(name).rename(name + name)
        Path(name).mkdir()
    assert not walked(disk)
    assert 0 <= disk.used - 120 * (1 << 16) <= 5 * 4096


@contextlib.contextmanager
def meanwhile(*what: str) -> Iterator[None]:
    """Processes that do so without end, here, and have begun."""
    begin = (
        "import itertools, os, shutil, tempfile\nos.write(1, b'x')\nfor n in itertools.count():\n "
    )
    started = [
        subprocess.Popen([sys.executable, "-c", begin + it], stdout=subprocess.PIPE) for it in what
    ]
    try:
        for it in started:
            assert it.stdout is not None
            assert it.stdout.read(1) == b"x"
        yield
    finally:
        for it in started:
            it.kill()
            it.communicate()


def test_a_directory_that_is_renamed_without_end_does_not_hide_what_is_in_it() -> None:
    Path("0").mkdir()
    Path("0/much").write_bytes(b"x" * (2 << 20))
    disk = DiskUse(1 << 20, 0.0, taken=map(int, [0, *[2 << 20] * 10_000]).__next__)
    with meanwhile("os.rename(str(n), str(n + 1))"):
        assert walked(disk, MOST_UNSURE)


@pytest.mark.parametrize("lost", [-(1 << 30), 0, 1 << 18, 1 << 20])
def test_what_cannot_be_counted_counts_as_what_the_disk_has_lost(lost: int) -> None:
    Path("some").write_bytes(b"x" * (1 << 19))
    taken = 1 << 40
    disk = DiskUse(1 << 20, 0.0, taken=lambda: taken)
    assert not walked(disk)
    Path("hidden").mkdir()
    Path("hidden/more").write_bytes(b"x" * (1 << 19))
    taken += lost
    with few_files(1):
        assert not walked(disk, MOST_UNSURE - 1)
        assert walked(disk) == (lost == 1 << 20)
    assert disk.used < 1 << 20
    assert walked(disk), "it is counted again"
    with few_files(1):
        assert walked(DiskUse(1 << 20, 0.0, taken=lambda: taken), 10) is False, "none is lost"


def test_directories_that_come_and_go_end_no_task_however_much_its_neighbours_write() -> None:
    for number in range(20):
        Path(f"sources/{number}").mkdir(parents=True)
        Path(f"sources/{number}/some").write_bytes(b"x" * 4096)
    Path("out").mkdir()
    lost = itertools.count(0, 1 << 30)
    disk = DiskUse(1 << 20, 0.0, taken=lost.__next__)
    build = (
        "d = tempfile.mkdtemp(dir='.'); os.makedirs(d + '/a/b'); open(d + '/a/b/o', 'w').close();"
        " os.rename(d + '/a', f'out/{os.getpid()}'); shutil.rmtree(d);"
        " shutil.rmtree(f'out/{os.getpid()}')"
    )
    with meanwhile(build, build):
        assert not walked(disk, 200)
    assert next(lost) > 200 << 30, "it was looked at"
    assert disk.used < 1 << 20
