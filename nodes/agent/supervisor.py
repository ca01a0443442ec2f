"""Runs tasks to their end, one at a time.  Standard library only; forked by the spawner.

It depends on nobody: agent and spawner may come and go.  What it does and learns it first appends
to the journal, one ``write`` a record, and then tells the spawner, if there still is one.  Messages
and records are fields separated by NUL; their forms are a contract between versions:

    begun    id  supervisor-pid                       (recorded only)
    started  id  pid  start-ticks  supervisor-pid     (said only)
    exited   id  status  why  seconds  stdout-size  stderr-size  limit  used  [both tails]
    failed   id  errno  message
    free     supervisor-pid  exited …                 (said only, around the end that it tells)

When a task has ended by itself and left nothing, its supervisor is as it was before.  Then it may
serve another: it tells the spawner so, and waits at its link for ``start`` (see ``Request``).  By
the same link comes ``stop  id``; TERM means the same, and that this task is the last.  At the
link's end, after anything unusual and after many tasks it ends.

The journal alone says what was started.  No task starts before ``begun`` is written; without it
nothing of the task has ever run.  While a supervisor lives it holds a POSIX lock on one byte of its
journal, at the offset that its pid is.  It ends when it could not record an end, so the task that
it began last, without an end, runs as long as that lock is held; any other without an end is lost.
That lock goes when its process closes any descriptor of the journal: it must open none.

``work/<id>`` is the home of the task, and nothing else; the agent removes it.  Log segments are
``logs/<id>.<stream>.<offset of their first byte>``.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
# The spawner knows no packages: to it these are modules beside it.
if TYPE_CHECKING or __package__:
    from .confinement import Confinement, Host
    from .disk_use import DiskUse
    from .mask import patterns
    from .process_tree import kill_children, signal_group, start_ticks
    from .task_output import Stream, drain, read
else:
    from confinement import Confinement, Host
    from disk_use import DiskUse
    from mask import patterns
    from process_tree import kill_children, signal_group, start_ticks
    from task_output import Stream, drain, read

#: So many tasks, then a fresh fork: whatever might add up does not.
TASKS = 200
#: What does not die of KILL at once is killed again, after this many seconds.
_AGAIN = 10.0
#: poll takes milliseconds in 31 bits: a longer wait is several, each of so many seconds at most.
_LONGEST_WAIT = 86400.0
_PACKET = 1 << 20
_PR_SET_CHILD_SUBREAPER = 36

prctl = ctypes.CDLL(None).prctl

_stopped = False


def on_signal(number: int, _frame: object) -> None:
    """Note a TERM; that a CHLD came, the wake-up descriptor tells.

    It is never taken back: whoever was told to stop serves no further task.
    """
    global _stopped  # noqa: PLW0603
    if number == signal.SIGTERM:
        _stopped = True


class Places:
    """Descriptors that every supervisor inherits: directories, the journal, the spawner's ear."""

    def __init__(self, news: socket.socket, journal: int) -> None:
        self.news, self.journal = news, journal
        self._spawner = os.pidfd_open(os.getpid())
        self.work = os.open("work", os.O_RDONLY | os.O_DIRECTORY)
        self.logs = os.open("logs", os.O_RDONLY | os.O_DIRECTORY)
        self.home = os.open(".", os.O_RDONLY | os.O_DIRECTORY)

    def spawner_is_dead(self) -> bool:
        poll = select.poll()
        poll.register(self._spawner, select.POLLIN)
        return bool(poll.poll(0))

    def owner(self, execution: bytes) -> int:
        """Whose the directory of a task is; 0 when it is over or there is none."""
        with contextlib.suppress(OSError):
            return os.stat(execution, dir_fd=self.work, follow_symlinks=False).st_uid
        return 0


def walls_of(packet: bytes) -> list[bytes]:
    """The words about walls of an order to start; none of what is no order."""
    with contextlib.suppress(ValueError):
        _, _, _, _, count, rest = packet.split(b"\0", 5)
        return rest.split(b"\0", int(count))[: int(count)]
    return []


class Request:
    """One order to start a task, as the agent words it.

    start  id  timeout-or-empty  grace  number-of-words  words…  number-of-arguments  arguments…
    number-of-secrets  NAME=value…
    (of the words ``confinement`` tells; the variables that are secrets come first)
    """

    def __init__(self, packet: bytes) -> None:
        fields = packet.split(b"\0")
        self.id = fields[1]
        self.timeout = float(fields[2]) if fields[2] else None
        self.grace = float(fields[3])
        self.walls = walls_of(packet)
        begin = 5 + len(self.walls)
        end = begin + 1 + int(fields[begin])
        self.command = fields[begin + 1 : end]
        pairs = [pair.partition(b"=") for pair in fields[end + 1 :]]
        self.env = {name: value for name, _, value in pairs}
        self.secrets = patterns(value for _, _, value in pairs[: int(fields[end])])


