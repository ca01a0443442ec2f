"""Which row of the list of bad inputs is tried where; `test_rows.py` holds it against the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])

TRIED: set[int] = set()


def case(row: int, what: str, *values: Any) -> Any:
    """One variant of a *row*, as a parameter set of pytest."""
    TRIED.add(row)
    return pytest.param(*values, id=f"{row} {what}")


def tries(*rows: int) -> Callable[[Test], Test]:
    """A test that is, as a whole, a case of these *rows*."""
    TRIED.update(rows)
    return lambda test: test
