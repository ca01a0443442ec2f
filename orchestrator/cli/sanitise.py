"""Text of the server made harmless for a terminal: no escapes, no control, no reordering."""

from __future__ import annotations

import codecs
import re

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, clearing
    r"|\x9b[0-?]*[ -/]*[@-~]"
    # OSC, DCS …: another opener ends the search, or many of them would each look to the end.
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"  # everything shorter
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]|[\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_UNFINISHED = re.compile(
    r"(?:\x1b|\x1b\[[0-?]*[ -/]*|\x9b[0-?]*[ -/]*|\x1b[ -/]+"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*\x1b?)\Z"
)
_HIDDEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
#: A sequence that does not end within so many characters is not waited for.
LONGEST_ESCAPE = 4096


def line(text: object) -> str:
    """*text* on one line, with nothing in it that a terminal obeys."""
    return block(str(text)).replace("\n", " ").replace("\t", " ")


def block(text: str) -> str:
    """*text* with its lines and tabs, and nothing else that a terminal obeys."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def is_hidden_in(text: str) -> bool:
    """Whether JSON or YAML that is *text* has something that a terminal obeys."""
    return _HIDDEN.search(text) is not None


def escaped(text: str) -> str:
    """The JSON *text* with that as the escapes that JSON has for it."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
