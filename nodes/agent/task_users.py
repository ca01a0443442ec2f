"""The users that tasks run as, one each.  Part of the supervisor, which is root then.

Standard library only; see ``spawner`` for how it is loaded.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4
#: struct __user_cap_header_struct of version 3; then two times effective, permitted, inheritable.
_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)
_AT_ONCE = 256


class User:
    """Who a task runs as."""

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...] = ()) -> None:
        self.uid, self.gid, self.groups = uid, gid, groups

    @contextlib.contextmanager
    def worn(self) -> Iterator[None]:
        """Be this user for a moment: what is started then is it for ever, as root is only saved.

        Who runs as this user may signal us meanwhile.  Who does stops its own task, or has us
        stopped: the spawner lets us go on.
        """
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, 0)
        os.setresuid(self.uid, self.uid, 0)
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.setgroups(())


def renounce() -> None:
    """From now on no program that this process starts can gain a capability, nor its children."""
    capability = 0
    while _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    header, sets = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _must(_libc.capget(header, sets))
    sets[2] = sets[5] = 0
    _must(_libc.capset(header, sets))
    _must(_libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0))
    _must(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _must(failed: int) -> None:
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Users:
    """Which of the users of tasks are taken, by whichever agent of this machine.

    The file at *path* has a byte for each: what a task had whose supervisor was killed stays taken
    until the machine is started again.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def take(self, first: int, count: int) -> User:
        """One of the *count* users from *first* on that nobody is; raises OSError."""
        begin = int.from_bytes(os.urandom(4), "big") % count
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            for low, high in ((begin, count), (0, begin)):
                for start in range(low, high, _AT_ONCE):
                    size = min(_AT_ONCE, high - start)
                    taken = os.pread(self._file, size, first + start).ljust(size, b"\0")
                    if (free := taken.find(b"\0")) >= 0:
                        uid = first + start + free
                        os.pwrite(self._file, b"\1", uid)
                        return User(uid, uid)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        raise OSError(errno.EAGAIN, f"each of the users {first} to {first + count - 1} has a task")

    def free(self, user: User) -> None:
        """Nothing of its task lives any more."""
        os.pwrite(self._file, b"\0", user.uid)
