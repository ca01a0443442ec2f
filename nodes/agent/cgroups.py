"""The control groups of tasks, of version 2 or 1: limits on memory, processors and processes.

Standard library only: part of the supervisor, see ``spawner`` for how it is loaded.

Each supervisor has a group of its own, named by its pid, which its tasks use one after the other:
to make one costs more than a short task does.  It lies in a group of the agent's, in each
hierarchy that there is: one of version 2, or one for each controller of version 1.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import contextlib
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: What is limited, by the names of the controllers.
CONTROLLERS = ("memory", "cpu", "pids")
#: How the one hierarchy of version 2 is called among those of version 1.
UNIFIED = ""
_ROOT = "/sys/fs/cgroup"
#: Less than this no program can start in.
LEAST_MEMORY = 8 << 20
#: Seconds that what was killed is waited for.
_PATIENCE = 2.0
_LEAF = "muster-agent"


class Unusable(Exception):
    """No cgroup can be made here: {detail}."""


class Group:
    """The group of the supervisor *pid*, in every hierarchy of *parents*.

    Files are opened from the directories of these: a supervisor may come to see others by path.
    """

    def __init__(self, parents: Mapping[str, str], pid: int) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._parents = {kind: os.open(path, flags) for kind, path in parents.items()}
        self._name = str(pid)
        self._said: dict[str, bytes] = {}
        self._most = self._kills = 0

    def make(self) -> None:
        """Make it, unless it is there."""
        for parent in self._parents.values():
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._name, 0o755, dir_fd=parent)
        self._said.clear()

    def limit(self, memory: int, cpu: int, processes: int) -> None:
        """Allow the next task so many bytes, and so many processes (0: as many as there may be).

        *cpu*, in thousandths of a core, is a weight: what nobody uses, anybody may.
        """
        most = max(memory, LEAST_MEMORY) if memory else 0
        if most and not 0 < self._most <= most:
            # What is left of its files in memory would have to be written first.
            self.remove()
            self.make()
        self._most = most
        if UNIFIED in self._parents:
            self._say(UNIFIED, "memory.max", b"%d" % most if most else b"max")
            self._say(UNIFIED, "memory.swap.max", b"0" if most else b"max", optional=True)
            self._say(UNIFIED, "memory.oom.group", b"1", optional=True)
            self._say(UNIFIED, "cpu.weight", b"%d" % weight(cpu))
        else:
            limit = b"%d" % (most or -1)
            # The limit with swap may never be the lower one: it is only ever raised first.
            self._say("memory", "memory.memsw.limit_in_bytes", limit, optional=True)
            self._say("memory", "memory.limit_in_bytes", limit)
            self._say("memory", "memory.memsw.limit_in_bytes", limit, optional=True)
            self._say("memory", "memory.max_usage_in_bytes", b"0", always=True, optional=True)
            self._say("cpu", "cpu.shares", b"%d" % shares(cpu))
        self._say("pids", "pids.max", b"%d" % processes if processes else b"max")
        self._kills = self._killed()

    def join(self) -> None:
        """Have this process, which has one thread, and all that it starts be in the group."""
        for kind, parent in self._parents.items():
            # To move a thread of itself needs no lock on all processes of the machine.
            _write(f"{self._name}/{'tasks' if kind else 'cgroup.procs'}", b"0", parent)

    def quit(self) -> None:
        """Have this process be where it was, beside the group of the agent's."""
        for kind, parent in self._parents.items():
            if kind:
                _write("../tasks", b"0", parent)
            else:
                try:
                    _write(f"../{_LEAF}/cgroup.procs", b"0", parent)
                except FileNotFoundError:
                    _write("../cgroup.procs", b"0", parent)

    def was_short_of_memory(self) -> bool:
        """Whether something was killed since ``limit``, as it took more than was allowed."""
        return self._killed() > self._kills

    def peak(self) -> int:
        """The most bytes that were in use at a time."""
        name = "memory.peak" if UNIFIED in self._parents else "memory.max_usage_in_bytes"
        words = self._read("memory", name).split()
        return int(words[0]) if words else 0

    def kill(self) -> bool:
        """Kill all that is in it; return whether nothing is left."""
        until, pause = time.monotonic() + _PATIENCE, 0.0005
        while left := self._processes():
            with contextlib.suppress(OSError):  # Then it goes without.
                self._say("pids", "pids.max", b"0")  # Who cannot fork cannot get away.
            try:
                _write(f"{self._name}/cgroup.kill", b"1", self._parents[UNIFIED])
            except (KeyError, OSError):
                for pid in left:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return True

    def remove(self) -> None:
        """Remove it, for good; what is not dead yet keeps it."""
        until = time.monotonic() + _PATIENCE
        for parent in self._parents.values():
            while True:
                try:
                    os.rmdir(self._name, dir_fd=parent)
                except FileNotFoundError:
                    break
                except OSError:  # The dead are counted until they are buried.
                    if time.monotonic() > until or not self.kill():
                        break
                    time.sleep(0.005)
                else:
                    break

    def close(self) -> None:
        """Remove it and let go."""
        self.remove()
        for parent in self._parents.values():
            os.close(parent)
        self._parents.clear()

    def _processes(self) -> list[int]:
        found = {
            int(word) for kind in self._parents for word in self._read(kind, "cgroup.procs").split()
        }
        return [pid for pid in found - {0, os.getpid()} if not _is_dead(pid)]

    def _killed(self) -> int:
        name = "memory.events" if UNIFIED in self._parents else "memory.oom_control"
        for line in self._read("memory", name).splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
        return 0

    def _read(self, kind: str, name: str) -> bytes:
        """What is in a file; nothing if there is none."""
        parent = self._parents.get(kind, self._parents.get(UNIFIED))
        with contextlib.suppress(OSError):
            file = os.open(f"{self._name}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
            try:
                return os.read(file, 1 << 20)
            finally:
                os.close(file)
        return b""

    def _say(
        self, kind: str, name: str, value: bytes, *, always: bool = False, optional: bool = False
    ) -> None:
        """Write *value* into a file, unless it was the last that was written."""
        parent = self._parents.get(kind, self._parents.get(UNIFIED))
        if parent is None or (self._said.get(name) == value and not always):
            return
        try:
            _write(f"{self._name}/{name}", value, parent)
        except OSError:
            if not optional:
                raise
            return
        self._said[name] = value


def weight(cpu: int) -> int:
    """What version 2 calls as much as ``shares`` of *cpu*."""
    return min(10_000, 1 + (shares(cpu) - 2) * 9_999 // 262_142)


def shares(cpu: int) -> int:
    """What version 1 gives to *cpu* thousandths of a core."""
    return max(2, min(262_144, cpu * 1024 // 1000))


def make_parents(
    name: str, cores: int, root: str = _ROOT, own: str = "/proc/self/cgroup"
) -> dict[str, str]:
    """Make the group *name* below our own, in each hierarchy that it takes; raises Unusable.

    *cores* of the machine are its share, when others want them too.
    """
    lines = [line.rstrip("\n").split(":", 2) for line in _lines(own)]
    paths = {kind: path for _, kinds, path in lines for kind in kinds.split(",")}
    unified = f"{root}{paths.get(UNIFIED, '/')}".rstrip("/")
    try:
        if "memory" in _words(f"{unified}/cgroup.controllers"):
            found = {UNIFIED: _delegated(unified, name)}
            _write(f"{found[UNIFIED]}/cpu.weight", b"%d" % weight(cores * 1000))
            return found
        found = {}
        for kind in CONTROLLERS:
            if kind not in paths or not os.path.isdir(f"{root}/{kind}"):  # noqa: PTH112
                raise Unusable(f"this machine has no cgroup controller {kind}")
            found[kind] = f"{root}/{kind}{paths[kind]}".rstrip("/") + f"/{name}"
            os.makedirs(found[kind], 0o755, exist_ok=True)  # noqa: PTH103
        _write(f"{found['cpu']}/cpu.shares", b"%d" % shares(cores * 1000))
    except OSError as error:
        why = f"{error.strerror}: {error.filename}"
        raise Unusable(f"no cgroup can be made below {unified or root}: {why}") from error
    return found


def _delegated(ours: str, name: str) -> str:
    """Version 2: the group *name* below *ours*, with all controllers passed on to it."""
    wanted = b" ".join(b"+" + kind.encode() for kind in CONTROLLERS)
    try:
        _write(f"{ours}/cgroup.subtree_control", wanted)
    except OSError:
        # A group passes on to others only while no process is in it.
        os.makedirs(f"{ours}/{_LEAF}", 0o755, exist_ok=True)  # noqa: PTH103
        for word in _words(f"{ours}/cgroup.procs"):
            if int(word) == os.getpid() or _is_spawner(int(word)):
                _write(f"{ours}/{_LEAF}/cgroup.procs", word.encode())
        if _words(f"{ours}/cgroup.procs"):
            raise Unusable(
                f"other processes are in the agent's cgroup, {ours}: run the agent as a service "
                "of its own, with Delegate=yes"
            ) from None
        _write(f"{ours}/cgroup.subtree_control", wanted)
    made = f"{ours}/{name}"
    os.makedirs(made, 0o755, exist_ok=True)  # noqa: PTH103
    _write(f"{made}/cgroup.subtree_control", wanted)
    return made


def remove_abandoned(parents: Mapping[str, str], state: str) -> list[int]:
    """Kill and remove the groups whose supervisors, of the agent at *state*, are gone; whose."""
    found: set[int] = set()
    for path in parents.values():
        with contextlib.suppress(OSError):
            found.update(int(name) for name in os.listdir(path) if name.isdigit())
    gone = [pid for pid in sorted(found) if not _is_spawner(pid, state)]
    for pid in gone:
        group = Group(parents, pid)
        group.kill()
        group.close()
    return gone


def _is_spawner(pid: int, state: str = "") -> bool:
    """Whether *pid* is a spawner, or a supervisor which it has forked, of the agent at *state*."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().split(b"\0")
        return any(word.endswith(b"spawner.py") for word in words) and (
            not state or os.fsencode(state) in words
        )
    return False


def _is_dead(pid: int) -> bool:
    """Whether *pid* is over, though its parent may not have noticed yet."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in b"ZX"
    return True


def _lines(path: str) -> list[str]:
    with contextlib.suppress(OSError), open(path) as file:
        return list(file)
    return []


def _words(path: str) -> list[str]:
    return " ".join(_lines(path)).split()


def _write(path: str, value: bytes, parent: int | None = None) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.write(file, value)
    finally:
        os.close(file)
