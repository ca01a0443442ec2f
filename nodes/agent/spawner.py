"""Forks supervisors.  Standard library only; one small process with one thread for each node.

The agent starts it as ``python -I -S spawner.py DIRECTORY FD``, FD being its first connection.
It outlives the agent: a later one connects to ``spawner.sock``.  It ends when it supervises
nothing and nobody is connected, and stops its tasks when DIRECTORY is removed.

A fork costs more than the task it is for, so a supervisor that has ended its task cleanly is used
again: it says ``free`` as it tells the end, and gets its next order by a link of its own.  A few
wait for that, for a few seconds; closing the link dismisses one.  The spawner's death closes all
links.

One message is one packet, fields separated by NUL:

    start  id  timeout  grace  count  words…  count  arguments…  count  NAME=value…
                        (see ``supervisor.Request``)
    stop   id
    sync   word         answered by ``live`` packets and ``synced word``; ends other connections
    ping                answered by ``pong``
    retire              another version takes over: take no connection and no order from now on

It passes on what supervisors say, and adds:

    hello  version
    live   id  pid  start-ticks  supervisor-pid       (pid 0: not yet started)
    lost   id           its supervisor was killed; so is what was left of the task
"""
# Each module imported here makes every fork slower, and pathlib is a large one:
# ruff: noqa: PTH100, PTH108, PTH120

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import supervisor
    from .agent_connections import Connection, Connections, listen
    from .confinement import SANDBOX, kill_abandoned, of_all
    from .process_tree import kill_children
    from .sandbox import fork_apart
    from .spawner_files import bound_log, new_journal
else:
    import supervisor
    from agent_connections import Connection, Connections, listen
    from confinement import SANDBOX, kill_abandoned, of_all
    from process_tree import kill_children
    from sandbox import fork_apart
    from spawner_files import bound_log, new_journal

_PACKET = 1 << 20
_JOURNAL_BYTES = 8 << 20
#: Requests taken before looking at the others: a flood of starts must not delay an exit.
_AT_ONCE = 8
#: Supervisors that wait for a task: so many at most, for so many seconds at most.  To make one
#: costs as much as a short task, so a flood of those must find enough of them.
_IDLE = 64
_IDLE_FOR = 5.0
#: Milliseconds from one look at whether the state directory is still there to the next.
_LOOK_EVERY = 5000.0
#: Links take descriptors, which are few: supervisors beyond these serve one task each.
_LINKS = 256
#: Seconds that all others wait for what a dead supervisor left to die.
_PATIENCE = 1.0
_POLL_IN = select.POLLIN | select.POLLHUP | select.POLLERR


