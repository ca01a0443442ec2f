"""How a variable of a task names a secret: ``secret://NAME``, and nothing else in it."""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "secret://"
#: What a node says of itself when its agent knows what to do with secrets.
ATTRIBUTE = "secrets"


def names(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of *env* that name a secret, with the names."""
    return {
        variable: value.removeprefix(PREFIX)
        for variable, value in env.items()
        if value.startswith(PREFIX)
    }
