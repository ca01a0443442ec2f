"""The websocket's end of a session: who may connect, and what ends a link.

Everything is refused as early as can be: before the handshake is accepted when the caller is
nobody, before the hello when it speaks another protocol.  Every refusal is logged and counted.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import msgspec
import structlog
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from . import membership
from .callbacks import Callbacks
from .connect_limits import ConnectLimits
from .errors import Fenced, InvalidLabels, InvalidOffer, NodesError, Removed, Superseded
from .intake import PASSING
from .log_forwarding import address_of
from .models import Node
from .protocol import codec
from .protocol.messages import (
    SUBPROTOCOL,
    UNKNOWN_OUTCOME,
    VERSION,
    Close,
    FromNode,
    Happened,
    Hello,
    Report,
    Reports,
)
from .session_protocol import LiveSession, Refusal
from .sessions import Sessions, install

log = structlog.get_logger(__name__)

HELLO_WITHIN = 5.0
_EXECUTION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CODES = {
    InvalidLabels: Close.MALFORMED,
    InvalidOffer: Close.MALFORMED,
    Removed: Close.REMOVED,
    Superseded: Close.FENCED,
    Fenced: Close.FENCED,
}


class NodeConsumer(AsyncWebsocketConsumer):  # type: ignore[misc] # Channels has no types
    """One link of one node."""

    sessions: Sessions
    connect_limits: ConnectLimits
    hello_within: float

    def __init__(
        self, sessions: Sessions, connect_limits: ConnectLimits, hello_within: float
    ) -> None:
        super().__init__()
        self.sessions, self.connect_limits = sessions, connect_limits
        self.hello_within = hello_within
        self._node: Node | None = None
        self._conversation: LiveSession | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    def as_asgi(cls, *, callbacks: Callbacks, hello_within: float = HELLO_WITHIN) -> Any:
        """The application: *callbacks* is where everything goes that nodes say."""
        sessions = Sessions(callbacks)
        install(sessions)
        application = super().as_asgi(
            sessions=sessions, connect_limits=ConnectLimits(), hello_within=hello_within
        )
        application.sessions = sessions
        return application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one link, one message after another.

        No channel layer and no look at database connections for each message: those cost more
        than the message itself.
        """
        self.scope, self.base_send = scope, send
        self.sessions.start()
        try:
            while True:
                await self.dispatch(await receive())
        except StopConsumer:
            pass
        finally:
            self._is_closed = True
            self._stop_waiting()
            if self._conversation is not None:
                await self.sessions.finish(self._conversation)

    async def dispatch(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "websocket.receive":
                await self.websocket_receive(message)
            case "websocket.connect":
                await self.connect()
            case "websocket.disconnect":
                raise StopConsumer

    # --- connecting ------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Accept a node that signs in; everybody else gets HTTP 403, a removed node its code."""
        headers = dict(self.scope["headers"])
        if b"origin" in headers:
            return await self._deny("a browser's request")
        scheme, _, credential = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "node" or not credential:
            return await self._deny("no node credential")
        credential = credential.strip()
        if not self.connect_limits.allows(credential, time.monotonic()):
            await self.accept(self._subprotocol())
            return await self._refuse(Close.SHUTTING_DOWN, "reconnecting too often: wait a second")
        try:
            self._node = await self.sessions.call(membership.authenticate, credential)
        except PASSING:
            await self.accept(self._subprotocol())
            return await self._refuse(Close.SHUTTING_DOWN, "the database is away: try again")
        except Removed as error:
            await self.accept(self._subprotocol())
            return await self._refuse(Close.REMOVED, str(error))
        if self._node is None:
            return await self._deny("an unknown or revoked credential")
        await self.accept(self._subprotocol())
        if self._subprotocol() is None:
            return await self._refuse(Close.UNSUPPORTED, f"only {SUBPROTOCOL} is spoken here")
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(self.hello_within, self._lose_patience)
        return None

    def _subprotocol(self) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in self.scope.get("subprotocols", ()) else None

    async def _deny(self, why: str) -> None:
        self.sessions.refusals[403] += 1
        log.warning("node denied", why=why, address=self._address())
        self._is_closed = True
        await self.close()

    def _lose_patience(self) -> None:
        sentence = f"no hello within {self.hello_within:g} seconds"
        task = asyncio.ensure_future(self._refuse(Close.NO_HELLO, sentence))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    # --- hearing ---------------------------------------------------------------------------------

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        """Take in one frame; whatever is wrong with it ends this link and harms nothing else."""
        if self._is_closed or self._node is None:
            return
        try:
            await self._hear(message.get("text"), message.get("bytes"))
        except codec.TooLarge as error:
            await self._refuse(Close.TOO_LARGE, str(error))
        except codec.Malformed as error:
            await self._refuse(Close.MALFORMED, str(error))
        except Refusal as refusal:
            await self._refuse(refusal.code, refusal.sentence)
        except PASSING as error:
            log.warning("hello waits", node=str(self._node.pk), error=str(error))
            await self._refuse(Close.SHUTTING_DOWN, "the database is away: try again")
        except NodesError as error:
            code = _CODES.get(type(error), Close.REFUSED)
            await self._refuse(code, str(error))
        except Exception:
            log.exception("a session failed", node=str(self._node.pk))
            await self._refuse(Close.SHUTTING_DOWN, "something went wrong here")

    async def _hear(self, text: str | None, data: bytes | None) -> None:
        conversation = self._conversation
        if text is None:
            chunk = codec.decode_chunk(data or b"")
            if conversation is None:
                raise Refusal(Close.MALFORMED, "the first message must be a hello")
            conversation.hear_chunk(chunk)
        else:
            message = _decode(text)
            if conversation is None:
                return await self._greet(message)
            await conversation.hear(message, time.monotonic())
        self.sessions.heard(conversation)
        return None

    async def _greet(self, message: FromNode) -> None:
        assert self._node is not None
        self._stop_waiting()
        if not isinstance(message, Hello):
            raise Refusal(Close.MALFORMED, "the first message must be a hello")
        if message.version != VERSION:
            sentence = f"version {message.version} is not spoken here, only {VERSION}"
            raise Refusal(Close.UNSUPPORTED, sentence)
        self._conversation = await self.sessions.begin(
            self._node.pk,
            message,
            send=self._say,
            close=self._refuse,
            address=settings.INTERNAL_URL or address_of(self.scope),
        )

    # --- ending ----------------------------------------------------------------------------------

    async def _say(self, text: str) -> None:
        if not self._is_closed:
            await self.send(text_data=text)

    async def _refuse(self, code: int, sentence: str) -> None:
        """Close the link with *code* and *sentence*; only the first time has an effect."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stop_waiting()
        if code != 1000:
            self.sessions.refusals[code] += 1
            log.warning(
                "node refused", node=self._id(), code=code, reason=sentence, address=self._address()
            )
        if self._conversation is not None:
            self._conversation.is_over = True
        # A close frame has room for 123 bytes of reason.
        await self.close(code, sentence.encode()[:123].decode(errors="ignore"))

    def _id(self) -> str | None:
        return None if self._node is None else str(self._node.pk)

    def _address(self) -> str:
        client = self.scope.get("client")
        return client[0] if client else ""


def _decode(text: str) -> FromNode:
    """The message in *text*, fit to be stored; raises Malformed or TooLarge."""
    message = codec.decode_from_node(text)
    if "\\u0000" in text:
        message = _without_nul(message)
    if isinstance(message, Reports | Hello):
        named = message.items if isinstance(message, Reports) else message.holds
        for it in named:
            if not _EXECUTION.fullmatch(it.execution):
                raise codec.Malformed(f"{it.execution[:64]!r} is not the id of an execution")
    if isinstance(message, Reports):
        return msgspec.structs.replace(message, items=tuple(map(_credible, message.items)))
    return message


def _credible(report: Report) -> Report:
    """*report*, or that nobody knows how it ended: nothing completes but with exit code 0."""
    if report.happened is not Happened.COMPLETE or report.exit_code == 0:
        return report
    code = "none" if report.exit_code is None else report.exit_code
    return msgspec.structs.replace(
        report,
        happened=Happened.FAIL,
        code=UNKNOWN_OUTCOME,
        message=f"the node says that it completed, and its exit code is {code}",
    )


def _without_nul(message: FromNode) -> FromNode:
    """PostgreSQL's texts hold every character but NUL."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("\0", "\ufffd")
        if isinstance(value, list | tuple):
            return [clean(it) for it in value]
        if isinstance(value, dict):
            return {clean(key): clean(it) for key, it in value.items()}
        return value

    cleaned = clean(msgspec.to_builtins(message))
    return msgspec.convert(cleaned, type(message), strict=False)
