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
    """Keep the row of cluster settings, which is there from the start, through every flush."""
    from django.db.models.signals import post_migrate

    from nodes import hints
    from orchestrator.models import ClusterSetting

    def keep(**_: object) -> None:
        ClusterSetting.objects.get_or_create(pk=1)

    post_migrate.connect(keep)  # A flush sends it, too.
    yield
    hints.close()  # Or the test database could not be dropped.
    post_migrate.disconnect(keep)


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
