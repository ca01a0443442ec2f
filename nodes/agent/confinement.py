"""The walls around one task: its user, its cgroup, its sandbox.

Part of the supervisor; standard library only, see ``spawner`` for how it is loaded.  What is asked
for comes as words ``name=value`` with the order to start (``walls`` makes them).  These are the
same for all tasks of a supervisor:

    users     file:first:count   each runs as a user of its own, one of these that nobody is
    mount     path               where tasks find the directory *work*, instead of where it is
    cgroup    controller:path    in which the supervisor has a group
    sandbox   yes                see ``sandbox``
    hide      path               what is empty in the sandbox
    share     path, or path:rw   what is not, or can be written
    as        uid:gid:gid,…      each runs as this user, who may have other processes

And these say more of one:

    network   none
    memory, cpu, processes, files, disk   amounts; see ``cgroups`` and ``disk_use``
"""
# Each module imported here makes every fork slower, and pathlib is a large one:
# ruff: noqa: PTH102

from __future__ import annotations

import contextlib
import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
# The spawner knows no packages: to it these are modules beside it.
if TYPE_CHECKING or __package__:
    from . import sandbox
    from .cgroups import Group
    from .process_tree import children_of, kill_user
    from .task_start import limit_resources, spawn
    from .task_users import User, Users, renounce
else:
    import sandbox
    from cgroups import Group
    from process_tree import children_of, kill_user
    from task_start import limit_resources, spawn
    from task_users import User, Users, renounce

#: Within the home of a task: what it has in place of the machine's /tmp.
TMP = ".tmp"
SANDBOX = b"sandbox=yes"
#: Of a task without walls, and of us.
_MASK = 0o022
_OF_ALL = (b"users=", b"mount=", b"cgroup=", b"sandbox=", b"hide=", b"share=", b"as=")
_AMOUNTS = (b"memory", b"cpu", b"processes", b"files", b"disk")


