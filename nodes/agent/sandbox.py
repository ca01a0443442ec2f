"""What a sandbox is made of: namespaces, and a view of the file system.  Part of the supervisor.

Standard library only; see ``spawner`` for how it is loaded.

A supervisor with a sandbox is the first process of a pid namespace: it sees its tasks alone, and
when it dies they die.  Its tasks see the file system of the machine, which they can only read, but
for the directories of tasks and what is shared; /run is empty, /tmp and /dev are their own.  It
costs more than a short task does, so all tasks of a supervisor have it, one after the other.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:
# ruff: noqa: PTH102, PTH103, PTH112, PTH123, PTH208, PTH211

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _SLAVE = 2, 4, 8, 0x1000, 0x4000, 0x80000
_MNT_DETACH = 2
#: mount_setattr has this number on every machine; struct mount_attr: set, clear, propagation, fd.
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_ATTRIBUTES = struct.Struct("QQQQ")
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_PR_SET_DUMPABLE = 4
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_has_own_mounts = False
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def fork_apart() -> int:
    """Fork into a pid namespace; the pid, or 0 in the child, which is the first process there.

    Who is not root has a user namespace as well, in which all is allowed with what is hers.
    """
    told, tell = os.pipe2(os.O_CLOEXEC)
    between = os.fork()
    if between == 0:
        try:
            _unshare(_NEWPID if os.geteuid() == 0 else _NEWPID | _NEWUSER)
            pid = os.fork()
        except OSError as error:
            os.write(tell, b"-%d" % (error.errno or errno.EPERM))
            os._exit(1)
        if pid == 0:
            os.close(tell)
            os.close(told)
            return 0
        # Its parent is then who adopts orphans: our caller.
        os.write(tell, b"%d" % pid)
        os._exit(0)
    os.close(tell)
    said = os.read(told, 32)
    os.close(told)
    os.waitpid(between, 0)
    if (pid := int(said or b"0")) <= 0:
        number = -pid or errno.EAGAIN
        raise OSError(number, f"no sandbox can be made: {os.strerror(number)}")
    return pid


def own_mounts() -> None:
    """Mount from now on what nobody else sees."""
    global _has_own_mounts  # noqa: PLW0603
    _unshare(_NEWNS)
    _has_own_mounts = True
    _mount(None, "/", flags=_REC | _SLAVE)


def bind(source: str, target: str) -> None:
    """Have *source* at *target* as well."""
    _mount(source, target, flags=_BIND)


def bind_to_write(source: str, target: str) -> None:
    """Have *source* at *target*, where it can be written."""
    bind(source, target)
    _set_attributes(target, remove=_ATTR_RDONLY)


def furnish(homes: str, hidden: Sequence[str], shared: Sequence[str], *, is_root: bool) -> int:
    """Make the view of the file system, for us and what we start; we are in the state directory.

    Its directory *work*, of which a descriptor is returned, is at *homes*, where each task has a
    user of its own: nothing is there otherwise.  Those *hidden* are empty, unless they are
    *shared*, to be read or, with ``:rw``, written.
    """
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    own_mounts()
    work = os.open("work", os.O_PATH)
    sources = {path: os.open(path, os.O_PATH) for path in _existing(shared)}
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES}
    for path in ("/run", *hidden):
        _empty(path)
    _furnish_dev(devices)
    for path, source in sources.items():
        _make(path, is_directory=os.path.isdir(f"/proc/self/fd/{source}"))
        _mount(f"/proc/self/fd/{source}", path, flags=_BIND | _REC)
    _make(homes, is_directory=True)
    if is_root:
        _mount(f"/proc/self/fd/{work}", homes, flags=_BIND)
    else:
        _mount("tmpfs", homes, "tmpfs", _NOSUID | _NODEV, "mode=755,size=1m")
    for descriptor in (*sources.values(), *devices.values()):
        os.close(descriptor)
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    _set_attributes("/", add=_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=True)
    written = [path for path in sources if f"{path}:rw" in shared]
    for path in ("/proc", "/dev/shm", "/dev/mqueue", homes, *written):  # noqa: S108
        with contextlib.suppress(OSError):  # Nothing is mounted on one of them.
            _set_attributes(path, remove=_ATTR_RDONLY)
    for name in (*_DEVICES, "pts"):
        _set_attributes(f"/dev/{name}", remove=_ATTR_NODEV)
    return work


def _empty(path: str) -> None:
    """Have nothing in the directory, or the file, *path*, if there is one."""
    if os.path.isdir(path):
        _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, "mode=755,size=1m")
    elif os.path.exists(path):  # noqa: PTH110
        nothing = "/run/nothing"  # Which is ours by now.
        _make(nothing, is_directory=False)
        bind(nothing, path)
        os.unlink(nothing)  # noqa: PTH108


def _furnish_dev(devices: dict[str, int]) -> None:
    _mount("tmpfs", "/dev", "tmpfs", _NOSUID, "mode=755,size=1m")
    for name, source in devices.items():
        _make(f"/dev/{name}", is_directory=False)
        _mount(f"/proc/self/fd/{source}", f"/dev/{name}", flags=_BIND)
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/pts")
    _mount("devpts", "/dev/pts", "devpts", _NOSUID | _NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    os.mkdir("/dev/shm")  # noqa: S108
    _mount_shm()
    os.mkdir("/dev/mqueue")
    _mount_queues()


def refurnish() -> None:
    """Remove what the last task has left where the next one will be, too."""
    if os.listdir("/dev/shm"):  # noqa: S108
        unmount("/dev/shm")  # noqa: S108
        _mount_shm()
    if os.listdir("/dev/mqueue") or any(map(_tells_of_some, ("shm", "sem", "msg"))):
        unmount("/dev/mqueue")
        _mount_queues()


def _mount_shm() -> None:
    _mount("tmpfs", "/dev/shm", "tmpfs", _NOSUID | _NODEV, "mode=1777")  # noqa: S108


def _mount_queues() -> None:
    """Have no queues, semaphores and shared memory but those made from now on."""
    _unshare(_NEWIPC)
    with contextlib.suppress(OSError):  # A kernel without queues needs no place for them.
        _mount("mqueue", "/dev/mqueue", "mqueue", _NOSUID | _NODEV | _NOEXEC)


def _tells_of_some(kind: str) -> bool:
    """Whether there is something of System V of this *kind*: a line more than the heading."""
    with contextlib.suppress(OSError), open(f"/proc/sysvipc/{kind}", "rb") as file:
        return file.read(4096).count(b"\n") > 1
    return False


def lose_network() -> None:
    """Have no network any more but a loopback device of our own."""
    _unshare(_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def kill_all_within() -> None:
    """Kill every other process of our pid namespace, of which we are the first."""
    # Anywhere else this would be the end of the machine.
    if os.getpid() == 1 and os.getppid() == 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)


def unmount(path: str) -> None:
    """Have nothing at *path* any more, whoever still uses it."""
    assert _has_own_mounts, "nothing of the machine's is unmounted"
    _libc.umount2(os.fsencode(path), _MNT_DETACH)


def _existing(shared: Sequence[str]) -> list[str]:
    return [path for it in shared if os.path.exists(path := it.removesuffix(":rw"))]  # noqa: PTH110


def _make(path: str, *, is_directory: bool) -> None:
    """Make *path*, unless it is there: what is mounted needs a place."""
    parent = path if is_directory else os.path.dirname(path)  # noqa: PTH120
    os.makedirs(parent, 0o755, exist_ok=True)
    if not is_directory:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _unshare(what: int) -> None:
    """Leave namespaces; in a user namespace of its own a process is who it was."""
    uid, gid = os.geteuid(), os.getegid()
    _must("unshare", _libc.unshare(what))
    if what & _NEWUSER:
        for name, text in (
            ("setgroups", b"deny"),
            ("uid_map", b"%d %d 1" % (uid, uid)),
            ("gid_map", b"%d %d 1" % (gid, gid)),
        ):
            with open(f"/proc/self/{name}", "wb") as file:
                file.write(text)


def _mount(source: str | None, target: str, kind: str = "", flags: int = 0, how: str = "") -> None:
    assert _has_own_mounts, "nothing is mounted for the machine"
    failed = _libc.mount(
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        how.encode() or None,
    )
    _must(f"mount {target}", failed)


def _set_attributes(path: str, *, add: int = 0, remove: int = 0, recursive: bool = False) -> None:
    attributes = _ATTRIBUTES.pack(add, remove, 0, 0)
    failed = _libc.syscall(
        _MOUNT_SETATTR,
        _AT_FDCWD,
        os.fsencode(path),
        _AT_RECURSIVE if recursive else 0,
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _must(f"mount_setattr {path}", failed)


def _must(what: str, failed: int) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
