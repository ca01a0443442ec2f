"""The cluster of processes: any of them may be killed, nothing hangs, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from urllib.parse import quote

import psutil
import pytest
from django.conf import settings
from django.db import connection, connections

from nodes import hints
from orchestrator import broker
from orchestrator.lifecycle import Trigger
from orchestrator.models import BlockedJob, BrokerRow, Evaluation, Execution, WorkerProcess
from orchestrator.server import child_processes
from orchestrator.server.environment import HOME
from orchestrator.worker import Worker
from orchestrator.worker.evaluate import LARGEST
from orchestrator.worker.worker_id import WorkerId
from tests import rows

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

WORKERS = 2


class WorkerCommand:
    """`manage.py worker`, on the database of the tests."""

    def __init__(self, log):
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = child_processes.start(
                [sys.executable, "manage.py", "worker", "--workers", str(WORKERS)],
                environ={**os.environ, "DATABASE_URL": _url(), "MUSTER_ROLE": "worker"},
                output=log,
                directory=HOME,
            )

    def members(self):
        """Who there is, by role; empty while they are being born."""
        found: dict[str, list[psutil.Process]] = {}
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            (sentinel,) = parent.children() or [None]
            told = set(WorkerProcess.objects.values_list("pid", flat=True))
            children = [] if sentinel is None else sentinel.children()
            others = sorted((it for it in children if it.pid not in told), key=lambda it: it.pid)
            workers = [it for it in children if it.pid in told]
            if len(workers) == WORKERS and len(others) == 2:
                found = {"parent": [parent], "sentinel": [sentinel], "worker": workers}
                found |= dict(zip(("monitor", "pusher"), ([it] for it in others), strict=True))
        return found

    def family(self):
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def stop(self):
        child_processes.end(self.process, by=signal.SIGTERM, within=15)


def _url():
    """Where the test database is, for other processes."""
    here = connection.settings_dict
    who = quote(here["USER"], safe="") + (
        f":{quote(here['PASSWORD'], safe='')}" * bool(here["PASSWORD"])
    )
    port = f":{here['PORT']}" * bool(here["PORT"])
    return f"postgres://{who}@{quote(here['HOST'], safe='')}{port}/{here['NAME']}"


@pytest.fixture
def command(tmp_path, eventually):
    it = WorkerCommand(tmp_path / "worker.log")
    it.start()
    eventually(it.members, within=30, say=it.log.read_text)
    yield it
    it.stop()
    assert "Traceback" not in it.log.read_text()
    connections.close_all()


def ask(n=1):
    """Jobs for which there is no node: an evaluation ends with their being blocked."""
    jobs = [rows.job() for _ in range(n)]
    broker.enqueue([job.pk for job in jobs], Trigger.JOB_SUBMIT)
    return jobs


def left(jobs):
    """How many of *jobs* have not been evaluated."""
    ends = Evaluation.objects.filter(job__in=jobs, state__in=["blocked", "complete"])
    return len(jobs) - ends.values("job").distinct().count()


def answered(jobs):
    return not left(jobs)


@pytest.mark.parametrize("victim", ["worker", "pusher", "monitor", "sentinel"])
def test_an_idle_process_is_killed_and_work_goes_on(command, eventually, victim):
    first = ask()
    assert eventually(lambda: answered(first))
    before = command.members()
    killed = before[victim][0]
    killed.kill()
    jobs = ask(5)
    assert eventually(lambda: answered(jobs), within=15, say=command.log.read_text)
    assert eventually(
        lambda: (now := command.members()) and killed.pid not in {it.pid for it in now[victim]},
        within=15,
        say=command.log.read_text,
    )
    more = ask(5)
    assert eventually(lambda: answered(more), within=15, say=command.log.read_text)


def test_all_idle_workers_are_killed_at_once_and_work_goes_on(command, eventually):
    for it in command.members()["worker"]:
        it.kill()
    jobs = ask(5)
    assert eventually(lambda: answered(jobs), within=15, say=command.log.read_text)


@pytest.mark.parametrize("victim", ["worker", "pusher", "monitor", "sentinel", "parent"])
def test_a_process_is_killed_in_the_middle_of_work(command, eventually, victim):
    members, family = command.members(), command.family()
    jobs = ask(400)
    assert eventually(lambda: Evaluation.objects.count() > 50)
    members[victim][0].kill()
    if victim == "parent":
        assert eventually(lambda: not _living(family), within=10, say="nobody stays behind")
        command.process.wait()
        command.start()
    assert eventually(lambda: answered(jobs), within=30, say=command.log.read_text)
    assert eventually(lambda: not broker.leaseholders(), within=15)
    assert not BrokerRow.objects.exists()


def _living(family):
    return [it for it in family if it.is_running() and it.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_every_connection_is_cut_and_work_goes_on(command, eventually, busy):
    jobs = ask(300 if busy else 1)
    assert eventually(Evaluation.objects.exists)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert cursor.fetchone()[0] >= 4 + 2 * WORKERS
    hints.close()
    jobs += ask(5)
    assert eventually(lambda: answered(jobs), within=30, say=command.log.read_text)
    assert "reincarnated" not in command.log.read_text(), "nobody died of it"


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_it_stops_soon_and_leaves_nothing_behind(command, eventually, busy):
    family = command.family()
    if busy:
        ask(300)
        assert eventually(Evaluation.objects.exists)
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(5) == 0
    assert not _living(family)
    assert not WorkerProcess.objects.exists()
    assert not BrokerRow.objects.exists()


def test_a_worker_that_is_stopped_in_the_middle_of_work_keeps_nobody_from_theirs(
    command, eventually
):
    jobs = ask(400)
    assert eventually(lambda: Evaluation.objects.count() > 50)
    stopped = command.members()["worker"][0]
    stopped.send_signal(signal.SIGSTOP)
    try:
        more = ask(5)
        assert eventually(lambda: answered(more), within=20, say=command.log.read_text)
        assert eventually(lambda: left(jobs) <= LARGEST, within=20, say=command.log.read_text)
    finally:
        stopped.send_signal(signal.SIGCONT)
    assert eventually(lambda: answered(jobs), within=20, say=command.log.read_text)


def test_a_node_that_nobody_announced_is_used(tmp_path, eventually):
    it = WorkerCommand(tmp_path / "worker.log")
    (job,) = ask()
    Worker(WorkerId.mine()).pull()
    assert BlockedJob.objects.exists()
    rows.node()
    it.start()
    assert eventually(lambda: Execution.objects.filter(job=job).exists(), say=it.log.read_text)
    it.stop()
    connections.close_all()


def test_ordinary_tasks_of_django_q2_are_run_too(command, eventually):
    from django_q.models import OrmQ
    from django_q.tasks import async_task

    assert settings.Q_CLUSTER["save_limit"] == -1
    async_task("os.mkdir", str(command.log.parent / "made"))
    assert eventually((command.log.parent / "made").is_dir)
    assert eventually(lambda: not OrmQ.objects.exists(), say="it is acknowledged")
