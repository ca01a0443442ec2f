"""What nodes are selected by: labels that were given to them, and what they say of themselves.

Whom constraints trust is said by keys alone: what begins with ``node.`` is a node's own word, so
nothing that it says can pass for a label that an operator or a join token gave it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import InvalidLabels, ReservedLabel

#: What a node says of itself is found under this, and no label that is given begins so.
OWN = "node."
#: The registered name of a node is a label of it, which nobody gives.
NAME = "name"
KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
MOST_LABELS = 256
#: Of a value, for those who give it and for those who select by it.
LONGEST_VALUE = 256


def selectable(name: str, given: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Everything that a selector can ask of a node; *own* has its prefix already."""
    return {**own, **given, NAME: name}


def checked(labels: Mapping[str, str]) -> dict[str, str]:
    """*labels* as they are; raises InvalidLabels for what cannot be stored or selected by."""
    if len(labels) > MOST_LABELS:
        raise InvalidLabels(label="…", why=f"{len(labels)} labels are more than {MOST_LABELS}")
    for key, value in labels.items():
        if not KEY.fullmatch(key):
            raise InvalidLabels(label=key[:128], why="the key is not well-formed")
        if len(value) > LONGEST_VALUE or not (value.isprintable()):
            raise InvalidLabels(label=key, why="its value is too long or not printable")
    return dict(labels)


def given(labels: Mapping[str, str]) -> dict[str, str]:
    """*labels* that may be given to a node; raises InvalidLabels or ReservedLabel."""
    for key in checked(labels):
        if key == NAME or key.startswith(OWN):
            raise ReservedLabel(label=key)
    return dict(labels)


def own(said: Mapping[str, str]) -> dict[str, str]:
    """What a node *said* of itself, as it is stored and selected by; raises InvalidLabels."""
    return {f"{OWN}{key}": value for key, value in checked(said).items()}
