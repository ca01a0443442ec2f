"""A real browser, and a real Daphne that serves the test database to it."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from typing import IO

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import expect, sync_playwright

from orchestrator.lifecycle import Observed
from orchestrator.models import Job
from tests import rows
from tests.served import free_port, start

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser(chromium, django_db_setup):
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright runs a loop in this thread, where the tests talk to the database.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Web:
    """A Daphne of these tests' own that serves the test database, at the same place each time."""

    def __init__(self, port: int, log: IO[bytes]) -> None:
        self._port, self._log = port, log
        self.address = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        self._process = start("--port", str(self._port), stdout=self._log, stderr=self._log)
        try:
            _await(self._port)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture(scope="module")
def web(tmp_path_factory, django_db_setup):
    with (tmp_path_factory.mktemp("web") / "web.log").open("wb") as log:
        web = Web(free_port(), log)
        yield web
        web.stop()


@pytest.fixture(scope="module")
def address(web):
    """Where the pages are served."""
    return web.address


@pytest.fixture
def page(browser, address):
    """A page of somebody who is signed in; fails if the browser had anything to complain of."""
    user = User.objects.create_superuser("ana", password="muster-ana-1")
    client = Client()
    client.force_login(user)
    context = browser.new_context(base_url=address)
    name = settings.SESSION_COOKIE_NAME
    context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": address}])
    context.set_default_timeout(15_000)
    expect.set_options(timeout=15_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.complaints = complaints
    yield page
    context.close()
    assert [text for text in complaints if "Security Policy" in text or "Error" in text] == []


@pytest.fixture
def running():
    """A job of two slots, one at work."""
    job = rows.job(name="word-count", count=2)
    execution = rows.execution(job, rows.node(name="c-01"), observed=Observed.RUNNING)
    Job.objects.filter(pk=job.pk).update(state="running", tally={"running": 1})
    return job, execution


def _await(port, within=90.0):
    """Return when something listens on *port*."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with closing(socket.socket()) as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
    pytest.fail(f"nothing listens on port {port} after {within:g} s")