class Spawner:
    """The loop and what it knows: connections, and who supervises what."""

    def __init__(self, first: int) -> None:
        #: id -> [pid, ticks, supervisor pid], for tasks whose end nobody has told yet.
        self.live: dict[bytes, list[bytes]] = {}
        self.supervisors: dict[int, Supervisor] = {}
        #: Those without a task, in the order of their becoming idle.
        self.idle: list[Supervisor] = []
        self.links = 0
        self.retired = False
        self.poll = select.poll()
        self.connections = Connections(self.poll)
        self.lock = os.open("spawner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.listener: socket.socket | None = listen("spawner.sock")
        self.ear, mouth = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ear.setblocking(False)
        self.places = supervisor.Places(mouth, new_journal())
        self.wake, self.wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.wake_end, warn_on_full_buffer=False)
        for descriptor in (self.listener, self.ear, self.wake):
            self.poll.register(descriptor, select.POLLIN)
        self.connections.open(socket.socket(fileno=first))

    def serve(self) -> supervisor.Post | None:
        """Return what to supervise, in a fork; None when all is done."""
        while self.connections or self.live or self.supervisors:
            self.end_without_home()
            for descriptor, event in self.poll.poll(self.dismiss_idle()):
                if descriptor == self.ear.fileno():
                    self.listen()
                elif descriptor == self.wake:
                    self.reap()
                elif self.listener and descriptor == self.listener.fileno():
                    with contextlib.suppress(OSError):
                        self.connections.open(self.listener.accept()[0])
                elif (connection := self.connections.get(descriptor)) is not None:
                    if event & select.POLLOUT:
                        self.connections.flush(connection)
                    if event & _POLL_IN and (post := self.obey(connection)):
                        return post
        return None

    def listen(self) -> None:
        """Pass on what supervisors say."""
        while True:
            try:
                packet = self.ear.recv(_PACKET)
            except BlockingIOError:
                return
            free = 0
            if packet.startswith(b"free\0"):
                _, pid, packet = packet.split(b"\0", 2)
                free = int(pid)
            kind, execution, *rest = packet.split(b"\0", 5)
            if kind == b"started":
                if execution in self.live:
                    self.live[execution][:2] = rest[:2]
            else:
                self.live.pop(execution, None)
            self.connections.tell(packet)
            if free:
                self.keep(free)

    def reap(self) -> None:
        """See which supervisors are over; one that did not say how its task ended was killed."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake, 4096)
        bereft = self.bury()
        if any(self.is_busy(dead) for dead in bereft):
            self.listen()
        groups = [
            kill_abandoned(dead.walls, dead.pid, self.places.owner(dead.execution))
            for dead in bereft
        ]
        if lost := [dead.execution for dead in bereft if self.is_busy(dead)]:
            for execution in lost:
                del self.live[execution]
            # What came to us because its supervisor died: its task, and all that task started.
            kill_children(self.supervisors.keys(), _PATIENCE)
            for execution in lost:
                self.connections.tell(b"lost\0" + execution)
        for group in groups:
            if group is not None:
                group.close()

    def bury(self) -> list[Supervisor]:
        """Those of the supervisors that are over."""
        over = []
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG | os.WUNTRACED))[0]:
                pid, status = found
                if not os.WIFSTOPPED(status):
                    if (dead := self.supervisors.pop(pid, None)) is not None:
                        self.dismiss(dead)
                        over.append(dead)
                elif (one := self.supervisors.get(pid)) is not None and one.walls:
                    os.kill(pid, signal.SIGCONT)  # Its task got at it, in its first moment.
        return over

    def is_busy(self, one: Supervisor) -> bool:
        """Whether it has not yet told how its task ended."""
        entry = self.live.get(one.execution)
        return entry is not None and int(entry[2]) == one.pid

    def keep(self, pid: int) -> None:
        """Let a supervisor wait for its next task, if it may be needed."""
        one = self.supervisors.get(pid)
        if one is None or one.link is None or self.is_busy(one):
            return
        if len(self.idle) >= _IDLE:
            self.dismiss(one)
            return
        one.since = time.monotonic()
        self.idle.append(one)

    def dismiss_idle(self) -> float:
        """Dismiss who has waited too long; return the milliseconds until the next look."""
        if not self.idle:
            return _LOOK_EVERY
        wanted = self.connections or self.live
        now = time.monotonic()
        while self.idle and not (wanted and now < self.idle[0].since + _IDLE_FOR):
            self.dismiss(self.idle[0])
        return (self.idle[0].since + _IDLE_FOR - now) * 1000 + 1 if self.idle else _LOOK_EVERY

    def end_without_home(self) -> None:
        """Stop every task when the state directory was removed: nobody can ask for it any more."""
        with contextlib.suppress(FileNotFoundError):
            os.getcwd()  # noqa: PTH109
            return
        for connection in list(self.connections.values()):
            self.connections.close(connection)
        for execution in self.live:
            self.stop(execution, b"stop\0" + execution)

    def dismiss(self, one: Supervisor) -> None:
        """Give it no further task: it ends, at once or after the one that it has."""
        if one.link is not None:
            one.link.close()
            one.link = None
            self.links -= 1
        if one in self.idle:
            self.idle.remove(one)

    def obey(self, connection: Connection) -> supervisor.Post | None:
        """Carry out what the agent asks; returns, in a fork, what to supervise."""
        for _ in range(_AT_ONCE):
            if (packet := connection.receive()) is None:
                return None
            kind, *fields = packet.split(b"\0", 2)
            if kind == b"start":
                if (post := self.start(fields[0], packet)) is not None:
                    return post
            elif kind == b"stop":
                self.stop(fields[0], packet)
            elif kind == b"sync":
                # There is one agent: what another left unread must not begin behind its back.
                for other in list(self.connections.values()):
                    if other is not connection:
                        self.connections.close(other)
                for execution, entry in self.live.items():
                    self.connections.send(connection, b"\0".join((b"live", execution, *entry)))
                self.connections.send(connection, b"synced\0" + fields[0])
            elif kind == b"ping":
                self.connections.send(connection, b"pong")
            elif kind == b"retire":
                self.retire()
            else:
                self.connections.close(connection)
        return None

    def start(self, execution: bytes, packet: bytes) -> supervisor.Post | None:
        if execution in self.live or self.retired:
            return None
        if os.fstat(self.places.journal).st_size > _JOURNAL_BYTES:
            with contextlib.suppress(OSError):  # Then the one that there is goes on.
                former, self.places.journal = self.places.journal, new_journal()
                os.close(former)
        if (pid := self.hand_over(execution, packet)) is not None:
            self.live[execution] = [b"0", b"0", b"%d" % pid]
            return None
        link, link_end = self.new_link()
        walls = of_all(supervisor.walls_of(packet))
        try:
            pid = fork_apart() if SANDBOX in walls else os.fork()
        except OSError as error:  # Too many processes, or too little memory: this one cannot.
            failed = (b"failed", execution, b"%d" % (error.errno or 0), str(error).encode())
            supervisor.record(self.places, *failed)
            self.connections.tell(b"\0".join(failed))
            for end in (link, link_end):
                if end is not None:
                    end.close()
            return None
        if pid == 0:
            if link is not None:
                link.close()
            self.abandon()
            return supervisor.Post(supervisor.Request(packet), self.places, link_end)
        if link_end is not None:
            link_end.close()
            self.links += 1
        self.supervisors[pid] = Supervisor(pid, link, execution, walls)
        self.live[execution] = [b"0", b"0", b"%d" % pid]
        return None

    def hand_over(self, execution: bytes, packet: bytes) -> int | None:
        """Give the order to a supervisor that is idle, and return its pid; None without one."""
        walls = of_all(supervisor.walls_of(packet))
        for one in reversed([*self.idle]):
            if one.walls != walls:  # What it has built cannot be built anew.
                continue
            self.idle.remove(one)
            assert one.link is not None, "who has no link was dismissed"
            try:
                one.link.send(packet)
            except OSError:  # It was killed just now.
                self.dismiss(one)
                continue
            one.execution = execution
            return one.pid
        return None

    def new_link(self) -> tuple[socket.socket | None, socket.socket | None]:
        if self.links >= _LINKS:
            return None, None
        try:
            link, link_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return None, None
        link.setblocking(False)
        with contextlib.suppress(OSError):
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PACKET)
        return link, link_end

    def stop(self, execution: bytes, packet: bytes) -> None:
        if (entry := self.live.get(execution)) is None:
            return
        one = self.supervisors[int(entry[2])]
        if one.link is not None:
            # Not by a signal: it may have ended that task already, and must not stop its next.
            with contextlib.suppress(OSError):
                one.link.send(packet)
                return
        os.kill(one.pid, signal.SIGTERM)  # Our child, not reaped: safe.

    def abandon(self) -> None:
        """In a fork: let go of what is the spawner's own."""
        for descriptor in (self.lock, self.wake, self.wake_end, self.ear.fileno()):
            os.close(descriptor)
        if self.listener:
            os.close(self.listener.fileno())
        for descriptor in self.connections:
            os.close(descriptor)
        for other in self.supervisors.values():
            if other.link is not None:
                other.link.close()

    def retire(self) -> None:
        if self.listener is not None:
            self.retired = True
            self.poll.unregister(self.listener)
            self.listener.close()
            self.listener = None
            os.unlink("spawner.sock")
            for one in self.supervisors.values():
                self.dismiss(one)
            os.close(self.lock)
            self.lock = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


class Supervisor:
    """A child of ours, the link by which it gets further orders, and the last it was given."""

    def __init__(
        self, pid: int, link: socket.socket | None, execution: bytes, walls: list[bytes]
    ) -> None:
        self.pid, self.link, self.execution, self.walls = pid, link, execution, walls
        self.since = 0.0


def main() -> None:
    os.chdir(sys.argv[1])
    bound_log()
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    signal.signal(signal.SIGTERM, supervisor.on_signal)
    signal.signal(signal.SIGCHLD, supervisor.on_signal)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    supervisor.prctl(36, 1, 0, 0, 0)  # Strays of a killed supervisor come to us, see reap.
    try:
        spawner = Spawner(int(sys.argv[2]))
    except BlockingIOError:
        sys.exit("another spawner serves this directory")
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        post = spawner.serve()
        if post is not None:
            supervisor.serve(post)
    except BaseException:  # noqa: BLE001  What it is, spawner.log says.
        import traceback

        bound_log()
        traceback.print_exc()
        os._exit(1)
    if post is not None:
        os._exit(0)
    if spawner.listener:
        with contextlib.suppress(OSError):
            os.unlink("spawner.sock")


if __name__ == "__main__":
    main()
