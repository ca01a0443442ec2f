"""References to secrets, and what looks as if it should be one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nodes.protocol.secret_references import PREFIX, names

from .fields import NAME, mistake, mistakes

#: Characters of a value: what is shorter cannot be told from ordinary output, and so not masked.
SHORTEST, LONGEST = 6, 16 * 1024

_SECRET_NAME = re.compile(
    r"(password|passwd|passphrase|secret|token|api_?key|private_?key|access_?key|secret_?key"
    r"|credentials?)$|(^|_)pwd$|password(?!.*_(file|path|dir|length|policy|url)$)",
    re.IGNORECASE,
)
#: Each repetition that could begin anew at every character is bounded: time grows with the length.
_SECRET_VALUE = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{22,}"
    r"|\bglpat-[A-Za-z0-9_-]{20}"
    r"|\bxox[abeprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|\b[rs]k_live_[A-Za-z0-9]{16,}|\bsk-(ant-|proj-)?[A-Za-z0-9_-]{32,}"
    r"|\bAIza[A-Za-z0-9_-]{35}"  # Google
    r"|\beyJ[A-Za-z0-9_-]{8,1024}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"  # JWT
    r"|\b[ajn]t_[0-9a-f]{8}_[A-Za-z0-9_-]{20,}"  # Ours
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@]*:[^\s/@]{3,}@"  # A password in an address.
)
_NONE = re.compile(r"(true|false|yes|no|none|null|changeme|[0-9.]+|/.*|\$.*|\*+)?", re.IGNORECASE)


def checked_references(env: dict[str, str]) -> dict[str, str]:
    """*env*, in which whatever begins as a reference is one."""
    wrong = {
        variable: mistake(
            f"begins with {PREFIX}, and no name of a secret follows",
            f"Write {PREFIX}NAME; a name is 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and "
            "ending with a letter or digit.",
        )
        for variable, name in names(env).items()
        if NAME.fullmatch(name) is None
    }
    if wrong:
        raise mistakes(wrong)
    return env


def looks_secret(variable: str, value: str) -> bool:
    """Whether a variable with this name or value should rather be a secret."""
    if value.startswith(PREFIX) or len(value) < SHORTEST:
        return False
    if _SECRET_VALUE.search(value):
        return True
    return _SECRET_NAME.search(variable) is not None and _NONE.fullmatch(value) is None


def suspects(env: Mapping[str, str], command: tuple[str, ...]) -> Iterator[str]:
    """The paths within a task of what looks as if it should be a secret."""
    for variable, value in env.items():
        if looks_secret(variable, value):
            yield f"env.{variable}"
    for number, argument in enumerate(command):
        if _SECRET_VALUE.search(argument):
            yield f"command.{number}"
