"""Who a worker is, and whether it is dead."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.worker.worker_id import PROC, WorkerId

NOBODY = 2**22 - 1


def test_a_name_says_who_it_is():
    mine = WorkerId.mine()
    assert WorkerId.parse(mine.name) == mine
    assert mine.name != WorkerId.mine().name, "each start has a mark of its own"
    assert len(replace(mine, host="h" * 64, pid=NOBODY, start=10**12).name) <= 128


def test_the_living_are_not_dead():
    assert not WorkerId.mine().is_dead()


def test_who_has_gone_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = int((PROC / str(child.pid) / "stat").read_text().rpartition(")")[2].split()[19])
    theirs = replace(WorkerId.mine(), pid=child.pid, start=start)
    assert not theirs.is_dead()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert theirs.is_dead(), "though nobody has reaped it"
    child.wait()
    child.stdin.close()
    assert theirs.is_dead()


@pytest.mark.parametrize("differing", [{"start": 1}, {"pid": NOBODY}])
def test_a_pid_that_somebody_else_has_now_is_dead(differing):
    assert replace(WorkerId.mine(), **differing).is_dead()


def test_of_those_in_another_space_nothing_is_known():
    assert not replace(WorkerId.mine(), pid=NOBODY, space="1").is_dead()


def test_what_is_no_name_is_nobody_who_died():
    assert not WorkerId.parse("test").is_dead()


class TestWhatTheKernelSays:
    """A copy of the part of /proc that is read, to be changed."""

    @pytest.fixture
    def proc(self, tmp_path):
        for file in (f"{os.getpid()}/stat", "sys/kernel/random/boot_id", "stat"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes((PROC / file).read_bytes())
        (tmp_path / "self/ns").mkdir(parents=True)
        (tmp_path / "self/ns/pid").touch()
        return tmp_path

    def test_a_clock_that_is_set_kills_nobody(self, proc):
        """It shows as another second in which the machine started."""
        mine = WorkerId.mine(proc)
        lines = (proc / "stat").read_text().splitlines()
        started = [line for line in lines if line.startswith("btime ")]
        assert started
        later = f"btime {int(started[0].split()[1]) + 3600}"
        (proc / "stat").write_text("\n".join(later if it in started else it for it in lines))
        assert not mine.is_dead(proc)
        assert WorkerId.mine(proc).start == mine.start

    def test_another_machine_of_the_same_name_and_pids_buries_nobody(self, proc):
        theirs = replace(WorkerId.mine(proc), pid=NOBODY)
        assert theirs.is_dead(proc)
        (proc / "sys/kernel/random/boot_id").write_text("72f3d3a4-0000-4000-8000-000000000000\n")
        assert not theirs.is_dead(proc)

    def test_who_only_cannot_be_seen_is_not_dead(self, proc):
        mine = WorkerId.mine(proc)
        (proc / str(mine.pid) / "stat").unlink()
        assert not mine.is_dead(proc)

    def test_where_the_kernel_says_nothing_nobody_is_known_to_be_dead(self):
        nowhere = Path("/nowhere")
        theirs = replace(WorkerId.mine(nowhere), pid=NOBODY)
        assert not theirs.is_dead(nowhere)
        assert WorkerId.parse(theirs.name) == theirs
