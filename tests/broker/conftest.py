"""What tests of the queue share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from orchestrator import broker
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerDue, BrokerRow, Job
from tests import rows


class Queue:
    """The queue, as a test drives it."""

    def job(self, priority: int = 50, **differing: Any) -> Job:
        """A job that somebody has asked an evaluation of."""
        job = rows.job(priority=priority, **differing)
        broker.enqueue(job.pk, Trigger.JOB_SUBMIT)
        return job

    def jobs(self, n: int, **differing: Any) -> list[Job]:
        return [self.job(**differing) for _ in range(n)]

    def lease(self, limit: int = 64, worker: str = "w") -> list[broker.Lease]:
        return broker.lease(None, limit, worker)

    def one(self, worker: str = "w") -> broker.Lease:
        (lease,) = self.lease(1, worker)
        return lease

    def settle(self, *leases: broker.Lease, **result: Any) -> None:
        """Acknowledge, as the transaction of a plan would."""
        with transaction.atomic():
            if "blocked" in result:
                broker.lock_blocking()
            held = broker.hold(leases)
            broker.ack([broker.Result(lease=one, **result) for one in leases if one in held])

    def row(self, job: Job) -> BrokerRow:
        return BrokerRow.objects.get(job=job)

    def due(self, job: Job) -> datetime | None:
        """When it is looked at again, whatever happens."""
        return BrokerDue.objects.filter(job=job).values_list("at", flat=True).first()

    def stands(self, job: Job) -> broker.Standing | None:
        return broker.standing([job.pk]).get(job.pk)

    def let_time_pass(self) -> None:
        """Everything that waits for its moment has it now, and all leases are over."""
        BrokerDue.objects.update(at=Now())
        BrokerRow.objects.filter(retry_at__isnull=False).update(retry_at=Now())
        BrokerRow.objects.filter(leased_until__isnull=False).update(
            leased_until=Now() - timedelta(hours=1)
        )


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def at_once() -> Callable[..., list[Any]]:
    """Run functions at the same time, each on a connection of its own; their answers."""

    def run(functions: Sequence[Callable[[], Any]]) -> list[Any]:
        answers: list[Any] = [None] * len(functions)
        errors: list[BaseException] = []
        ready = threading.Barrier(len(functions))

        def one(place: int) -> None:
            try:
                ready.wait()
                answers[place] = functions[place]()
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=one, args=(place,)) for place in range(len(functions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "somebody hangs"
        if errors:
            raise errors[0]
        return answers

    return run
