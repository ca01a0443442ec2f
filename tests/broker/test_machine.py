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
from orchestrator.broker.enqueue import BY_PEOPLE
from orchestrator.explain.reasons import NoRoom
from orchestrator.lifecycle import Trigger
from orchestrator.models import BlockedJob, BrokerDue, BrokerRow, BrokerTrigger
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
    starts_anew: bool = False  # A person, or anything new about what is parked, ended its failures.

    @property
    def has_failed(self) -> bool:
        return bool(self.failures) and not self.starts_anew

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
        assert not BrokerRow.objects.filter(leased_until__isnull=False).exists()
        assert not BlockedJob.objects.exclude(job__in=self.blocked()).exists()

    # --- what happens ----------------------------------------------------------------------

    @rule(which=JOBS, trigger=st.sampled_from([Trigger.JOB_UPDATE, Trigger.EXECUTION_UPDATE]))
    def somebody_asks(self, which, trigger):
        job = self.jobs[which].pk
        broker.enqueue(job, trigger)
        model = self.model[job]
        model.asked += 1
        backs_off = model.failures and trigger is Trigger.EXECUTION_UPDATE
        is_parked = BrokerRow.objects.filter(pk=job, dead_letter__isnull=False).exists()
        if is_parked or trigger in BY_PEOPLE:
            model.starts_anew = True
        if model.lease is None and (is_parked or not backs_off):
            model.is_quiet, model.is_blocked = False, False

    @rule(limit=st.integers(1, 3))
    def a_worker_leases(self, limit):
        ready = {job for job, model in self.model.items() if model.is_ready}
        asked = BrokerTrigger.objects.count()
        leases = broker.lease(None, limit, "w")
        assert {one.job for one in leases} <= ready
        assert bool(leases) == bool(ready)
        urgent = max((self.priority(job) for job in ready), default=0)
        if leases and not any(self.model[job].has_failed for job in ready):
            assert self.priority(leases[0].job) == urgent
            if asked <= 4 * limit:
                assert len(leases) == min(limit, len(ready))
        for lease in leases:
            model = self.model[lease.job]
            assert model.lease is None
            model.failures = model.failures if model.has_failed else 0
            assert lease.delivery == model.failures + 1
            model.lease, model.covers, model.starts_anew = lease, model.asked, False

    @precondition(lambda self: self.leased())
    @rule(data=st.data(), how=st.sampled_from(["done", "part", "later", "blocked"]))
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
            broker.catch_up()
        else:
            assert broker.unblock() == 0
            broker.unblock_overlooked()
        Node.objects.filter(pk=node.pk).update(eligible=False)
        blocked = self.blocked()
        # A row of what is asked for anyway goes with its lease, and may be woken in vain.
        still = BlockedJob.objects.values_list("pk", flat=True)
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
        model.failures += 1
        model.lease, model.is_quiet = None, not self.is_asked_for(lease.job)
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
            is_quiet = model.failures > 1 and not self.is_asked_for(lease.job)
            model.lease, model.is_quiet = None, is_quiet
        self.no_time_passes()

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def a_ghost_comes_back(self, data):
        lease = data.draw(st.sampled_from(self.stale))
        assert broker.hold([lease]) == set()
        assert not broker.nack(lease, "a ghost")

    @rule()
    def time_passes(self):
        BrokerDue.objects.update(at=timezone.now() - LONG)
        BrokerRow.objects.filter(retry_at__isnull=False).update(retry_at=timezone.now() - LONG)
        broker.catch_up()
        for job, model in self.model.items():
            row = BrokerRow.objects.filter(pk=job).first()
            is_parked = row is not None and row.dead_letter is not None
            model.is_quiet = model.is_quiet and (is_parked or model.is_blocked)

    def is_asked_for(self, job):
        """A person did while it was leased, or anybody of what is parked now: it need not wait."""
        model = self.model[job]
        if BrokerRow.objects.filter(pk=job, dead_letter__isnull=False).exists():
            model.starts_anew = model.starts_anew or model.asked > model.covers
        return model.starts_anew

    def no_time_passes(self):
        """A pause of a second is over sooner than a slow machine is at its next step."""
        BrokerDue.objects.update(at=timezone.now() + LONG)
        BrokerRow.objects.filter(retry_at__isnull=False).update(retry_at=timezone.now() + LONG)

    # --- what holds ------------------------------------------------------------------------

    @invariant()
    def rows_are_as_the_model_says(self):
        if not hasattr(self, "model"):
            return
        standing = broker.standing(self.model)
        for job, model in self.model.items():
            found = standing.get(job)
            state = found.state if found is not None else None
            assert (state == "leased") == (model.lease is not None)
            assert (state == "ready") == model.is_ready
            if state == "blocked":
                assert model.is_blocked
            if found is None:
                assert model.asked == model.answered
            elif model.lease is not None or model.failures:
                assert found.deliveries == model.failures + (model.lease is not None)

    def blocked(self):
        return [job for job, model in self.model.items() if model.is_blocked]

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
