"""Any one process, killed with -9 in the middle of 200 running tasks, costs time and nothing else.

Every task proves its start with a file that it makes with O_EXCL: a second start of an execution
would fail it, whatever agents and database believe.
"""

import tempfile
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.victims import VICTIMS
from tests.chaos.work import JobSet, audit, audit_at_work

pytestmark = pytest.mark.processes

JOBS, SLOTS = 10, 20


@pytest.fixture(scope="module")
def cluster():
    with tempfile.TemporaryDirectory(prefix="muster-chaos-") as directory:
        with Cluster(Path(directory), agents=3, workers=2).running() as started:
            yield started


@pytest.mark.parametrize("victim", VICTIMS)
def test_whoever_is_killed_every_job_completes_and_nothing_runs_twice(cluster, victim):
    jobs = JobSet(cluster, victim.replace(" ", "-"))
    jobs.submit(jobs=JOBS, count=SLOTS, seconds=(1.5, 4))
    jobs.wait_until_running(JOBS * SLOTS * 9 // 10)
    VICTIMS[victim](cluster)
    audit_at_work(cluster)
    jobs.wait_until_completed(within=45)
    audit(cluster)
