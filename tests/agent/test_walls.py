"""What walls are made of, without processes: users, cgroups of version 2, the words for all."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from nodes.agent import cgroups, walls
from nodes.agent.cgroups import Group, make_parents, shares, weight
from nodes.agent.options import parse
from nodes.agent.task_users import Users
from nodes.protocol.messages import Task
from nodes.protocol.resources import Resources

GROUP = ("cgroup.procs", "cgroup.subtree_control", "cgroup.controllers", "cpu.weight")
LIMITS = ("memory.max", "memory.oom.group", "memory.events", "memory.peak", "pids.max")


def unified(root: Path, *groups: str) -> Path:
    """A hierarchy of version 2 as files; what is made in it has none, unlike the kernel's."""
    for group in ("", *groups):
        (root / group).mkdir(parents=True, exist_ok=True)
        for name in (*GROUP, *LIMITS):
            (root / group / name).write_text("")
        (root / group / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (root / "own").write_text("0::/service\n")
    return root


def test_version_2_passes_its_controllers_on_and_limits_all_in_one_place(tmp_path: Path) -> None:
    root = unified(tmp_path, "service", "service/muster-x", "service/muster-x/7")
    found = make_parents("muster-x", 2, str(root), str(root / "own"))
    assert found == {"": str(root / "service/muster-x")}
    for group in ("service", "service/muster-x"):
        assert (root / group / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    group = Group(found, 7)
    group.limit(memory=64 << 20, cpu=500, processes=20)
    mine = root / "service/muster-x/7"
    said = {name: (mine / name).read_text() for name in ("memory.max", "pids.max", "cpu.weight")}
    assert said == {"memory.max": str(64 << 20), "pids.max": "20", "cpu.weight": str(weight(500))}
    assert (mine / "memory.oom.group").read_text() == "1"
    assert not group.was_short_of_memory()
    (mine / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (mine / "memory.peak").write_text("67108864\n")
    assert group.was_short_of_memory()
    assert group.peak() == 64 << 20
    group.join()
    assert (mine / "cgroup.procs").read_text() == "0"
    group.quit()
    assert (root / "service/cgroup.procs").read_text() == "0"


def test_a_machine_without_the_controllers_says_which_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("1:memory:/\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/muster-x").mkdir()
    with pytest.raises(cgroups.Unusable, match="no cgroup controller cpu"):
        make_parents("muster-x", 2, str(tmp_path), str(tmp_path / "own"))


def test_the_weights_of_processors_are_in_proportion() -> None:
    assert [shares(cpu) for cpu in (1, 500, 1000, 4000, 10**9)] == [2, 512, 1024, 4096, 262_144]
    assert [weight(cpu) for cpu in (1, 1000, 10**9)] == [1, 39, 10_000]


def test_a_user_is_given_once_until_it_is_free(tmp_path: Path) -> None:
    (tmp_path / "users").touch()
    users = Users(str(tmp_path / "users"))
    taken = [users.take(1000, 10) for _ in range(10)]
    assert sorted(user.uid for user in taken) == list(range(1000, 1010))
    with pytest.raises(OSError, match="each of the users 1000 to 1009 has a task"):
        users.take(1000, 10)
    users.free(taken[3])
    assert users.take(1000, 10).uid == taken[3].uid


def test_what_a_node_cannot_do_for_a_task_is_said_with_the_cure() -> None:
    none = walls.NO_WALLS
    assert none.refusal(Task("process", ("true",))) is None
    why, cure = none.refusal(Task("process", ("true",), run_as="backup")) or ("", "")
    assert why == "this node lets no task run as backup"
    assert "--run-as backup" in cure
    assert none.words(Task("process", ("true",)), Resources()) == ()
    assert none.attributes() == {"isolation": "none"}


@pytest.mark.parametrize(
    "text", ["0-100", "999-2000", "2000-1999", "a-b", "1000", "1000-5000000000"]
)
def test_users_that_are_no_range_or_the_system_s_are_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((SystemExit, argparse.ArgumentTypeError)):
        parse(["--users", text])
    assert "is no range of users; write 700000-765535" in capsys.readouterr().err


def test_a_level_in_the_environment_that_there_is_not_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUSTER_AGENT_ISOLATION", "jail")
    with pytest.raises(SystemExit):
        parse([])
    said = "MUSTER_AGENT_ISOLATION is 'jail'; say none or user or cgroup or sandbox or auto"
    assert said in capsys.readouterr().err


def test_walls_may_be_said_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("ISOLATION", "user"), ("SHARE", "/a,/b:rw"), ("RUN_AS", "backup")):
        monkeypatch.setenv(f"MUSTER_AGENT_{name}", text)
    options = parse([])
    assert (options.isolation, options.share) == ("user", ["/a", "/b:rw"])
    assert (options.run_as, options.hide) == (["backup"], [])
