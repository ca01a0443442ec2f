"""What every test may ask for."""

import shutil
import time
from collections.abc import Callable, Iterator

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


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """Let go of the test database before it is dropped: hints have a connection of their own."""
    from nodes import hints

    yield
    hints.close()


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
