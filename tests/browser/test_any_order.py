"""After whatever somebody does, and whatever happens beneath, an open page equals a fresh one.

`MUSTER_EXAMPLES=500 pytest tests/browser/test_any_order.py` tries more, each time others.
"""

import os
import re
import time
from contextlib import suppress
from datetime import timedelta

import playwright.sync_api as playwright
import pytest
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nodes import hints
from nodes.models import Node
from orchestrator.lifecycle import Observed
from orchestrator.models import (
    Evaluation,
    Event,
    ExecutionOutput,
    Job,
    WorkerProcess,
)  # fmt: skip
from tests import rows
from tests.browser.comparing import shows_what_its_address_gives
from tests.dashboard import scenes
from tests.dashboard.test_queries import executions_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]

MORE = int(os.environ.get("MUSTER_EXAMPLES", "0"))

SECONDS = 20.0
"""After so many no other example is begun, where no number was asked for."""

TRIED = settings(
    max_examples=MORE or 20,
    derandomize=not MORE,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink) if MORE else (Phase.generate,),
    suppress_health_check=list(HealthCheck),
)

PAGES = (
    *("/", "/jobs/", "/jobs/?state=failed", "/jobs/?text=j-&state=pending", "/jobs/?text=j-%2A,~"),
    *("/jobs/{job}/", "/jobs/word-count/?slot=3", "/jobs/{job}/definition/", "/executions/{it}/"),
    *("/nodes/", "/nodes/?text=c-0", "/nodes/c-01/", "/queue/", "/queue/?state=dead"),
    *("/queue/?state=blocked", "/evaluations/{evaluation}/"),
)


class World:
    """What there is, and how it changes; the verbs of people go the way of people."""

    def __init__(self, operator):
        self.operator = operator
        scene = scenes.scene()
        hour = timedelta(hours=1)
        for row in WorkerProcess.objects.all():  # Nothing here may change by the clock alone.
            WorkerProcess.objects.filter(pk=row.pk).update(seen_at=row.seen_at + hour)
        for row in Evaluation.objects.exclude(finished_at=None):
            Evaluation.objects.filter(pk=row.pk).update(finished_at=row.finished_at - hour)
        Job.objects.bulk_create(Job(name=f"j-{n:02d}", type="batch") for n in range(55))
        self.job, self.node = scene["running"], scene["nodes"][0]
        executions_of(scene["large"], self.node, 60)
        self.execution = rows.execution(self.job, self.node, slot=3, attempt=9)
        self.large = scene["large"]
        self.evaluation = Evaluation.objects.filter(record__isnull=False).get()

    def address(self, pattern):
        return pattern.format(
            job=self.large.pk, it=self.execution.pk, evaluation=self.evaluation.pk
        )

    def a_job_comes(self):
        rows.job()
        hints.after_commit(hints.Hint.VIEW)

    def jobs_change(self):
        for job in Job.objects.filter(name__startswith="j-").order_by("name")[:3]:
            state = {"pending": "queued", "queued": "running", "running": "failed"}
            after = state.get(job.state, job.state)
            Job.objects.filter(pk=job.pk).update(state=after, reason=f"changed from {job.state}")
        hints.after_commit(hints.Hint.VIEW)

    def an_execution_moves(self):
        way = (Observed.ASK_FOR_BID, Observed.RUNNING, Observed.COMPLETED)
        self.execution.refresh_from_db()
        after = next((it for it in way if way.index(it) > self._place(way)), None)
        if after is None:
            attempt = self.execution.attempt + 1
            self.execution = rows.execution(self.job, self.node, slot=3, attempt=attempt)
        else:
            rows.move(self.execution, after)
        if after is Observed.COMPLETED:
            ExecutionOutput.objects.create(execution=self.execution, stdout="done\n", stdout_size=5)
        hints.after_commit(hints.Hint.VIEW)

    def _place(self, way):
        return way.index(self.execution.observed) if self.execution.observed in way else -1

    def a_job_is_blocked(self):
        rows.blocked(Job.objects.filter(blocked=None, state="pending").order_by("name")[0])
        hints.after_commit(hints.Hint.VIEW)

    def a_job_is_evaluated(self):
        Evaluation.objects.create(
            job=self.large, type="batch", priority=50, outcome="placed 2", state="complete"
        )
        Event.objects.create(topic="job", what="placed", message="2 placed", job_id=self.large.pk)
        hints.after_commit(hints.Hint.VIEW)

    def somebody_drains_a_node(self):
        self.node.refresh_from_db()
        self._act(f"/nodes/{self.node.pk}/{'undrain' if self.node.draining else 'drain'}")

    def a_node_comes_and_is_approved(self):
        waits = Node.objects.filter(approval="pending").first()
        if waits is None:
            rows.node(approval="pending")
            hints.after_commit(hints.Hint.VIEW)
        else:
            self._act(f"/nodes/{waits.pk}/approve")

    def somebody_pauses(self):
        self._act("/queue/pause", reason="a look at the disks")

    def somebody_resumes(self):
        self._act("/queue/resume")

    def somebody_stops_a_job(self):
        job = Job.objects.filter(stop_requested=False, state="pending").order_by("name")[0]
        self._act(f"/jobs/{job.pk}/stop", reason="no longer wanted")

    def _act(self, address, **form):
        answer = self.operator.post(address, form, headers={"X-Requested-With": "muster"})
        assert answer.status_code == 200, answer.content


