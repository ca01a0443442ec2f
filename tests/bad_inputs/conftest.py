from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest

from tests.api.conftest import api, root
from tests.bad_inputs import harm

__all__ = ["api", "root"]


@pytest.fixture
def harmless(caplog) -> Callable[[], AbstractContextManager[Any]]:
    """Around bad input: nothing is stored, logged as ours, or slow."""
    return partial(harm.harmless, caplog)
