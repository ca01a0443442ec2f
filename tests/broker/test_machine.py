"""The queue against a model of it, in any order of events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nodes.models import Node
from nodes.protocol.resources import Resources
from orchestrator import broker
from orchestrator.explain.reasons import NoRoom
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerRow, BrokerTrigger, Evaluation
from orchestrator.scheduling.plan import Blocked
from tests import rows

JOBS = st.integers(0, 2)
LONG = timedelta(hours=1)
NEVER_CHANGED = f"{2**62 + 3}:{2**62 + 3}:"


@dataclass
class Asked:
    """What the model knows of one job; counts are of asks, in the order in which they came."""

    asked: int = 0
    answered: int = 0
    lease: broker.Lease | None = None
    covers: int = 0
    is_quiet: bool = field(default=False)  # Waits for time or room, or is parked: not ready.
    is_blocked: bool = False
    failures: int = 0

    @property
    def is_ready(self) -> bool:
        return self.lease is None and self.asked > self.answered and not self.is_quiet


class QueueMachine(RuleBasedStateMachine):
    """Every ask is answered by an evaluation that began after it; one evaluation a job at once."""

    @initialize(priorities=st.tuples(*[st.integers(1, 3)] * 3))
    def begin(self, priorities):
        self.savepoint = transaction.savepoint()
        self.jobs = [rows.job(priority=priority) for priority in priorities]
        self.model = {job.pk: Asked() for job in self.jobs}
        self.stale: list[broker.Lease] = []

    def teardown(self):
        if not hasattr(self, "savepoint"):
            return
        try:
            self.everything_is_answered_in_the_end()
        finally:
            transaction.savepoint_rollback(self.savepoint)

    def everything_is_answered_in_the_end(self):
        broker.give_back(["w"])
        for _ in range(50):
            self.time_passes()
            leases = broker.lease(None, 64, "last")
            if not leases:
                break
            for lease in leases:
                self.model[lease.job].covers = self.model[lease.job].asked
                self.finish(lease)
                self.model[lease.job].answered = self.model[lease.job].covers
        parked = set(
            BrokerRow.objects.filter(dead_letter__isnull=False).values_list("pk", flat=True)
        )
        for job, model in self.model.items():
            assert job in parked or model.answered == model.asked
        assert not BrokerTrigger.objects.exists()
        assert not Evaluation.objects.filter(state="leased").exists()

    # --- what happens ----------------------------------------------------------------------

    @rule(which=JOBS, trigger=st.sampled_from([Trigger.JOB_UPDATE, Trigger.EXECUTION_UPDATE]))
    def somebody_asks(self, which, trigger):
        job = self.jobs[which].pk
        broker.enqueue(job, trigger)
        model = self.model[job]
        model.asked += 1
        backs_off = model.failures and trigger is Trigger.EXECUTION_UPDATE
        is_parked = BrokerRow.objects.filter(pk=job, dead_letter__isnull=False).exists()
        if model.lease is None and (is_parked or not backs_off):
            model.is_quiet, model.is_blocked, model.failures = False, False, 0
        broker.fold()

    @rule(limit=st.integers(1, 3))
    def a_worker_leases(self, limit):
        ready = {job for job, model in self.model.items() if model.is_ready}
        leases = broker.lease(None, limit, "w")
        assert {one.job for one in leases} <= ready
        assert bool(leases) == bool(ready)
        urgent = max((self.priority(job) for job in ready), default=0)
        if leases and all(not self.model[job].failures for job in ready):
            assert self.priority(leases[0].job) == urgent
            assert len(leases) == min(limit, len(ready))
        for lease in leases:
            model = self.model[lease.job]
            assert model.lease is None
            assert lease.delivery == model.failures + 1
            model.lease, model.covers = lease, model.asked

    @precondition(lambda self: self.leased())
    @rule(data=st.data(), how=st.sampled_from(["done", "part", "ended", "later", "blocked"]))
    def a_plan_is_committed(self, data, how):
        lease = data.draw(st.sampled_from(self.leased()))
        model = self.model[lease.job]
        self.finish(lease, how)
        model.lease, model.failures = None, 0
        if how == "part":
            return
        model.answered = model.covers
        model.is_quiet = how in ("later", "blocked") and model.asked == model.answered
        model.is_blocked = model.is_quiet and how == "blocked"
        if model.is_quiet and not model.is_blocked:
            model.asked += 1  # Time itself will ask.

    @rule(cores=st.integers(1, 3), noted=st.booleans())
    def there_is_room(self, cores, noted):
        node = rows.node(cpu=cores)
        if noted:
            broker.capacity_freed([node.pk])
            broker.fold()
        else:
            assert broker.unblock() == 0
            broker.unblock_overlooked()
        Node.objects.filter(pk=node.pk).update(eligible=False)
        blocked = [job for job, model in self.model.items() if model.is_blocked]
        still = BrokerRow.objects.filter(blocked_on__isnull=False).values_list("pk", flat=True)
        woken = set(blocked) - set(still)
        urgent = sorted((self.priority(job) for job in blocked), reverse=True)[:cores]
        assert sorted((self.priority(job) for job in woken), reverse=True) == urgent
        for job in woken:
            model = self.model[job]
            model.asked += 1
            model.is_quiet = model.is_blocked = False

    @precondition(lambda self: self.leased())
    @rule(data=st.data())
    def an_evaluation_fails(self, data):
        lease = data.draw(st.sampled_from(self.leased()))
        assert broker.nack(lease, "poison")
        model = self.model[lease.job]
        model.lease, model.is_quiet = None, True
        model.failures += 1
        self.no_time_passes()

    @precondition(lambda self: self.leased())
    @rule(died=st.booleans())
    def workers_are_gone(self, died):
        leases = self.leased()
        if died:
            assert broker.give_back(["w"]) == len(leases)
        else:
            BrokerRow.objects.filter(leased_until__isnull=False).update(
                leased_until=timezone.now() - LONG
            )
            assert broker.sweep() == len(leases)
        for lease in leases:
            self.stale.append(lease)
            model = self.model[lease.job]
            model.failures += 1
            model.lease, model.is_quiet = None, model.failures > 1
        self.no_time_passes()

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def a_ghost_comes_back(self, data):
        lease = data.draw(st.sampled_from(self.stale))
        assert broker.hold([lease]) == set()
        assert not broker.nack(lease, "a ghost")

    @rule()
    def time_passes(self):
        BrokerRow.objects.filter(not_before__isnull=False).update(not_before=timezone.now() - LONG)
        broker.fold()
        for job, model in self.model.items():
            row = BrokerRow.objects.filter(pk=job).first()
            is_parked = row is not None and row.dead_letter is not None
            model.is_quiet = model.is_quiet and (is_parked or model.is_blocked)

    def no_time_passes(self):
        """A pause of a second is over sooner than a slow machine is at its next step."""
        BrokerRow.objects.filter(not_before__isnull=False).update(not_before=timezone.now() + LONG)

    # --- what holds ------------------------------------------------------------------------

    @invariant()
    def rows_are_as_the_model_says(self):
        if not hasattr(self, "model"):
            return
        found = {row.pk: row for row in BrokerRow.objects.all()}
        for job, model in self.model.items():
            row = found.get(job)
            if row is None:
                assert model.asked == model.answered
                assert model.lease is None
                continue
            assert (row.leased_want is not None) == (model.lease is not None)
            is_ready = (
                row.want > row.done
                and row.leased_want is None
                and row.not_before is None
                and row.dead_letter is None
                and row.blocked_on is None
            )
            assert is_ready == model.is_ready
            assert row.deliveries == model.failures + (model.lease is not None)

    def leased(self):
        return [model.lease for model in self.model.values() if model.lease is not None]

    def priority(self, job):
        return next(it.priority for it in self.jobs if it.pk == job)

    @staticmethod
    def finish(lease, how="done"):
        blocked = Blocked(Resources(cpu=1), 1, NoRoom(1)) if how == "blocked" else None
        later = ((timezone.now() + LONG, Trigger.RETRY),) if how == "later" else ()
        assert broker.hold([lease]) == {lease}
        broker.ack(
            [
                broker.Result(
                    lease,
                    complete=how != "part",
                    ended=how == "ended",
                    blocked=blocked,
                    followups=later,
                    revision=NEVER_CHANGED,
                )
            ]
        )


@pytest.mark.django_db
def test_the_queue_keeps_its_promises_in_any_order_of_events():
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
