"""Text of the server made harmless for a terminal: no escapes, no control, no reordering."""

from __future__ import annotations

import codecs
import re

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, clearing
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS …
    r"|\x1b[ -/]*[0-~]"  # everything shorter
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]|[\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_UNFINISHED = re.compile(
    r"(?:\x1b|\x1b\[[0-?]*[ -/]*|\x9b[0-?]*[ -/]*|\x1b[ -/]+"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*\x1b?)\Z"
)
#: A sequence that does not end within so many characters is not waited for.
LONGEST_ESCAPE = 4096


def line(text: object) -> str:
    """*text* on one line, with nothing in it that a terminal obeys."""
    return block(str(text)).replace("\n", " ").replace("\t", " ")


def block(text: str) -> str:
    """*text* with its lines and tabs, and nothing else that a terminal obeys."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


class Stream:
    """Makes a stream of bytes harmless, wherever it is cut into pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> str:
        text = self._rest + self._decoder.decode(data)
        begun = _UNFINISHED.search(text, max(0, len(text) - LONGEST_ESCAPE))
        self._rest = text[begun.start() :] if begun else ""
        return block(text[: begun.start()] if begun else text)
