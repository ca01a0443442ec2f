"""A database of an earlier release becomes one of today, with what is in it."""

import json
from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from orchestrator import broker, endpoint
from orchestrator.explain import reasons
from orchestrator.lifecycle import Desired, Observed, is_interruption
from orchestrator.models import (
    ApiToken,
    BrokerTrigger,
    Evaluation,
    Event,
    Execution,
    ExecutionHistory,
    Job,
    Namespace,
    RoleBinding,
    journal,
    spec_cache,
)
from orchestrator.scheduling.slot_set import flags
from tests import rows
from tests.invariants import violations

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def back_to_0_1():
    """Make the schema that of 0.1.0, with what is in it; today's is there again afterwards."""

    def migrate():
        for app in ("orchestrator", "nodes"):
            call_command("migrate", app, "0002_storage", verbosity=0)

    yield migrate
    call_command("migrate", verbosity=0)


def test_rows_of_before_are_kept_and_what_nobody_approved_is_stopped(back_to_0_1):
    job, node = rows.job(count=3), rows.node()
    over = rows.execution(job, node, observed=Observed.COMPLETED)
    Execution.objects.filter(pk=over.pk).update(settled=True)
    rows.execution(job, node, slot=1, observed=Observed.RUNNING)
    eager = rows.execution(job, node, slot=2)
    back_to_0_1()
    for observed, writer in (("bid_accepted", "compute-forwarder"), ("running", "endpoint")):
        Execution.objects.filter(pk=eager.pk).update(observed=observed, by_writer=writer)
    said = 'no node has the label "gpu"'
    with connection.cursor() as cursor:
        cursor.execute("UPDATE orchestrator_job SET reason = %s", [said])
    call_command("migrate", verbosity=0)
    assert reasons.load(Job.objects.get().reason) == (reasons.Said(said),)
    states = Execution.objects.order_by("slot").values_list("desired", "observed")
    assert list(states) == [
        ("stopped", "completed"),
        ("running", "running"),
        ("stopped", "running"),
    ]
    with connection.cursor() as cursor:
        assert violations(cursor) == []


def test_what_was_achieved_before_the_upgrade_counts_in_its_round_and_in_no_other():
    job = rows.job(count=4)
    call_command("migrate", "orchestrator", "0011_doors", verbosity=0)
    at = "2030-01-01T00:00:00+00:00"
    progress = {"completed": [[0, 1]], "attempts": {"2": 2}, "retry_at": {"2": at}}
    with connection.cursor() as cursor:
        cursor.execute("UPDATE orchestrator_job SET progress = %s", [json.dumps(progress)])
    call_command("migrate", verbosity=0)
    job.refresh_from_db()
    slots = list(job.slots.values_list(*spec_cache.SLOT))
    assert slots == [(2, 2, 2, datetime.fromisoformat(at), 0)]
    stored = spec_cache.load_progress(job.progress, slots)
    assert stored.carried(job.round, job.round_at) == stored
    assert flags(stored.completed, 4) == bytes([1, 1, 0, 0])
    assert (stored.failed_attempts, job.progress["tried"]) == ({2: 2}, 1)
    endpoint.rerun(job.pk, actor="user:ana")
    job.refresh_from_db()
    assert stored.carried(job.round, job.round_at).completed == b""


def test_a_namespace_of_before_has_its_own_journal_and_tokens_name_no_removed_one():
    user, hour = User.objects.create_user("ana"), timedelta(hours=1)
    Namespace.objects.create(pk="old")
    journal.record([journal.fact("secret", "put", "", namespace="old")])
    for name in ("anew", "gone"):
        endpoint.create_namespace(name, actor="user:ana")
        endpoint.delete_namespace(name, actor="user:ana")
    made = endpoint.create_namespace("anew", actor="user:ana")
    begin = Event.objects.filter(namespace="anew", what="namespace-create").latest("pk").pk
    limits = (["old"], ["gone"], ["gone", "old"], ["anew"], [])
    for number, names in enumerate(limits):
        ApiToken.objects.create(
            user=user, digest=f"{number}", namespaces=names, created_at=made.created_at - hour
        )
    ApiToken.objects.create(user=user, digest="new", namespaces=["anew"])
    call_command("migrate", "orchestrator", "0014_stop_causes", verbosity=0)
    call_command("migrate", verbosity=0)
    kept = {it.name: it.journal_from for it in Namespace.objects.exclude(pk="default")}
    assert kept == {"old": 0, "anew": begin - 1}
    found = ApiToken.objects.order_by("digest")
    assert [(it.namespaces, it.revoked_at is None) for it in found] == [
        (["old"], True),
        (["gone"], False),
        (["old"], True),
        (["anew"], False),
        ([], True),
        (["anew"], True),
    ]


def test_what_was_not_retried_when_it_was_lost_is_the_job_that_says_so_now():
    job = rows.job(name="once", retry={"attempts": 5})
    stored = job.versions.get().in_full(name="once")
    stored["retry"]["on"] = ["failed"]
    rows.version(job, stored)
    call_command("migrate", "orchestrator", "0011_doors", verbosity=0)
    call_command("migrate", verbosity=0)
    again = rows.job_spec(name="once", retry={"attempts": 5}, on_lost="fail")
    assert not endpoint.submit(again, actor="user:ana").changed


def test_why_executions_were_stopped_in_an_earlier_release_is_still_told():
    stopped = rows.execution(rows.job(), rows.node(), desired=Desired.STOPPED)
    call_command("migrate", "orchestrator", "0013_slots", verbosity=0)
    call_command("migrate", verbosity=0)
    stopped.refresh_from_db()
    last = ExecutionHistory.objects.filter(execution=stopped).latest("rev")
    assert (stopped.stop_cause, stopped.stop_detail) == ("earlier_release", "test")
    assert (last.cause, last.why) == ("", "test")


