"""Masks the values of secrets in what a task prints.  Part of the supervisor.

Standard library only; see ``spawner`` for how it is loaded.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = b"***"
#: What is shorter is no secret that could be told from ordinary output: a line of a longer one.
SHORTEST = 6


def patterns(values: Iterable[bytes]) -> list[bytes]:
    """What is to be masked: each value, and the lines of one that has several."""
    found = set()
    for value in values:
        found |= {it for it in (value, *value.splitlines()) if len(it) >= SHORTEST}
    return sorted(found)


class Mask:
    """Puts MASK in place of each secret in one stream, however it is cut into pieces.

    The end of a piece that may be the beginning of a secret is kept back until the next one.
    """

    def __init__(self, secrets: list[bytes]) -> None:
        self._secrets = secrets
        #: What is kept back, and how much of its beginning stands masked already.
        self._rest, self._covered = b"", 0

    def take(self, data: bytes) -> bytes:
        """What may be shown now of all that has come so far."""
        text = self._rest + data
        return self._shown(text, self._unfinished(text))

    def finish(self) -> bytes:
        """What was kept back; nothing follows."""
        return self._shown(self._rest, len(self._rest))

    def _shown(self, text: bytes, end: int) -> bytes:
        """*text* up to *end*, masked; the rest is kept."""
        shown, at = [], self._covered
        for begin, beyond in self._found(text):
            if begin >= end:
                break
            if begin >= at:
                shown += [text[at:begin], MASK]
            at = max(at, beyond)
        if at < end:
            shown.append(text[at:end])
            at = end
        self._rest, self._covered = text[end:], at - end
        return b"".join(shown)

    def _found(self, text: bytes) -> list[tuple[int, int]]:
        """Where secrets begin and end in *text*, those that overlap too."""
        found = []
        for secret in self._secrets:
            at = text.find(secret)
            while at >= 0:
                found.append((at, at + len(secret)))
                at = text.find(secret, at + 1)
        return sorted(found)

    def _unfinished(self, text: bytes) -> int:
        """Where the first secret may have begun whose end has not come yet."""
        first = len(text)
        for secret in self._secrets:
            at = text.find(secret[:1], max(0, len(text) - len(secret) + 1), first)
            while at >= 0 and not secret.startswith(text[at:]):
                at = text.find(secret[:1], at + 1, first)
            if at >= 0:
                first = at
        return first