CHANGES = (
    *("a_job_comes", "jobs_change", "an_execution_moves", "a_job_is_blocked", "a_job_is_evaluated"),
    *("somebody_drains_a_node", "a_node_comes_and_is_approved", "somebody_stops_a_job"),
    *("somebody_pauses", "somebody_resumes"),
)


class Wire:
    """What lies between a page and its server: sockets may be cut, an answer may be late."""

    def __init__(self, page):
        self.sockets, self.held, self.holds, self.refused = [], [], False, 0
        page.route_web_socket(re.compile("/ws/live/"), self._connect)
        page.route(re.compile("regions="), self._look)

    def cut(self, refused):
        self.refused = refused
        for socket in self.sockets:
            socket.close()
        self.sockets.clear()

    def release(self):
        self.holds = False
        for route in self.held:
            self._go_on(route)
        self.held.clear()

    def _connect(self, socket):
        if self.refused:
            self.refused -= 1
            socket.close()
            return
        socket.connect_to_server()
        self.sockets.append(socket)

    def _look(self, route):
        if self.holds:
            self.held.append(route)
        else:
            self._go_on(route)

    @staticmethod
    def _go_on(route):
        with suppress(playwright.Error):  # The page that asked has gone.
            route.continue_()


class OpenPage:
    """Somebody at a page, in a cluster that goes on."""

    def __init__(self, page, world, wire):
        self.page, self.world, self.wire = page, world, wire

    def visit(self, pattern):
        self.page.goto(self.world.address(pattern), wait_until="domcontentloaded")

    def change(self, what):
        getattr(self.world, what)()

    def type_a_filter(self, text):
        box = self.page.locator("[name=text]")
        if box.count():
            box.fill(text)

    def choose_a_state(self, state):
        choice = self.page.locator(".filter .choices").get_by_text(state, exact=True)
        if choice.count():
            choice.click()

    def follow_a_link(self, name):
        link = self.page.get_by_role("link", name=name, exact=True)
        if link.count():
            with self.page.expect_navigation(wait_until="domcontentloaded"):
                link.first.click()

    def go_back(self):
        self.page.go_back(wait_until="domcontentloaded")
        if self.page.url == "about:blank":  # Before the first of all.
            self.go_forward()

    def go_forward(self):
        self.page.go_forward(wait_until="domcontentloaded")

    def skip_to_the_content(self):
        self.page.evaluate("location.hash = 'main'")

    def look_now(self):
        self.page.locator("#pill").click()

    def lose_the_socket(self, refused):
        self.wire.cut(refused)

    def answers_are_late(self):
        self.wire.holds = True

    def answers_come(self):
        self.wire.release()

    def equals_a_fresh_page(self):
        self.wire.release()
        shows_what_its_address_gives(self.page)


def step(name, *arguments):
    return st.tuples(st.just(name), *(st.sampled_from(them) for them in arguments))


STEPS = st.one_of(
    step("visit", PAGES),
    step("visit", PAGES[1:5]),  # Lists, where there is more to do.
    step("change", CHANGES),
    step("change", CHANGES),
    step("type_a_filter", ["", "j-", "j-1", "c-0", "a*~ b"]),
    step("choose_a_state", ["all", "pending", "failed"]),
    step("follow_a_link", ["Older", "Newest", "Jobs", "Nodes"]),
    step("lose_the_socket", [0, 1]),
    *map(step, ("go_back", "go_forward", "skip_to_the_content", "look_now")),
    *map(step, ("answers_are_late", "answers_come", "equals_a_fresh_page")),
)


@pytest.fixture
def operator(page):
    """The one whose page is open, acting elsewhere."""
    client = Client(headers={"host": "localhost"})
    client.cookies.load({it["name"]: it["value"] for it in page.context.cookies()})
    return client


def test_an_open_page_equals_a_fresh_one_after_anything_in_any_order(page, operator):
    shown = OpenPage(page, World(operator), Wire(page))
    until = time.monotonic() + SECONDS

    @TRIED
    @given(st.lists(STEPS, min_size=4, max_size=14))
    def run(steps):
        if not MORE and time.monotonic() > until:
            return
        shown.visit("/jobs/")
        for name, *arguments in steps:
            getattr(shown, name)(*arguments)
        shown.equals_a_fresh_page()

    run()
    page.complaints.clear()  # Of sockets that were cut.
