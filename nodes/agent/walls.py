"""How far tasks are walled off here: what was asked for, what works, and the words for it."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..protocol.messages import Task
from ..protocol.resources import Resources
from . import cgroups

#: The best level that works here.
AUTO = "auto"
#: Users that no machine gives to people or programs.
USERS = range(700_000, 765_536)
PROCESSES, FILES = 1_024, 65_536
#: What a task may take of the disk that asks for none.
SCRATCH = 1 << 30
#: Where a task finds its directory; which users are taken.  Nobody but root writes there.
_OURS = Path("/run/muster")
HOMES, TAKEN = _OURS / "tasks", _OURS / "users"
_PROGRAM = Path(__file__).parent / "walls_probe.py"
#: Of /run, which sockets of services are in: what programs look names up by.
_SHOWN = ("/run/systemd/resolve", "/run/resolvconf", "/run/current-system", "/run/opengl-driver")
_PR_GET_SECUREBITS, _NO_SETUID_FIXUP = 27, 1 << 2
_PATIENCE = 20.0


class Unavailable(Exception):
    """The walls that were asked for cannot be built here: {detail}."""


@dataclass(frozen=True)
class Wanted:
    """What the operator wants of walls."""

    level: str = AUTO
    users: range = USERS
    run_as: tuple[str, ...] = ()
    processes: int = PROCESSES
    scratch: int = SCRATCH
    share: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()


@dataclass(frozen=True)
class Walls:
    """The walls around the tasks of one agent; none by default."""

    level: str = "none"
    #: Why there are no more of them, in words.
    missing: tuple[str, ...] = ()
    users: range | None = None
    run_as: Mapping[str, str] = field(default_factory=dict)
    cgroups: Mapping[str, str] = field(default_factory=dict)
    sandbox: tuple[str, ...] = ()
    processes: int = 0
    scratch: int = 0

    def home(self, directory: Path) -> str:
        """Where a task finds its *directory*."""
        return str(HOMES / directory.name if self.users or self.sandbox else directory)

    def words(self, task: Task, needs: Resources) -> tuple[str, ...]:
        """What its supervisor is told; see ``confinement``."""
        if self.level == "none":
            return ()
        amounts = {
            "memory": needs.memory,
            "cpu": needs.cpu,
            "disk": needs.disk or self.scratch,
            "processes": self.processes,
            "files": FILES,
        }
        words = [f"{name}={amount}" for name, amount in amounts.items()]
        words += [f"as={self.run_as[task.run_as]}"] if task.run_as else []
        words += ["network=none"] if task.network == "none" else []
        words += [f"mount={HOMES}"] if self.users or self.sandbox else []
        if self.users:
            words.append(f"users={TAKEN}:{self.users.start}:{len(self.users)}")
        words += [f"cgroup={kind}:{path}" for kind, path in self.cgroups.items()]
        return (*words, *self.sandbox)

    def refusal(self, task: Task) -> tuple[str, str] | None:
        """Why *task* cannot be walled off as it asks for, and the cure; None if it can."""
        if task.run_as and task.run_as not in self.run_as:
            return (
                f"this node lets no task run as {task.run_as}",
                f"start its agent as root, with --run-as {task.run_as}, or leave task.run_as out",
            )
        if task.network == "none" and not self.sandbox:
            return (
                "this node cannot keep a task from the network: it has no sandbox",
                "constrain the job to nodes with node.isolation.sandbox, or leave task.network out",
            )
        return None

    def attributes(self) -> dict[str, str]:
        """What jobs may ask of nodes."""
        has = {"user": self.users, "cgroup": self.cgroups, "sandbox": self.sandbox}
        return {
            "isolation": self.level,
            **{f"isolation.{wall}": "true" for wall, it in has.items() if it},
            **{f"run_as.{name}": "true" for name in self.run_as},
        }

    @property
    def severity(self) -> int:
        """How much an operator should heed the sentence."""
        return logging.WARNING if self.level == "none" else logging.INFO

    def sentence(self) -> str:
        """How far tasks are walled off, for the log."""
        who = "root" if os.geteuid() == 0 else f"the agent's user, {os.geteuid()}"
        have = [
            f"each runs as a user of its own ({self.users.start} to {self.users.stop - 1})"
            if self.users
            else f"all run as {who}",
            "with limits on memory, processors and processes" if self.cgroups else "",
            "in a sandbox of its own" if self.sandbox else "",
        ]
        said = f"isolation {self.level}: {', '.join(filter(None, have))}"
        if self.level == "none":
            said += "; a task can do whatever the agent can, and read what it has"
        return "; ".join((said, *self.missing))


#: What was before there were any, and is where none is wanted.
NO_WALLS = Walls()


def build(wanted: Wanted, state: Path, cores: int) -> Walls:
    """The best walls that work here, or those that were asked for; raises Unavailable."""
    if wanted.level == "none":
        return Walls(run_as=_named(wanted.run_as, ()))
    layers = (("user", _with_user), ("cgroup", _with_cgroup), ("sandbox", _with_sandbox))
    walls = Walls(processes=wanted.processes, scratch=wanted.scratch)
    for level, add in layers:
        try:
            grown = replace(add(walls, wanted, state, cores), level=level)
            _probe(grown, state)
            walls = grown
        except Unavailable as why:
            if wanted.level == level:
                raise Unavailable(f"--isolation {level}: {why}") from None
            walls = replace(walls, missing=(*walls.missing, f"no {_NAMES[level]}: {why}"))
        if wanted.level == level:
            break
    return replace(walls, run_as=_named(wanted.run_as, walls.users or ()))


_NAMES = {"user": "users of their own", "cgroup": "limits by cgroup", "sandbox": "sandbox"}


def _with_user(walls: Walls, wanted: Wanted, _state: Path, _cores: int) -> Walls:
    if os.geteuid() != 0:
        raise Unavailable("only an agent that runs as root can give tasks users")
    if _secure_bits() & _NO_SETUID_FIXUP:
        raise Unavailable("who stops being root here keeps its capabilities (securebits)")
    try:
        HOMES.mkdir(mode=0o755, parents=True, exist_ok=True)
        _OURS.chmod(0o755)
        HOMES.chmod(0o755)
        descriptor = os.open(TAKEN, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, max(os.fstat(descriptor).st_size, wanted.users.stop))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unavailable(f"{error.filename}: {error.strerror}") from None
    return replace(walls, users=wanted.users)


def _with_cgroup(walls: Walls, _wanted: Wanted, state: Path, cores: int) -> Walls:
    name = f"muster-{hashlib.sha256(os.fsencode(state)).hexdigest()[:12]}"
    try:
        return replace(walls, cgroups=cgroups.make_parents(name, cores))
    except cgroups.Unusable as why:
        raise Unavailable(str(why)) from None


def _with_sandbox(walls: Walls, wanted: Wanted, state: Path, _cores: int) -> Walls:
    hidden = [*wanted.hide]
    if walls.users is None:  # Then it is our own files that a task could read.
        hidden += [str(state), pwd.getpwuid(os.getuid()).pw_dir]
    real = sorted({os.path.realpath(path) for path in hidden} - {"/"})
    shown = [*filter(os.path.exists, _SHOWN), *wanted.share]
    words = ("sandbox=yes", *(f"hide={it}" for it in real), *(f"share={it}" for it in shown))
    return replace(walls, sandbox=words)


def _named(names: Sequence[str], users: Sequence[int]) -> dict[str, str]:
    """Of each user whom tasks may be: uid, gid and groups; raises Unavailable."""
    found = {}
    for name in names:
        if not users:
            raise Unavailable(f"--run-as {name}: only with users of tasks can they be somebody")
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise Unavailable(f"--run-as {name}: this machine has no user {name}") from None
        if entry.pw_uid in (0, os.geteuid()):
            raise Unavailable(f"--run-as {name}: a task may not be the user of the agent")
        groups = ",".join(map(str, os.getgrouplist(name, entry.pw_gid)))
        found[name] = f"{entry.pw_uid}:{entry.pw_gid}:{groups}"
    return found


def _probe(walls: Walls, state: Path) -> None:
    """Run a program behind *walls*, as a task is run; raises Unavailable if that does not work."""
    words = walls.words(Task("process", ("true",)), Resources(memory=64 << 20, cpu=100))
    with _place(state) as directory:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_PROGRAM), *words],
                cwd=directory,
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(str(error)) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(said[-1] if said else f"a program ended with {done.returncode}")


@contextlib.contextmanager
def _place(state: Path) -> Iterator[Path]:
    """A directory of the state directory, for a moment."""
    directory = Path(tempfile.mkdtemp(prefix="probe.", dir=state))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _secure_bits() -> int:
    return int(ctypes.CDLL(None).prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0))
