"""What a hostile task tries against its node and its neighbours, with real agents and processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from nodes.agent import walls
from nodes.protocol.messages import Happened, Hello
from tests.agent.agents import Agent, spawner_at
from tests.agent.orchestrator import Orchestrator, stop
from tests.security.walled import NOBODY, group_of, order, runs, sleepers, soon, story, tells

pytestmark = pytest.mark.processes

ROOT = ("user", "cgroup", "sandbox")
LIMITED = ("cgroup", "sandbox")
INSIDE = ("sandbox", "ordinary")


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


async def gone(*processes: psutil.Process) -> None:
    await soon(lambda: not any(map(is_alive, processes)))


def hello(o: Orchestrator) -> Hello:
    return next(message for message in o.messages if isinstance(message, Hello))


@story(*ROOT)
async def test_each_task_is_a_user_of_its_own_without_rights(o: Orchestrator, agent: Agent) -> None:
    script = "id -u; id -G; umask; stat -c %a .; sed -nE 's/^Max (core|proc).* ([0-9]+) .*/\\2/p'"
    script += " /proc/self/limits; grep -E '^(Cap|NoN)' /proc/self/status"
    ends = [await tells(o, name, script) for name in ("a", "b")]
    who = [end.stdout.split() for end in ends]
    for uid, groups, mask, mode, core, processes, *rights in who:
        assert int(uid) in walls.USERS
        assert groups == uid, "no group of the agent's"
        assert (mask, mode, core, processes) == ("0077", "700", "0", "1024")
        names = ("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:")
        assert rights == [word for name in names for word in (name, "0" * 16)] + [
            "NoNewPrivs:",
            "1",
        ]
    assert who[0][0] != who[1][0]


@story("ordinary")
async def test_a_task_of_an_ordinary_agent_is_it_without_rights(
    o: Orchestrator, agent: Agent
) -> None:
    end = await tells(o, "a", "id -u; grep -E '^(Cap[IPEBA]|NoN)' /proc/self/status | cut -f 2")
    assert end.stdout.split() == [str(NOBODY), *["0" * 16] * 5, "1"]


@story()
async def test_what_the_agent_keeps_is_out_of_reach(o: Orchestrator, agent: Agent) -> None:
    state, work = agent.state, agent.state / "work"
    script = f"""
        cat {state}/identity.json; cat {state}/ledger.db; cat {state}/exits/*; ls {state}
        : >> {state}/logs/x; : > {work}/x; cat {state}/spawner.sock
        python3 -c 'import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect("{state}/spawner.sock")'
        for pid in /proc/[0-9]*; do
            ls $pid/fd/ | grep -q . && [ $(readlink $pid) != self ] || true
            cat $pid/root/{state}/identity.json $pid/cwd/identity.json $pid/cwd/../identity.json
        done
    """
    end = await tells(o, "a", f"({script}) 2>/dev/null; true")
    assert "nt_secret" not in end.stdout
    assert end.stdout == ""
    assert sorted(it.name for it in work.iterdir()) == ["a"]


@story()
async def test_a_neighbour_is_neither_seen_nor_signalled_nor_entered(
    o: Orchestrator, agent: Agent
) -> None:
    secret = "dont-look-at-me"
    victim = await runs(o, "victim", "echo data > file", env={"DB_PASSWORD": secret})
    work = agent.state / "work"
    pids = [victim.pid, victim.ppid(), spawner_at(agent.state), agent.process.pid]  # type: ignore[union-attr]
    script = f"""
        cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep {secret}
        kill -KILL {" ".join(map(str, pids))}; kill -STOP {" ".join(map(str, pids))}
        ls .. {work}; cat ../victim/file {work}/victim/file
        cat /proc/[0-9]*/cwd/file
        true
    """
    end = await tells(o, "hostile", f"({script}) 2>/dev/null")
    assert end.stdout.split() in ([], ["..:", "hostile"]), "at most its own directory"
    assert victim.status() == psutil.STATUS_SLEEPING
    assert all(psutil.Process(pid).status() != psutil.STATUS_STOPPED for pid in pids)
    await o.order(stop("victim"))
    assert (await o.ended("victim"))[0].code == "stopped"


@story()
async def test_nothing_outlives_its_stop_by_leaving_its_session_twice(
    o: Orchestrator, agent: Agent
) -> None:
    flee = (
        "cd /; (env -i setsid sh -c '(trap \"\" TERM HUP; setsid sleep 299.75 &) & sleep 299.5' &)"
    )
    stays = await runs(o, "a", flee)
    await soon(lambda: sleepers("299.75") and sleepers("299.5"))
    left = [stays, *sleepers("299.75"), *sleepers("299.5")]
    await o.order(stop("a"))
    assert (await o.ended("a"))[0].code == "stopped"
    await gone(*left)


@story()
async def test_nothing_outlives_its_supervisor(o: Orchestrator, agent: Agent) -> None:
    flee = "cd /; (env -i setsid sh -c 'setsid sleep 298.75' &)"
    stays = await runs(o, "a", flee)
    await soon(lambda: sleepers("298.75"))
    left = [stays, *sleepers("298.75")]
    [supervisor] = psutil.Process(spawner_at(agent.state)).children()
    supervisor.kill()
    assert (await o.ended("a"))[0].code == "unknown-outcome"
    await gone(*left)


@story(*ROOT)
async def test_nothing_outlives_agent_spawner_and_supervisor(o: Orchestrator, agent: Agent) -> None:
    flee = "cd /; (env -i setsid sh -c 'setsid sleep 297.75' &)"
    stays = await runs(o, "a", flee)
    await soon(lambda: sleepers("297.75"))
    left = [stays, *sleepers("297.75")]
    spawner = psutil.Process(spawner_at(agent.state))
    [supervisor] = spawner.children()
    await agent.end(signal.SIGKILL)
    for process in (spawner, supervisor):
        process.kill()
    await agent.start()
    assert (await o.ended("a"))[0].code == "unknown-outcome"
    await gone(*left)


@story(*LIMITED)
async def test_more_memory_than_asked_for_is_out_of_memory(o: Orchestrator, agent: Agent) -> None:
    eat = "python3 -c 'x = bytearray(200 << 20)'"
    end = await tells(o, "a", f"exec {eat}")
    assert (end.happened, end.code) == (Happened.FAIL, "out-of-memory")
    assert end.message.startswith("took 6")
    assert end.message.endswith("may take 64 MiB; the task was killed by SIGKILL (9)")
    assert (await tells(o, "b", eat, memory=400 << 20)).happened == Happened.COMPLETE
    assert (await tells(o, "c", f"{eat}; exit 3")).code == "out-of-memory"


@story(*LIMITED)
async def test_a_task_without_memory_hurts_no_later_one(o: Orchestrator, agent: Agent) -> None:
    assert (await tells(o, "a", "exec python3 -c 'bytearray(200 << 20)'")).code == "out-of-memory"
    end = await tells(o, "b", "kill -KILL $$")
    assert (end.code, end.hint) == (
        "signal",
        "nobody asked for it: perhaps the machine ran out of memory",
    )


@story(*ROOT, options=("--processes", "20"))
async def test_who_forks_without_end_comes_to_its_end(o: Orchestrator, agent: Agent) -> None:
    script = "for i in $(seq 60); do sleep 296.25 & done; wait"
    await o.order(order("a", script))
    await o.ended("a")  # The shell gives up when it cannot fork.
    assert not sleepers("296.25")
    assert "fork" in o.final("a").stderr  # type: ignore[union-attr]
    assert (await tells(o, "b", "true")).happened == Happened.COMPLETE


@story(options=("--scratch", "4MiB"))
async def test_more_disk_than_asked_for_ends_a_task(o: Orchestrator, agent: Agent) -> None:
    end = await tells(o, "a", "head -c 12M /dev/zero > x; mkdir d; ln x d/y; exec sleep 60")
    assert (end.happened, end.code) == (Happened.FAIL, "out-of-disk")
    assert end.message.startswith("took 12"), "the file of two names once"
    assert end.message.endswith(
        "MiB of disk and may take 4 MiB; the task was killed by SIGTERM (15)"
    )
    end = await tells(o, "b", "head -c 3M /dev/zero > x; sleep 1.2")
    assert end.happened == Happened.COMPLETE


@story(*ROOT)
async def test_a_program_with_the_rights_of_root_gives_none(o: Orchestrator, agent: Agent) -> None:
    directory = tempfile.mkdtemp(dir="/srv")
    try:
        shutil.copy("/usr/bin/id", f"{directory}/id")
        for path, mode in ((directory, 0o755), (f"{directory}/id", 0o4755)):
            os.chmod(path, mode)  # noqa: PTH101
        end = await tells(o, "a", f"id -u; {directory}/id -u")
    finally:
        shutil.rmtree(directory)
    real, gained = end.stdout.split()
    assert real == gained


@story(*INSIDE)
async def test_the_system_is_there_to_be_read_only(o: Orchestrator, agent: Agent) -> None:
    script = """
        for path in / /etc /usr /var/lib /dev /run /sys/fs/cgroup /proc/sys/kernel; do
            (: > $path/x) && echo wrote $path
        done
        (echo x > /proc/sys/kernel/core_pattern) && echo wrote core_pattern
        ls /run | grep -v muster; ls $HOME/..
        test -c /dev/null && echo > /dev/null && : > /dev/shm/x && : > /tmp/y && : > /var/tmp/z
        ls /tmp; ls /dev | grep -E 'sda|vda|kmsg|mem'
    """
    end = await tells(o, "a", f"({script}) 2>/dev/null; true")
    assert end.stdout.split() in (["y", "z"], ["a", "y", "z"])


@story(*INSIDE)
async def test_a_task_finds_nothing_of_the_one_before(o: Orchestrator, agent: Agent) -> None:
    leave = ": > /tmp/left; : > /var/tmp/left; : > /dev/shm/left; ipcmk -M 4096 -p 666 > /dev/null"
    await tells(o, "a", f"{leave}; (setsid sleep 295.25 &)")
    look = "ls /tmp /var/tmp /dev/shm; ipcs -m | grep -c 666; pgrep -xc sleep"
    end = await tells(o, "b", look)
    assert "left" not in end.stdout
    assert end.stdout.split()[-2:] == ["0", "0"]


@story(*INSIDE)
async def test_a_task_without_network_reaches_nobody(o: Orchestrator, agent: Agent) -> None:
    reach = f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {o.port}), 5)'"
    devices = "cut -d: -f1 /proc/net/dev | grep -v '|' | tr -d ' '"
    end = await tells(o, "none", f"{devices}; {reach}", network="none")
    assert (end.stdout, end.exit_code) == ("lo\n", 1)
    assert (await tells(o, "host", reach)).happened == Happened.COMPLETE


@story("user")
async def test_a_node_without_a_sandbox_starts_nothing_that_wants_no_network(
    o: Orchestrator, agent: Agent
) -> None:
    end = await tells(o, "a", "true", network="none")
    assert (end.code, end.message) == (
        "not-started",
        "this node cannot keep a task from the network: it has no sandbox",
    )


@story("user", "sandbox", options=("--run-as", "nobody"))
async def test_a_task_runs_as_whom_the_node_allows_and_nobody_else(
    o: Orchestrator, agent: Agent
) -> None:
    assert (await tells(o, "a", "id -un", run_as="nobody")).stdout == "nobody\n"
    end = await tells(o, "b", "id -un", run_as="daemon")
    assert (end.code, end.message) == ("not-started", "this node lets no task run as daemon")
    assert hello(o).attributes["run_as.nobody"] == "true"


@story("user", "sandbox", options=("--run-as", "nobody", "--processes", "77"))
async def test_who_a_task_runs_as_changes_nothing_for_the_next_one(
    o: Orchestrator, agent: Agent
) -> None:
    script = "id -u; sed -nE 's/^Max proc.* ([0-9]+|unlimited) .*/\\1/p' /proc/self/limits"
    first = await tells(o, "a", script, run_as="nobody")
    own = (await tells(o, "b", script)).stdout.split()
    assert (int(own[0]) in walls.USERS, own[1]) == (True, "77")
    again = await tells(o, "c", script, run_as="nobody")
    assert again.stdout == first.stdout, "as many processes as somebody may have who has others"


@story("cgroup")
async def test_a_task_whose_walls_cannot_be_built_is_tried_again(
    o: Orchestrator, agent: Agent
) -> None:
    for group in groups_of(agent):
        group.rmdir()
    end = await tells(o, "a", "true")
    assert (end.code, end.retryable) == ("not-started", True)
    said = "the command could not be started: the walls around it cannot be built: No such file"
    assert end.message.startswith(said)


@story(*INSIDE, options=("--hide", "/etc/passwd"))
async def test_a_file_that_is_hidden_is_empty(o: Orchestrator, agent: Agent) -> None:
    assert (await tells(o, "a", "cat /etc/passwd; ls /run")).stdout == "muster\n"


@story()
async def test_walls_change_nothing_of_how_a_task_ends(o: Orchestrator, agent: Agent) -> None:
    assert (await tells(o, "a", "echo out; echo err >&2; exit 3")).exit_code == 3
    assert (await tells(o, "b", "kill -SEGV $$")).message == "the task was killed by SIGSEGV (11)"
    assert (await tells(o, "c", "exec no-such-program")).exit_code == 127
    await o.order(order("d", "trap 'echo bye; exit 4' TERM; echo up; sleep 60 & wait"))
    log = agent.state / "logs" / f"d.stdout.{0:015d}"
    await soon(lambda: log.exists() and log.stat().st_size)
    await o.order(stop("d"))
    [end] = await o.ended("d")
    assert (end.code, end.exit_code, end.stdout) == ("stopped", 4, "up\nbye\n")


@story(*INSIDE)
async def test_a_task_goes_on_without_its_agent_and_is_stopped_by_the_next(
    o: Orchestrator, agent: Agent
) -> None:
    stays = await runs(o, "a", "true")
    await agent.end(signal.SIGKILL)
    await agent.start()
    await soon(lambda: len([it for it in o.messages if isinstance(it, Hello)]) == 2)
    assert is_alive(stays)
    await o.order(stop("a"))
    assert (await o.ended("a"))[0].code == "stopped"
    await gone(stays)


@story()
async def test_the_agent_says_how_far_its_tasks_are_walled_off(
    o: Orchestrator, agent: Agent
) -> None:
    asked = agent.options[1]
    said = hello(o).attributes
    assert said["isolation"] == asked
    assert said[f"isolation.{asked}"] == "true"
    _, log = await agent.end()
    assert f"isolation {asked}: " in log


@story(*LIMITED)
async def test_cgroups_go_with_what_they_are_for(o: Orchestrator, agent: Agent) -> None:
    await runs(o, "a", "true")
    found = groups(agent)
    assert found
    abandoned = found[0].parent / "4194999"
    os.mkdir(abandoned)  # noqa: PTH102  As a supervisor leaves it that was killed with all.
    await o.order(stop("a"))
    await o.ended("a")
    await soon(lambda: groups(agent) == [abandoned])
    await agent.end()
    await agent.start()
    await soon(lambda: groups(agent) == [])


def groups_of(agent: Agent) -> list[Path]:
    """The agent's own, in each hierarchy."""
    name = group_of(agent.state)  # Groups of others come and go meanwhile.
    found = os.walk("/sys/fs/cgroup")
    return [Path(top, name) for top, names, _ in found if name in names]


def groups(agent: Agent) -> list[Path]:
    """Those of the supervisors, in the hierarchy that limits memory."""
    tops = (it for it in groups_of(agent) if (it / "memory.stat").exists())
    return sorted(it for top in tops for it in top.iterdir() if it.name.isdigit())


def test_isolation_that_cannot_be_had_is_a_mistake_that_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        agent = Agent(
            tmp_path, "http://127.0.0.1:1", ("--isolation", "sandbox", "--run-as", "root")
        )
        (tmp_path / "identity.json").write_text('{"node": "n", "credential": "nt_x"}')
        await agent.start()
        code, said = await agent.ended()
        assert code == 2
        assert "--run-as root: a task may not be the user of the agent" in said

    asyncio.run(scenario())
