"""What every test may ask for."""

import shutil
import time
from collections.abc import Callable

import pytest

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; a test that asks for it is skipped where none is installed."""
    found = find_chromium()
    if found is None:
        pytest.skip(f"no Chromium is installed (looked for {', '.join(CHROMIUMS)})")
    return found


@pytest.fixture
def eventually() -> Callable[..., object]:
    """Wait until a question has a true answer, and return that answer."""

    def wait(question: Callable[[], object], *, within: float = 20.0, say: str = "") -> object:
        deadline = time.monotonic() + within
        while not (answer := question()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within:g} s: {say or question}")
            time.sleep(0.02)
        return answer

    return wait
