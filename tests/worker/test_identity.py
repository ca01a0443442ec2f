"""Who a worker is, and whether it is dead."""

import subprocess
import sys

import psutil
import pytest

from orchestrator.worker.identity import Identity


def test_a_name_says_who_it_is():
    mine = Identity.mine()
    assert Identity.parse(mine.name) == mine
    assert mine.name != Identity.mine().name, "each start has a mark of its own"


def test_the_living_are_not_dead():
    assert not Identity.mine().is_dead()


def test_who_has_gone_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = Identity.mine()
    start = int(psutil.Process(child.pid).create_time())
    theirs = Identity(mine.host, child.pid, start, mine.space, "x")
    assert not theirs.is_dead()
    child.kill()
    child.wait()
    child.stdin.close()
    assert theirs.is_dead()


@pytest.mark.parametrize("differing", [{"start": 1}, {"pid": 2**22 - 1}])
def test_a_pid_that_somebody_else_has_now_is_dead(differing):
    mine = Identity.mine()
    facts = {"host": mine.host, "pid": mine.pid, "start": mine.start, "space": mine.space}
    assert Identity(**{**facts, **differing}, mark="x").is_dead()


@pytest.mark.parametrize("differing", [{"host": "elsewhere"}, {"space": "1"}])
def test_of_others_nothing_is_known(differing):
    mine = Identity.mine()
    facts = {"host": mine.host, "pid": 2**22 - 1, "start": 1, "space": mine.space}
    assert not Identity(**{**facts, **differing}, mark="x").is_dead()


def test_what_is_no_name_is_nobody_who_died():
    assert not Identity.parse("test").is_dead()