class Post:
    """What a supervisor is forked with: its first task, and the link by which others come."""

    def __init__(self, request: Request, places: Places, link: socket.socket | None) -> None:
        self.request, self.places, self.link = request, places, link
        #: Our pid and start as the spawner sees them, in a sandbox too: /proc is still hers.
        self.me = int(os.readlink("/proc/self"))  # noqa: PTH115
        self.ticks = start_ticks(self.me)
        self.host = Host(self.me)
        self.wake, wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)


def serve(post: Post) -> None:
    """Run the task, and those that come after it; return when there should be no further one."""
    # Blocked since before the fork: Python forgets signals that come while it forks.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    request: Request | None = post.request
    for number in range(1, TASKS + 1):
        if request is None or not _supervise(request, post, may_serve=number < TASKS):
            break
        assert post.link is not None, "who has no link serves once"
        request = _next(post.link, post.wake)
    post.host.close()


def _next(link: socket.socket, wake: int) -> Request | None:
    """Wait for the next order; None when there will be none."""
    poll = select.poll()
    for descriptor in (link.fileno(), wake):
        poll.register(descriptor, select.POLLIN)
    while not _stopped:
        for descriptor, event in poll.poll():
            if descriptor == wake:
                _read_all(wake)
            elif event & select.POLLHUP:
                # Without the spawner an order that nobody began counts as never carried out.
                return None
            elif not _stopped:
                packet = link.recv(_PACKET)
                if packet.startswith(b"start\0"):
                    return Request(packet)
                # Otherwise a stop, which came too late.
    return None


def _supervise(request: Request, post: Post, *, may_serve: bool) -> bool:
    """Run the task until it is over and told; return whether another one may follow.

    None follows if not all is as it was before.
    """
    places, me = post.places, post.me
    name = request.id.decode()
    try:
        # Whoever comes second to the same task, as when both its spawners were killed, stops here.
        os.mkdir(name, 0o700, dir_fd=places.work)
    except OSError as error:
        return _fail(request, places, error)
    walls = Confinement(request.walls, post.host)
    try:
        os.chdir(f"work/{name}")
        _build(walls, name, places)
        out, out_end = os.pipe2(os.O_CLOEXEC)
        err, err_end = os.pipe2(os.O_CLOEXEC)
        _begin(request, places, me)
        began = time.monotonic()
        pid = walls.spawn(request.command, request.env, out_end, err_end)
    except OSError as error:
        os.fchdir(places.home)
        walls.leave(name, places.work, is_empty=True)
        _fail(request, places, error)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=places.work)  # Nothing began in it: another attempt may.
        return False
    os.close(out_end)
    os.close(err_end)
    # Within a pid namespace it is with us that all of it dies.
    first = (me, post.ticks) if os.getpid() != me else (pid, start_ticks(pid))
    _say(places, b"started", request.id, *(b"%d" % number for number in (*first, me)))
    streams = {
        out: Stream(places.logs, name + ".stdout.", request.secrets),
        err: Stream(places.logs, name + ".stderr.", request.secrets),
    }
    stdout, stderr = streams[out], streams[err]
    disk = DiskUse(walls.disk, began)
    why = _watch(request, pid, streams, post, _Task(walls, disk, began))
    ran = time.monotonic() - began
    signal_group(pid, signal.SIGKILL)  # Before the pid is reaped: until then it is ours.
    walls.kill(pid)
    _, status = os.waitpid(pid, 0)
    alone = kill_children()
    drain(streams)
    os.fchdir(places.home)
    short, peak = walls.leave(name, places.work, is_empty=alone)
    code = os.waitstatus_to_exitcode(status)
    if short and code and not why:
        why = b"memory"
    amounts = {b"memory": (walls.memory, peak), b"disk": (disk.limit, disk.used)}
    limit, used = amounts.get(why, (0, 0))
    clean = alone and not streams and not why and not _stopped and not post.host.is_spent
    free = clean and may_serve and post.link is not None
    for stream in (stdout, stderr):
        stream.finish()
    exited = (
        b"exited",
        request.id,
        b"%d" % code,
        why,
        b"%.6f" % ran,
        b"%d" % stdout.size,
        b"%d" % stderr.size,
        b"%d" % limit,
        b"%d" % used,
    )
    free = record(places, *exited) and free
    prefix = (b"free", b"%d" % me) if free else ()
    tails = (stream.tail.replace(b"\0", b"") for stream in (stdout, stderr))
    _say(places, *prefix, *exited, *tails)
    return free