class Host:
    """What the supervisor *pid* keeps for all its tasks: what they see, its cgroup, its users."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._users: Users | None = None
        self._group: Group | None = None
        self._is_ready = False
        #: The directory *work*, to whom it is not mounted as it is.
        self.work = -1
        #: It cannot do for another task what it did for the last one.
        self.is_spent = False

    def users(self, path: bytes) -> Users:
        self._users = self._users or Users(os.fsdecode(path))
        return self._users

    def group(self, words: Sequence[bytes]) -> Group:
        if self._group is None:
            self._group = Group(parents(words), self._pid)
            self._group.make()
        return self._group

    def get_ready(self, asked: Mapping[bytes, list[bytes]]) -> None:
        """Make what tasks see, once; we are in the state directory."""
        if self._is_ready:
            return
        homes = os.fsdecode(asked.get(b"mount", [b""])[0])
        if b"sandbox" in asked:
            hidden, shared = ([*map(os.fsdecode, asked.get(it, []))] for it in (b"hide", b"share"))
            is_root = b"users" in asked
            work = sandbox.furnish(homes, hidden, shared, is_root=is_root)
            self.work = -1 if is_root else work
        elif homes:
            sandbox.own_mounts()
            sandbox.bind("work", homes)
        if b"sandbox" in asked or b"users" in asked:
            renounce()
        self._is_ready = True

    def close(self) -> None:
        """No task will follow: remove the cgroup."""
        if self._group is not None:
            self._group.kill()
            self._group.close()
            self._group = None


def of_all(words: Sequence[bytes]) -> list[bytes]:
    """Those of *words* that say the same for all tasks of a supervisor."""
    return [word for word in words if word.startswith(_OF_ALL)]


def parents(words: Sequence[bytes]) -> dict[str, str]:
    """The words about cgroups: a path for each controller."""
    pairs = (os.fsdecode(word).partition(":") for word in words)
    return {kind: path for kind, _, path in pairs}


def said(words: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """The values of each name, in their order."""
    found: dict[bytes, list[bytes]] = {}
    for word in words:
        name, _, value = word.partition(b"=")
        found.setdefault(name, []).append(value)
    return found


def users_of(asked: Mapping[bytes, list[bytes]]) -> tuple[bytes, int, int] | None:
    """The file that says which users of tasks are taken, the first of them, and how many."""
    if b"users" not in asked:
        return None
    path, first, count = asked[b"users"][0].rsplit(b":", 2)
    return path, int(first), int(count)


class Confinement:
    """The walls around one task.

    ``prepare``, in its directory; ``spawn``; ``kill`` when its first process is over; ``leave``.
    """

    def __init__(self, words: Sequence[bytes], host: Host) -> None:
        self._host, self._asked = host, (asked := said(words))
        self._users = users_of(asked)
        self._as = asked.get(b"as", [b""])[0]
        self._mount = asked.get(b"mount", [b""])[0]
        self._has_sandbox = b"sandbox" in asked
        self._group: Group | None = None
        self._amounts = {name: int(asked.get(name, [b"0"])[0]) for name in _AMOUNTS}
        self._user: User | None = None
        self._mounted: list[str] = []
        self._is_inside = False

    @property
    def disk(self) -> int:
        return self._amounts[b"disk"]

    @property
    def memory(self) -> int:
        return self._amounts[b"memory"]

    def prepare(self, name: str, state: int) -> None:
        """Make all ready for the task whose directory we are in, the one *name* in *work*.

        *state* is a descriptor of the state directory.
        """
        if b"cgroup" in self._asked:
            self._group = self._host.group(self._asked[b"cgroup"])
            memory, cpu, processes = (self._amounts[it] for it in (b"memory", b"cpu", b"processes"))
            self._group.limit(memory, cpu, processes)
        if self._as:
            uid, gid, groups = self._as.split(b":")
            self._user = User(int(uid), int(gid), tuple(int(it) for it in groups.split(b",") if it))
        elif self._users:
            path, first, count = self._users
            self._user = self._host.users(path).take(first, count)
        if self._has_sandbox:
            os.mkdir(TMP, 0o700)
        if self._user is not None:
            for made in (TMP, ".") if self._has_sandbox else (".",):
                os.chown(made, self._user.uid, self._user.gid)
        if self._mount:
            os.fchdir(state)
            self._host.get_ready(self._asked)
            home = f"{os.fsdecode(self._mount)}/{name}"
            if self._host.work >= 0:
                os.mkdir(home, 0o700)
                sandbox.bind_to_write(f"/proc/self/fd/{self._host.work}/{name}", home)
                self._mounted.append(home)
            os.chdir(home)
        if self._has_sandbox:
            self._is_inside = True
            for place in ("/tmp", "/var/tmp"):  # noqa: S108
                sandbox.bind(TMP, place)
                self._mounted.append(place)

    def spawn(
        self, command: Sequence[bytes], env: Mapping[bytes, bytes], out: int, err: int
    ) -> int:
        """Start the task in a session of its own; raises the OSError that exec failed with."""
        if self._mount:
            limit_resources(self._limits())
        if b"network" in self._asked:
            self._host.is_spent = True
            sandbox.lose_network()
        mask = os.umask(0o077 if self._mount else _MASK)
        try:
            with self._in_group(), self._user.worn() if self._user else contextlib.nullcontext():
                return spawn(command, env, out, err)
        finally:
            os.umask(mask)

    def kill(self, pid: int) -> None:
        """Kill all that is left of the task that *pid* leads."""
        if self._group is not None:
            self._group.kill()
        if self._is_inside:
            sandbox.kill_all_within()
        elif self._user is not None and not self._as and set(children_of(os.getpid())) - {pid}:
            kill_user(self._user.uid)

    def leave(self, name: str, work: int, *, is_empty: bool) -> tuple[bool, int]:
        """Take the walls down; *is_empty* when nothing of the task lives.

        Returns whether it was short of memory, and the most that it had.
        """
        while self._mounted:
            sandbox.unmount(self._mounted.pop())
        if self._host.work >= 0:
            with contextlib.suppress(OSError):
                os.rmdir(f"{os.fsdecode(self._mount)}/{name}")  # noqa: PTH106
        if self._is_inside:
            sandbox.refurnish()
            with contextlib.suppress(OSError):
                os.rmdir(f"{name}/{TMP}", dir_fd=work)  # Unless there is something in it.
        if self._user is not None:
            with contextlib.suppress(OSError):
                os.chown(name, 0, 0, dir_fd=work, follow_symlinks=False)
            with contextlib.suppress(OSError):
                if self._users and not self._as and is_empty:
                    self._host.users(self._users[0]).free(self._user)
            self._user = None
        if self._group is None or not self._group.was_short_of_memory():
            return False, 0
        return True, min(self._group.peak(), self.memory)

    def _limits(self) -> dict[int, int]:
        """What counts for a user counts all of her processes: not where she has others."""
        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: self._amounts[b"files"]}
        if self._user is not None and not self._as:
            limits[resource.RLIMIT_NPROC] = self._amounts[b"processes"]
        return limits

    @contextlib.contextmanager
    def _in_group(self) -> Iterator[None]:
        """What is started meanwhile is in the cgroup, and so are we: only for a moment."""
        if self._group is None:
            yield
            return
        self._group.join()
        try:
            yield
        finally:
            self._group.quit()


def kill_abandoned(words: Sequence[bytes], supervisor: int, uid: int) -> Group | None:
    """Kill what is left of a task of *uid* whose *supervisor* is gone; the cgroup to close."""
    asked = said(words)
    group = None
    if b"cgroup" in asked:
        with contextlib.suppress(OSError):
            group = Group(parents(asked[b"cgroup"]), supervisor)
            group.kill()
    if (users := users_of(asked)) is not None:
        _, first, count = users
        if first <= uid < first + count:
            kill_user(uid)
    return group
