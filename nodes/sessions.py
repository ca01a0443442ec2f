"""The sessions of this web process: who is connected, and what they share.

One intake for what nodes report, one pump for what they must be told, one statement a second
for all that was heard of.  Async here, sync in threads; each crosses once per batch.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog

from . import hints, membership
from .callbacks import Callbacks
from .errors import Fenced, Quarantined, Revoked
from .hints import Hint
from .intake import PASSING, Intake, Settled, with_connection
from .log_watch import CREDIT, NotConnected
from .membership.silence import EARS, listen
from .order_lookup import OrderLookup
from .orders import EncodedOrder
from .protocol.messages import BATCH, Close, Hello, LogChunk, LogEnd
from .session_protocol import LiveSession

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: How long an order may go unnoticed when its hint is lost, in seconds.
POLL = 5.0
TICK = 1.0
HOLDER = f"{socket.gethostname()}:{os.getpid()}"


class Sessions:
    """All sessions of this process, and the tasks that serve them."""

    def __init__(self, callbacks: Callbacks) -> None:
        self.refusals: Counter[int] = Counter()
        self._callbacks = callbacks
        self._lookup = OrderLookup(callbacks)
        self._by_node: dict[UUID, LiveSession] = {}
        self._heard: set[UUID] = set()
        self._differing: set[LiveSession] = set()
        self._wake = asyncio.Event()
        self._intake = Intake(callbacks.receive, self._settle)
        self._hellos = ThreadPoolExecutor(4, thread_name_prefix="hello")
        self._rounds = ThreadPoolExecutor(2, thread_name_prefix="round")
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._by_node)

    def statistics(self) -> dict[str, int]:
        """What there is to measure, by name."""
        return {
            "sessions": len(self._by_node),
            "frames": self._intake.frames,
            "reports": self._intake.reports,
            "flushes": self._intake.flushes,
            "backlog": self._intake.backlog,
            "watches": sum(len(it.watches) for it in self._by_node.values()),
            **{f"refused_{code}": count for code, count in self.refusals.items()},
        }

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve, in the running loop.  Called again, it does nothing."""
        if self._tasks:
            return
        self._loop = asyncio.get_running_loop()
        for name, serve in (
            ("intake", self._intake.run),
            ("orders", self._pump),
            ("beats", self._beat),
        ):
            self._tasks.append(self._loop.create_task(self._keep(serve), name=f"nodes: {name}"))
        self._unsubscribe = hints.subscribe(Hint.ORDERS, self.wake)

    async def close(self) -> None:
        """Stop to serve; what was not acknowledged will be said again."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for threads in (self._hellos, self._rounds, self._intake.thread):
            await asyncio.to_thread(threads.shutdown)

    def wake(self) -> None:
        """Look for orders now.  May be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a sync function that uses the database, on behalf of one link."""
        return await self._run(self._hellos, function, *arguments)

    async def _run(self, threads: Executor, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, partial(with_connection, function, *arguments))

    async def _keep(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Serve, for ever.  A mistake ends all sessions, so that what was lost is said again."""
        while True:
            try:
                await serve()
            except Exception:
                log.exception("what all sessions share failed and begins again")
                for conversation in list(self._by_node.values()):
                    with suppress(Exception):  # Its link may be what failed.
                        await self._end(conversation, Close.SHUTTING_DOWN, "something went wrong")
                await asyncio.sleep(TICK)

    # --- coming and going ------------------------------------------------------------------------

    async def begin(
        self,
        node: UUID,
        hello: Hello,
        *,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int, str], Awaitable[None]],
        address: str = "",
    ) -> LiveSession:
        """Greet *node* and welcome it; an older link that it has here is closed.

        *address* is where other web processes reach this one.

        Nobody else here can speak over the new link before its welcome is said.  Raises what
        ``membership.greet`` raises; a link of a node that is quarantined is closed.
        """
        try:
            greeting, rev, desired = await self.call(self._greet, node, hello, address)
        except (Quarantined, Revoked) as error:
            # Also the link that it has here: of two with one identity neither is trusted.
            await self._end(self._by_node.get(node), Close.REFUSED, str(error))
            raise
        conversation = LiveSession(
            node,
            hello,
            greeting.epoch,
            send=send,
            close=close,
            submit=self._intake.submit,
            ask_again=self._tell_again,
        )
        try:
            await conversation.welcome(rev, desired, approved=greeting.approved)
            await self._take_place(conversation)
        except BaseException:
            await self.finish(conversation)
            raise
        return conversation

    async def _take_place(self, conversation: LiveSession) -> None:
        other = self._by_node.get(conversation.node)
        if other is not None and other.epoch > conversation.epoch:
            return await conversation.end(Close.FENCED, "a newer session of this node exists")
        self._by_node[conversation.node] = conversation
        self._heard.add(conversation.node)
        self._wake.set()
        return await self._end(other, Close.FENCED, "a newer link of this node exists")

    async def finish(self, conversation: LiveSession) -> None:
        """The link is gone: the node is disconnected, unless it has another one."""
        conversation.is_over = True
        conversation.watches.close()
        self._differing.discard(conversation)
        if self._by_node.get(conversation.node) is conversation:
            del self._by_node[conversation.node]
        with suppress(*PASSING):  # Silence will tell, when the database is back.
            await self.call(membership.leave, conversation.node, conversation.epoch)

    def heard(self, conversation: LiveSession) -> None:
        """Something was said over this session, if it is still the one that the node has."""
        if self._by_node.get(conversation.node) is conversation:
            self._heard.add(conversation.node)

    def _greet(
        self, node: UUID, hello: Hello, address: str
    ) -> tuple[membership.Greeting, int, list[EncodedOrder]]:
        greeting = membership.greet(node, hello, HOLDER, address, record=self._callbacks.record)
        if not greeting.approved:
            return greeting, greeting.order_rev, []
        return greeting, *self._lookup.desired(node, hello, greeting.epoch)

    async def _end(self, conversation: LiveSession | None, code: int, sentence: str) -> None:
        if conversation is not None:
            await conversation.end(code, sentence)

    # --- watching --------------------------------------------------------------------------------

    def holds(self, node: UUID, epoch: int) -> bool:
        """Whether *node* has its session of this *epoch*, or a newer one, with this process.

        That an older one is replaced elsewhere is heard of late where its link has fallen silent.
        """
        conversation = self._by_node.get(node)
        return conversation is not None and conversation.epoch >= epoch

    async def watch(
        self,
        execution: str,
        node: UUID,
        stream: str,
        offset: int = 0,
        *,
        follow: bool = True,
        credit: int = CREDIT,
    ) -> AsyncIterator[LogChunk | LogEnd]:
        """The bytes of a log, from the node that has it; see ``Watches.watch``.

        Raises NotConnected when the node has no session with this process.
        """
        conversation = self._by_node.get(node)
        if conversation is None:
            raise NotConnected
        pieces = conversation.watches.watch(
            execution, stream, offset=offset, follow=follow, credit=credit
        )
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]  # An async generator.

    # --- rounds ----------------------------------------------------------------------------------

    async def _settle(self, settled: Sequence[Settled]) -> None:
        by_session: dict[tuple[UUID, int], list[Settled]] = defaultdict(list)
        for frame, verdict in settled:
            by_session[frame.node, frame.epoch].append((frame, verdict))
        for (node, epoch), mine in by_session.items():
            conversation = self._by_node.get(node)
            if conversation is not None and conversation.epoch == epoch:
                await self._safely(conversation, conversation.settle(mine))
        if self._differing:
            self._wake.set()

    async def _pump(self) -> None:
        """Tell every node its orders: after a hint, after a welcome, and every POLL seconds."""
        while True:
            # Not wait_for: it forgets that it was cancelled when the wake-up comes just then.
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._tell_those_that_differ()
                await self._tell_orders()
            except PASSING as error:
                log.warning("orders wait", error=str(error))
                await asyncio.sleep(TICK)
                self._wake.set()
            except Exception:
                log.exception("orders cannot be told")
                await asyncio.sleep(TICK)

    async def _tell_orders(self) -> None:
        asked = {node: it for node, it in self._by_node.items() if not it.outgoing.is_full}
        if not asked:
            return
        sent = {node: it.outgoing.sent_rev for node, it in asked.items()}
        found = await self._run(self._rounds, self._lookup.pending, sent)
        for node, order_rev, orders in found:
            telling = asked[node].tell(sent[node], order_rev, orders)
            await self._safely(asked[node], telling)
        if sum(len(orders) for _, _, orders in found) >= BATCH:
            self._wake.set()  # There may be more.

    def _tell_again(self, conversation: LiveSession) -> None:
        self._differing.add(conversation)
        self._wake.set()

    async def _tell_those_that_differ(self) -> None:
        # Only when nothing is under way: what is not yet written would seem to be missing.
        for conversation in [it for it in self._differing if not it.in_flight]:
            self._differing.discard(conversation)
            await self._safely(conversation, self._tell_desired(conversation))

    async def _tell_desired(self, conversation: LiveSession) -> None:
        node, epoch = conversation.node, conversation.epoch
        hello = conversation.hello_now()
        try:
            rev, desired = await self._run(self._rounds, self._lookup.desired, node, hello, epoch)
        except PASSING:
            self._differing.add(conversation)
            raise
        except Fenced as error:
            return await conversation.end(Close.FENCED, str(error))
        return await conversation.tell_again(rev, desired)

    async def _beat(self) -> None:
        """Write every TICK who was heard of; end what is outdated or stuck."""
        while True:
            await asyncio.sleep(TICK)
            heard, self._heard = self._heard, set()
            beats = [
                membership.Beat(node, it.epoch, it.running, it.load, it.degraded)
                for node in heard
                if (it := self._by_node.get(node)) is not None
            ]
            try:
                odd = await self._run(self._rounds, self._write_beats, beats)
            except PASSING as error:
                log.warning("heartbeats wait", error=str(error))
                self._heard |= heard
                continue
            except Exception:
                log.exception("heartbeats cannot be written")
                continue
            await self._end_outdated(beats, odd)
            await self._end_stuck()

    def _write_beats(self, beats: Sequence[membership.Beat]) -> membership.Anomalies:
        listen(EARS)
        odd = membership.beat(beats)
        if odd.back:
            self._callbacks.reconnect({it.node: it.epoch for it in beats if it.node in odd.back})
        if odd.changed:
            changed = [it for it in beats if it.node in odd.changed]
            self._callbacks.degraded({it.node: (it.epoch, it.degraded) for it in changed})
        return odd

    async def _end_outdated(
        self, beats: Sequence[membership.Beat], odd: membership.Anomalies
    ) -> None:
        for beat in beats:
            conversation = self._by_node.get(beat.node)
            if conversation is None or conversation.epoch != beat.epoch:
                continue
            if beat.node in odd.removed:
                await self._end(conversation, Close.REMOVED, "an operator removed this node")
            elif beat.node in odd.fenced:
                sentence = "a newer session exists, or the node was rejected or revoked"
                await self._end(conversation, Close.FENCED, sentence)
            elif beat.node in odd.given_up:
                sentence = "the node had been given up: say hello again"
                await self._end(conversation, Close.SHUTTING_DOWN, sentence)

    async def _end_stuck(self) -> None:
        now = asyncio.get_running_loop().time()
        for conversation in [it for it in self._by_node.values() if it.is_stuck(now)]:
            await self._end(conversation, Close.TOO_FAST, "the node does not take its orders")

    async def _safely(self, conversation: LiveSession, doing: Awaitable[None]) -> None:
        """Do it; when it fails, that is the end of this session and of no other."""
        try:
            await doing
        except PASSING:
            raise
        except Exception:
            log.exception("a session failed", node=str(conversation.node))
            await self._end(conversation, Close.SHUTTING_DOWN, "something went wrong here")


_current: Sessions | None = None


def install(sessions: Sessions) -> None:
    """Make *sessions* those of this process."""
    global _current  # noqa: PLW0603 - a process has one event loop that serves nodes.
    _current = sessions


def installed() -> Sessions | None:
    """The sessions of this process, if it serves any."""
    return _current


def current() -> Sessions:
    """The sessions of this process; raises NotConnected where none are served."""
    if _current is None:
        raise NotConnected
    return _current
