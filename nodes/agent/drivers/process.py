"""The process driver: tasks as plain processes, started by the spawner.

The agent never forks.  It asks the spawner, a small process that outlives it; each task has a
supervisor of its own that outlives both.  See ``spawner`` and ``supervisor`` for their words.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Iterable, Set
from functools import partial
from pathlib import Path

from ...protocol.messages import Task
from ..cgroups import remove_abandoned
from ..facts import Fact, NeverStarted, NotStarted, Started, Vanished
from ..logs import Keeper, tails
from ..records import Entry
from ..walls import NO_WALLS, Walls
from . import Tell, start_failures
from .cleanup import Removal, kill_group, kill_those_at
from .journals import Begun, Journals, exited
from .spawner_link import PATH, SpawnerProbe, connect, start_packet

log = logging.getLogger(__name__)

_PACKET = 1 << 20
_UNKNOWN = "its supervisor is gone, and nothing tells how the task ended"
_REBOOTED = "the machine was restarted while the task ran"
_OLDER = "it may have run before, and the ledger that knew it is lost"
_LOOK_AGAIN = 0.5
_STRAY_LOOKS = 4  # What is not over at so many looks at the spawner may never be.


class ProcessDriver:
    """Starts, finds again and ends processes; see ``Driver`` for what it promises."""

    def __init__(self, state: Path, tell: Tell, walls: Walls = NO_WALLS) -> None:
        self._state, self._tell, self._walls = state, tell, walls
        self._work, self._logs = state / "work", state / "logs"
        for directory in (self._work, self._logs, state / "exits"):
            directory.mkdir(mode=0o700, exist_ok=True)
        if walls.users:  # Who knows its directory gets there, and cannot look around.
            self._work.chmod(0o711)
        self._journals = Journals(state / "exits")
        self._keeper = Keeper(self._logs)
        #: What is started and not over: the handle by which it is found again, and the task.
        self._running: dict[str, str] = {}
        self._tasks: dict[str, Task] = {}
        self._spawner: socket.socket | None = None
        #: Why nothing recorded proves nothing: what was written may have been lost, or removed.
        self._doubt = ""
        self._unsent: deque[bytes] = deque()
        #: What runs and our spawner does not serve, or does not answer for: its supervisor.
        self._elsewhere: dict[str, int] = {}
        self._looking: asyncio.TimerHandle | None = None
        #: What has lost its supervisor: all that is left of it is about to be killed.
        self._bereft: set[str] = set()
        #: What runs and nobody ordered; until it has ended, the orders to start are held.
        self._strays: set[str] = set()
        self._held: dict[str, str] = {}
        #: How often was looked since they should have ended.
        self._stray_looks = 0
        self._probe = SpawnerProbe(self._ask, self._changed)
        self._removal = Removal()

    def open(
        self, interrupted: Iterable[Entry], *, rebooted: bool, is_older: bool = False
    ) -> list[Fact]:
        entries = tuple(interrupted)
        self._running = {entry.execution: entry.handle for entry in entries}
        self._tasks = {entry.execution: entry.task for entry in entries if entry.task}
        self._doubt = _OLDER if is_older else _REBOOTED if rebooted else ""
        remove_abandoned(self._walls.cgroups, str(self._state))
        facts = self._attach(is_first=True)
        if is_older:
            facts += self._past()
        self._doubt = ""
        self._probe.look()
        return facts

    @property
    def degraded(self) -> str:
        if self._probe.is_deaf:
            return "its spawner does not answer"
        if self._strays and self._stray_looks >= _STRAY_LOOKS:
            tasks = "a task" if len(self._strays) == 1 else f"{len(self._strays)} tasks"
            return f"it waits for {tasks} to end that its ledger does not know: {min(self._strays)}"
        return ""

    def start(self, entry: Entry) -> None:
        task = entry.task
        assert task is not None, "an order is refused when it has no task"
        if entry.execution in self._strays:
            return  # It was started before the ledger was lost, and how it ends will be told.
        if (why := entry.lacks or self._walls.refusal(task)) is not None:
            self._tell([NotStarted(entry.execution, *why)])
            return
        words = start_packet(entry, task, self._work / entry.execution, self._walls)
        self._running[entry.execution], self._tasks[entry.execution] = "", task
        if self._strays:
            self._held[entry.execution] = words
        else:
            self._send(words)

    def stop(self, execution: str) -> None:
        if execution in self._elsewhere:
            self._stop_supervisor(execution)
        elif self._held.pop(execution, None) is not None:
            self._forget(execution)
            self._tell([NeverStarted(execution)])
        elif execution in self._running:
            self._send(f"stop\0{execution}")

    def running(self) -> Set[str]:
        return self._running.keys()

    def discard(self, execution: str) -> None:
        self._keeper.retire(execution)
        self._removal.soon(self._work / execution)

    def tidy(self, kept: Set[str]) -> None:
        kept = kept | self._strays
        self._journals.tidy(kept)
        self._keeper.tidy(kept)
        self._removal.of_old(self._work, kept)

    def close(self) -> None:
        self._probe.close()
        self._removal.close()
        if self._looking is not None:
            self._looking.cancel()
        self._let_go()

    # --- the spawner -----------------------------------------------------------------------------

    def _attach(self, *, is_first: bool = False) -> list[Fact]:
        """Connect to the spawner, or start one; account for everything that runs."""
        self._unsent.clear()
        self._held.clear()
        self._elsewhere.clear()
        self._spawner, facts, live = connect(self._state, self._understand)
        asyncio.get_running_loop().add_reader(self._spawner, self._hear)
        self._probe.heard()
        if is_first:
            self._strays = {*live, *self._journals.running()} - self._running.keys()
            self._running |= dict.fromkeys(self._strays, "")
            if self._strays:
                log.warning("%d tasks run that the ledger does not know", len(self._strays))
            for execution in self._strays:
                log.warning("%s runs here and the ledger does not know it: stopping it", execution)
        for execution in list(self._running):
            if execution in live:
                if (handle := live[execution]) and not self._running[execution]:
                    self._running[execution] = handle
                facts += [Started(execution, live[execution])] if live[execution] else []
            else:
                facts += self._account_for(execution)
        for execution in self._strays:
            self.stop(execution)
        return facts

    def _let_go(self) -> None:
        if self._spawner is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._spawner)
            loop.remove_writer(self._spawner)
            self._spawner.close()
            self._spawner = None

    def _hear(self) -> None:
        """Take in everything that the spawner has to say, and tell it at once."""
        facts: list[Fact] = []
        assert self._spawner is not None, "nobody listens to a closed socket"
        self._probe.heard()
        try:
            while packet := self._spawner.recv(_PACKET):
                facts += self._understand(packet)
        except BlockingIOError:
            pass
        except OSError:
            packet = b""
        if not packet:
            log.warning("the spawner is gone; starting another")
            self._let_go()
            facts += self._attach()
        if facts:
            self._tell(facts)

    def _ask(self) -> None:
        self._send("ping")
        if self._strays:
            self._stray_looks += 1
            if self._stray_looks == _STRAY_LOOKS:
                self._changed()

    def _changed(self) -> None:
        log.warning("%s", f"takes no new work: {it}" if (it := self.degraded) else "recovered")
        if self._probe.is_deaf:
            self._tell(self._take_over())
        else:
            self._send("sync\0again")  # What it serves it tells of itself again.
            self._tell([])

    def _send(self, words: str) -> None:
        self._unsent.append(words.encode("utf-8", "surrogateescape"))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        if self._spawner is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                self._spawner.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            loop.add_writer(self._spawner, self._flush)
            return
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._too_large(self._unsent.popleft())
                loop.call_soon(self._flush)
                return
            # It is gone: _hear finds that out and accounts for what was not sent.
        loop.remove_writer(self._spawner)

    def _too_large(self, packet: bytes) -> None:
        execution = packet.split(b"\0", 2)[1].decode()
        self._forget(execution)
        message = f"its command and environment take {len(packet)} bytes, which is too much"
        facts: list[Fact] = [NotStarted(execution, message, start_failures.HINT_TOO_LONG, False)]
        asyncio.get_running_loop().call_soon(self._tell, facts)

    def _understand(self, packet: bytes) -> list[Fact]:
        kind, *fields = packet.split(b"\0")
        if not fields or (execution := fields[0].decode()) not in self._running:
            return []
        match kind:
            case b"started":
                handle = b":".join(fields[1:4]).decode()
                self._running[execution] = handle
                return [Started(execution, handle)]
            case b"exited":
                self._forget(execution)
                return [exited(execution, fields)]
            case b"failed":
                return self._failed(execution, int(fields[1]), fields[2].decode())
            case b"lost":
                return self._account_for(execution, is_killed=True)
            case b"live":  # The spawner answers again, and for this one.
                self._elsewhere.pop(execution, None)
        return []

    def _forget(self, execution: str) -> None:
        """It does not run any more; with the last stray the orders that were held go out."""
        self._running.pop(execution, None)
        self._elsewhere.pop(execution, None)
        self._tasks.pop(execution, None)
        if execution not in self._strays:
            return
        self._strays.discard(execution)
        log.warning("%s, which the ledger does not know, has ended", execution)
        self.discard(execution)
        if not self._strays:
            held, self._held = self._held, {}
            for words in held.values():
                self._send(words)
            if self._stray_looks >= _STRAY_LOOKS:
                self._changed()

    # --- what became of a task that the spawner does not know ------------------------------------

    def _past(self) -> list[Fact]:
        """How all ended that is over here; who has lost the ledger must not begin it again."""
        facts: list[Fact] = []
        homes: dict[str, None] = dict.fromkeys(it.name for it in self._work.iterdir())
        for execution, end in (homes | self._journals.over()).items():
            if end is not None and end[0] == b"exited":
                facts.append(exited(execution, [*end[1:], b"", b""]))
            elif execution not in self._running:
                self._running[execution] = ""
                facts += self._account_for(execution)
        return facts

    def _account_for(self, execution: str, *, is_killed: bool = False) -> list[Fact]:
        """What the journals say: it ended, it runs, nobody knows, or it never began.

        If nobody knows, what is left of it is killed first, unless it *is killed* already.
        """
        found = self._journals.find(execution)
        if isinstance(found, list):
            kind, *fields = found
            if kind == b"failed":
                return self._failed(execution, int(fields[1]), fields[2].decode())
            self._forget(execution)
            return [exited(execution, [*fields, *tails(self._logs, execution)])]
        handle = self._running[execution]
        if found is not None and found.supervisor:
            self._watch(execution, found.supervisor)
            return [Started(execution, handle)]
        if found is None or self._doubt == _REBOOTED:
            self._forget(execution)
            return [Vanished(execution, self._doubt) if self._doubt else NeverStarted(execution)]
        if is_killed:
            self._forget(execution)
            return [Vanished(execution, _UNKNOWN)]
        if not self._bereft:  # To look for what is left costs the same for one and for many.
            asyncio.get_running_loop().call_soon(self._end_bereft)
        self._bereft.add(execution)
        return []

    def _end_bereft(self) -> None:
        """Kill what is left of tasks whose supervisors are gone, and tell that they are over."""
        bereft, self._bereft = self._bereft & self._running.keys(), set()
        if self._spawner is None:
            return  # We have let go: the next agent finds them.
        for execution in bereft:
            if handle := self._running[execution]:
                kill_group(handle)
        kill_those_at({self._work / execution for execution in bereft}, self._walls.users)
        for execution in bereft:
            self._forget(execution)
        self._tell([Vanished(execution, _UNKNOWN) for execution in bereft])

    def _failed(self, execution: str, number: int, reason: str) -> list[Fact]:
        if number == errno.EEXIST:
            return self._account_for_its_directory(execution)
        task = self._tasks.get(execution)
        self._forget(execution)
        command, env = ((), {}) if task is None else (task.command, task.env)
        where = env.get("PATH", PATH), self._work / execution
        why = start_failures.explain(number, reason, command, *where, self._walls)
        return [NotStarted(execution, why.message, why.hint, why.retryable)]

    def _account_for_its_directory(self, execution: str, *, is_first: bool = True) -> list[Fact]:
        """Somebody made it: another spawner's supervisor a moment ago, or a former version."""
        if execution not in self._running:
            return []
        if self._journals.find(execution) is not None:
            return self._account_for(execution)
        if is_first:
            loop = asyncio.get_running_loop()
            again = partial(self._account_for_its_directory, execution, is_first=False)
            loop.call_later(_LOOK_AGAIN, lambda: self._tell(again()))
            return []
        self._forget(execution)
        message = "its directory was there before it, and nothing tells what became of the task"
        return [Vanished(execution, message)]

    def _watch(self, execution: str, supervisor: int) -> None:
        """Look from time to time at what our spawner does not tell of."""
        self._elsewhere[execution] = supervisor
        if execution in self._strays:
            self._stop_supervisor(execution)
        if self._looking is None:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(_LOOK_AGAIN, self._look_elsewhere)

    def _look_elsewhere(self) -> None:
        self._looking = None
        running = self._journals.running()
        facts: list[Fact] = []
        for execution, supervisor in list(self._elsewhere.items()):
            if running.get(execution) == supervisor:
                self._watch(execution, supervisor)
            else:
                del self._elsewhere[execution]
                facts += self._account_for(execution)
        if facts:
            self._tell(facts)

    def _take_over(self) -> list[Fact]:
        """Look after what runs without the spawner, which does not answer."""
        facts: list[Fact] = []
        for execution, supervisor in self._journals.running().items():
            if execution in self._running:
                self._watch(execution, supervisor)
                facts.append(Started(execution, self._running[execution]))
        return facts

    def _stop_supervisor(self, execution: str) -> None:
        supervisor = self._elsewhere[execution]
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(supervisor)
            try:
                # The pid may have gone to somebody else meanwhile: the lock decides.
                if self._journals.find(execution) == Begun(supervisor):
                    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            finally:
                os.close(descriptor)
