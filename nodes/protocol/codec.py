"""Messages to frames and back.  Every message of a test passes through here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from .messages import MAX_FRAME, FromNode, FromServer, LogChunk, Order

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_from_node: msgspec.json.Decoder[FromNode] = msgspec.json.Decoder(FromNode)
_from_server: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)
_chunks: msgspec.msgpack.Decoder[LogChunk] = msgspec.msgpack.Decoder(LogChunk)


class Malformed(Exception):
    """The peer sent a frame that is not a message: {detail}."""


class TooLarge(Exception):
    """A frame is larger than MAX_FRAME bytes allows."""


def encode(message: FromNode | FromServer) -> str:
    """One text frame; raises TooLarge rather than produce what the peer must refuse."""
    frame = _encoder.encode(message)
    if len(frame) > MAX_FRAME:
        raise TooLarge(f"{type(message).__name__} takes {len(frame)} bytes, limit {MAX_FRAME}")
    return frame.decode()


def encode_order(order: Order) -> bytes:
    """One order, as the text that a message may hold in its place."""
    return _encoder.encode(order)


def size(message: object) -> int:
    """How many bytes *message* takes on the wire."""
    return len(_encoder.encode(message))


def decode_from_node(frame: str | bytes) -> FromNode:
    """The message a node sent; raises Malformed or TooLarge."""
    return _decode(_from_node.decode, frame)


def decode_from_server(frame: str | bytes) -> FromServer:
    """The message the orchestrator sent; raises Malformed or TooLarge."""
    return _decode(_from_server.decode, frame)


def encode_chunk(chunk: LogChunk) -> bytes:
    """One binary frame; raises TooLarge."""
    frame = msgspec.msgpack.encode(chunk)
    if len(frame) > MAX_FRAME:
        raise TooLarge(f"a log chunk takes {len(frame)} bytes, limit {MAX_FRAME}")
    return frame


def decode_chunk(frame: bytes) -> LogChunk:
    """The log chunk in a binary frame; raises Malformed or TooLarge."""
    return _decode(_chunks.decode, frame)


def _decode(decode: Callable[[Any], T], frame: str | bytes) -> T:
    if len(frame) > MAX_FRAME:
        raise TooLarge(f"a frame of {len(frame)} bytes, limit {MAX_FRAME}")
    try:
        return decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(str(error)) from error
