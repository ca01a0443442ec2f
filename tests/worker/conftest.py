"""A worker of the test's own."""

from collections.abc import Iterator

import pytest

from orchestrator.worker import Worker
from orchestrator.worker.worker_id import WorkerId


@pytest.fixture
def evaluator() -> Iterator[Worker]:
    it = Worker(WorkerId.mine())
    yield it
    it.heartbeat.end()
