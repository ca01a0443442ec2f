"""Runs tasks to their end, one at a time.  Standard library only; forked by the spawner.

It depends on nobody: agent and spawner may come and go.  What it does and learns it first appends
to the journal, one ``write`` a record, and then tells the spawner, if there still is one.  Messages
and records are fields separated by NUL; their forms are a contract between versions:

    begun    id  supervisor-pid                       (recorded only)
    started  id  pid  start-ticks  supervisor-pid     (said only)
    exited   id  status  why  seconds  stdout-size  stderr-size  [stdout-tail  stderr-tail]
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
# ruff: noqa: PTH110, PTH112, PTH118

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
    from .process_tree import kill_children, signal_group, start_ticks
    from .task_output import Stream, drain, read
else:
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
_RESET = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)

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
        self.spawner = os.getpid()
        self.work = os.open("work", os.O_RDONLY | os.O_DIRECTORY)
        self.logs = os.open("logs", os.O_RDONLY | os.O_DIRECTORY)
        self.home = os.open(".", os.O_RDONLY | os.O_DIRECTORY)


class Request:
    """One order to start a task, as the agent words it.

    start  id  timeout-or-empty  grace  number-of-arguments  arguments…  NAME=value…
    """

    def __init__(self, packet: bytes) -> None:
        fields = packet.split(b"\0")
        self.id = fields[1]
        self.timeout = float(fields[2]) if fields[2] else None
        self.grace = float(fields[3])
        count = int(fields[4])
        self.command = fields[5 : 5 + count]
        pairs = (pair.partition(b"=") for pair in fields[5 + count :])
        self.env = {name: value for name, _, value in pairs}


class Post:
    """What a supervisor is forked with: its first task, and the link by which others come."""

    def __init__(self, request: Request, places: Places, link: socket.socket | None) -> None:
        self.request, self.places, self.link = request, places, link
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
            return
        assert post.link is not None, "who has no link serves once"
        request = _next(post.link, post.wake)


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
    places, me = post.places, os.getpid()
    name = request.id.decode()
    try:
        # Whoever comes second to the same task, as when both its spawners were killed, stops here.
        os.mkdir(name, 0o700, dir_fd=places.work)
    except OSError as error:
        return _fail(request, places, error)
    try:
        os.chdir(f"work/{name}")
        out, out_end = os.pipe2(os.O_CLOEXEC)
        err, err_end = os.pipe2(os.O_CLOEXEC)
        _begin(request, places, me)
        began = time.monotonic()
        pid = _spawn(request, out_end, err_end)
    except OSError as error:
        _fail(request, places, error)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=places.work)  # Nothing began in it: another attempt may.
        return False
    os.close(out_end)
    os.close(err_end)
    _say(places, b"started", request.id, b"%d" % pid, b"%d" % start_ticks(pid), b"%d" % me)
    streams = {
        out: Stream(places.logs, name + ".stdout."),
        err: Stream(places.logs, name + ".stderr."),
    }
    stdout, stderr = streams[out], streams[err]
    why = _watch(request, pid, streams, post, began)
    ran = time.monotonic() - began
    signal_group(pid, signal.SIGKILL)  # Before the pid is reaped: until then it is ours.
    _, status = os.waitpid(pid, 0)
    alone = kill_children()
    drain(streams)
    clean = alone and not streams and not why and not _stopped
    free = clean and may_serve and post.link is not None
    for stream in (stdout, stderr):
        stream.close()
    exited = (
        b"exited",
        request.id,
        b"%d" % os.waitstatus_to_exitcode(status),
        why,
        b"%.6f" % ran,
        b"%d" % stdout.size,
        b"%d" % stderr.size,
    )
    free = record(places, *exited) and free
    os.fchdir(places.home)
    prefix = (b"free", b"%d" % me) if free else ()
    tails = (stream.tail.replace(b"\0", b"") for stream in (stdout, stderr))
    _say(places, *prefix, *exited, *tails)
    return free


def _begin(request: Request, places: Places, me: int) -> None:
    """Record that the task is about to start; raises the OSError that forbids it to."""
    try:
        fcntl.lockf(places.journal, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, me)
        _append(places, b"begun", request.id, b"%d" % me)
    except OSError as error:
        reason = f"the journal of this node cannot be written: {error.strerror}"
        raise OSError(error.errno, reason) from error
    # Who saw the spawner dead may have read the journal before: then it was called unstarted.
    if os.getppid() != places.spawner:
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


def _spawn(request: Request, out: int, err: int) -> int:
    """Start the task in a session of its own; raises the OSError that exec failed with."""
    actions = (
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, err, 2),
    )
    return os.posix_spawn(
        _find(request.command[0], request.env.get(b"PATH", b"")),
        request.command,
        request.env,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_RESET,
    )


def _find(program: bytes, path: bytes) -> bytes:
    """The file that *program* means, by the task's own PATH, not by ours."""
    if b"/" in program:
        return program
    found = None
    for directory in path.split(b":"):
        candidate = os.path.join(directory or b".", program)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
        if os.path.exists(candidate):
            found = candidate
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _watch(
    request: Request, pid: int, streams: dict[int, Stream], post: Post, began: float
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
    end_at = None if request.timeout is None else began + request.timeout
    # The first look comes before the first wait: a signal may have come before the wake-up pipe.
    while True:
        if _stopped and not why:
            why = b"stopped"
        now = time.monotonic()
        if end_at is not None and now >= end_at and not why:
            why = b"timeout"
        if why and (kill_at is None):
            signal_group(pid, signal.SIGTERM)
            kill_at, end_at = now + request.grace, None
        if kill_at is not None and now >= kill_at:
            signal_group(pid, signal.SIGKILL)
            kill_at = now + _AGAIN
        if _is_over(pid):
            return why
        alarm = kill_at if kill_at is not None else end_at
        left = None if alarm is None else min(max(0.0, alarm - now), _LONGEST_WAIT)
        wait = None if left is None else left * 1000 + 1
        for descriptor, _ in poll.poll(wait):
            if descriptor == wake:
                _read_all(wake)
            elif descriptor == link:
                _listen(link, request, poll)
            else:
                read(descriptor, streams, poll)


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