def _build(walls: Confinement, name: str, places: Places) -> None:
    """Prepare the walls; the OSError that this raises is told apart from those of the command."""
    try:
        walls.prepare(name, places.home)
    except OSError as error:
        at = f": {os.fsdecode(error.filename)}" if error.filename else ""
        reason = f"the walls around it cannot be built: {error.strerror}{at}"
        raise OSError(error.errno, reason) from error


def _begin(request: Request, places: Places, me: int) -> None:
    """Record that the task is about to start; raises the OSError that forbids it to."""
    try:
        fcntl.lockf(places.journal, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, me)
        _append(places, b"begun", request.id, b"%d" % me)
    except OSError as error:
        reason = f"the journal of this node cannot be written: {error.strerror}"
        raise OSError(error.errno, reason) from error
    # Who saw the spawner dead may have read the journal before: then it was called unstarted.
    if places.spawner_is_dead():
        raise OSError(errno.ECANCELED, "the spawner died before it began")


def _fail(request: Request, places: Places, error: OSError) -> bool:
    """Tell that the task was not started; always false."""
    reason = (error.strerror or str(error)).encode()
    failed = (b"failed", request.id, b"%d" % (error.errno or 0), reason)
    # Somebody else's directory: what becomes of that task is not ours to record.
    if error.errno != errno.EEXIST:
        record(places, *failed)
    _say(places, *failed)
    return False


class _Task:
    """What is watched beside the first process of a task."""

    def __init__(self, walls: Confinement, disk: DiskUse, began: float) -> None:
        self.walls, self.disk, self.began = walls, disk, began


def _watch(
    request: Request, pid: int, streams: dict[int, Stream], post: Post, task: _Task
) -> bytes:
    """Serve the task until its first process is over; return who ended it."""
    poll = select.poll()
    wake, link = post.wake, -1
    for descriptor in (*streams, wake):
        poll.register(descriptor, select.POLLIN)
    if post.link is not None:
        link = post.link.fileno()
        poll.register(link, select.POLLIN)
    why = b""
    kill_at: float | None = None
    end_at = None if request.timeout is None else task.began + request.timeout
    # The first look comes before the first wait: a signal may have come before the wake-up pipe.
    while True:
        now = time.monotonic()
        why = why or _why_to_end(now, end_at, task.disk)
        if why and kill_at is None:
            signal_group(pid, signal.SIGTERM)
            kill_at = now + request.grace
        if kill_at is not None and now >= kill_at:
            signal_group(pid, signal.SIGKILL)
            task.walls.kill(pid)
            kill_at = now + _AGAIN
        if _is_over(pid):
            return why
        alarms = (kill_at,) if why else (end_at, task.disk.due)
        left = min((alarm - now for alarm in alarms if alarm is not None), default=None)
        wait = None if left is None else min(max(0.0, left), _LONGEST_WAIT) * 1000 + 1
        for descriptor, _ in poll.poll(wait):
            if descriptor == wake:
                _read_all(wake)
            elif descriptor == link:
                _listen(link, request, poll)
            else:
                read(descriptor, streams, poll)


def _why_to_end(now: float, end_at: float | None, disk: DiskUse) -> bytes:
    """The word for why the task must end now, or none."""
    if _stopped:
        return b"stopped"
    if end_at is not None and now >= end_at:
        return b"timeout"
    if disk.due is not None and now >= disk.due and disk.is_too_much(now):
        return b"disk"
    return b""


def _listen(link: int, request: Request, poll: select.poll) -> None:
    """Note a stop, unless it is meant for a former task."""
    global _stopped  # noqa: PLW0603
    packet = os.read(link, _PACKET)
    if packet == b"stop\0" + request.id:
        _stopped = True
    elif not packet:  # The spawner is gone; the task does not need it.
        poll.unregister(link)


def _read_all(wake: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(wake, 512)


def _is_over(pid: int) -> bool:
    """Whether the task's first process is over.  Reaps orphans that came to us meanwhile."""
    while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if found.si_pid == pid:
            return True
        os.waitpid(found.si_pid, os.WNOHANG)
    return False


def record(places: Places, *fields: bytes) -> bool:
    """Append to the journal how a task ended; return whether it could be."""
    try:
        _append(places, *fields)
    except OSError:  # A full disk: then only the spawner hears of it.
        return False
    return True


def _append(places: Places, *fields: bytes) -> None:
    # The newline before it ends a record that was cut short.
    line = b"\n" + b"\0".join(fields).replace(b"\n", b" ") + b"\n"
    if os.write(places.journal, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _say(places: Places, *fields: bytes) -> None:
    with contextlib.suppress(OSError):  # The spawner is gone; the journal is not.
        places.news.send(b"\0".join(fields))