@pytest.mark.parametrize("lost", ["before", "after"])
def test_what_an_earlier_release_had_told_to_stop_is_not_interrupted(lost):
    """Nor what it had only asked for a bid."""
    job, node = rows.job(count=4), rows.node()
    rows.execution(job, node, slot=0, observed=Observed.RUNNING, desired=Desired.STOPPED)
    rows.execution(job, node, slot=1, observed=Observed.ASK_FOR_BID)
    rows.execution(job, node, slot=2, observed=Observed.RUNNING)
    rows.execution(job, node, slot=3, observed=Observed.COMPLETED)
    if lost == "before":
        rows.lose(node)
    call_command("migrate", "orchestrator", "0013_slots", verbosity=0)
    call_command("migrate", verbosity=0)
    if lost == "after":
        rows.lose(node)
    them = Execution.objects.order_by("slot")
    assert [
        (it.stop_cause, is_interruption(Observed(it.observed), it.stop_cause, it.code))
        for it in them
    ] == [
        ("earlier_release", False),
        ("bid_lost", False),
        ("" if lost == "before" else "node_lost", True),
        ("", False),
    ]


def test_whoever_could_do_something_before_there_were_roles_keeps_it():
    job = rows.job()
    call_command("migrate", "orchestrator", "0006_what_the_overview_asks_for", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orchestrator_event (topic, what, actor, message, job_id, data)"
            " VALUES ('job', 'submit', '', '', %s, '{}'), ('node', 'join', '', '', NULL, '{}')",
            [job.pk],
        )
    keepers = Group.objects.create(name="keepers")
    keepers.permissions.add(Permission.objects.get(codename="change_node"))
    for name, codename in (
        ("boss", "add_jointoken"),
        ("pauser", "change_clustersetting"),
        ("submitter", "change_job"),
        ("member", ""),
    ):
        user = User.objects.create_user(name)
        user.user_permissions.set(Permission.objects.filter(codename=codename))
    call_command("migrate", verbosity=0)
    given = RoleBinding.objects.values_list("user__username", "group__name", "namespace", "role")
    assert sorted(given, key=str) == sorted(
        [
            ("boss", None, None, "admin"),
            ("pauser", None, None, "operator"),
            ("submitter", None, "default", "operator"),
            ("submitter", None, None, "viewer"),
            ("member", None, None, "viewer"),
            (None, "keepers", None, "operator"),
        ],
        key=str,
    )
    assert set(Event.objects.values_list("topic", "namespace")) == {
        ("job", "default"),
        ("node", None),
    }


def test_every_job_of_the_queue_of_before_is_evaluated_and_comes_back_with_it():
    jobs = [
        rows.job(name=it)
        for it in ("asked", "ready", "leased", "later", "blocked", "dead", "quiet", "ended")
    ]
    asked, ready, leased, later, blocked, dead, quiet, ended = jobs
    Job.objects.filter(pk=ended.pk).update(state="completed")
    call_command("migrate", "orchestrator", "0017_live_executions", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orchestrator_brokertrigger (job_id, trigger, not_before)"
            " VALUES (%s, 'job-submit', now() + interval '1 hour')",
            [asked.pk],
        )
        cursor.execute(
            "INSERT INTO orchestrator_brokerrow (job_id, type, priority, want, done, token, worker,"
            " not_before_trigger, deliveries, blocked_class, triggers)"
            " SELECT id, type, priority, 1, 1, 1, '', '', 0, '', '{}' FROM orchestrator_job"
            " WHERE NOT id = ANY (%s)",
            [[asked.pk, ended.pk]],
        )
        for job, change in (
            (ready, "done = 0"),
            (leased, "done = 0, leased_want = 1, leased_until = now(), worker = 'w'"),
            (later, "not_before = now() + interval '1 hour'"),
            (blocked, "blocked_on = '{}'"),
            (dead, "done = 0, dead_letter = 'it broke'"),
        ):
            cursor.execute(
                f"UPDATE orchestrator_brokerrow SET {change} WHERE job_id = %s",
                [job.pk],
            )
            cursor.execute(
                "INSERT INTO orchestrator_evaluation (job_id, type, priority, state, triggers,"
                " token, delivery, worker, outcome, error)"
                " SELECT id, type, priority, %s, '{}', 1, 1, 'w', '', '' FROM orchestrator_job"
                " WHERE id = %s",
                ["leased" if job is leased else "waiting", job.pk],
            )
    call_command("migrate", verbosity=0)
    owed = {asked.pk, ready.pk, leased.pk, later.pk, blocked.pk, dead.pk}
    assert set(BrokerTrigger.objects.values_list("job", flat=True)) == owed
    assert not BrokerTrigger.objects.filter(since__gt=Now()).exists()
    states = dict(Evaluation.objects.values_list("job__name", "state"))
    assert states["leased"] == "cancelled"
    assert {states[name] for name in ("ready", "later", "blocked", "dead")} == {"complete"}
    assert Job.objects.get(pk=ended.pk).outcome == "completed"
    assert set(Job.objects.exclude(pk=ended.pk).values_list("outcome", flat=True)) == {None}
    (lease,) = broker.lease(None, 1, "w")
    rows.due(quiet, timezone.now())
    call_command("migrate", "orchestrator", "0017_live_executions", verbosity=0)
    call_command("migrate", verbosity=0)
    assert set(BrokerTrigger.objects.values_list("job", flat=True)) == {*owed, quiet.pk}
    assert lease.job in owed
