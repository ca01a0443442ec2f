"""What the database refuses, whoever writes."""

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from nodes import triggers as node_tables
from nodes.locks import Lock, lock_rows
from nodes.models import Node, NodeSession
from orchestrator import endpoint
from orchestrator.lifecycle import Desired, Observed
from orchestrator.models import (
    Event,
    Execution,
    ExecutionHistory,
    Job,
    JobVersion,
    LiveExecution,
    UntoldOrder,
    execution_moves,
    triggers,
)
from orchestrator.planners.transitions import Changes, lock_executions
from tests import rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def execution():
    return rows.execution(rows.job(), rows.node())


@pytest.fixture
def running():
    """A running execution of a job of two versions and two rounds, with a line in the journal."""
    job = rows.job()
    rows.version(job, {})
    Job.objects.update(round=2)
    Event.objects.create(topic="job", what="submit", message="somebody submits it")
    job.refresh_from_db()
    return rows.execution(job, rows.node(), observed=Observed.RUNNING)


@pytest.fixture
def over(running):
    """The same when it has ended, been accounted for, and given its resources back."""
    rows.move(running, Observed.COMPLETED)
    update(running, settled=True, reserved=False)
    return running


def update(execution, **columns):
    with transaction.atomic():
        return Execution.objects.filter(pk=execution.pk).update(**columns)


def run(statement, **values):
    """Carry *statement* out as psql would, and see what was put off until the commit."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, values)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def history(execution):
    return list(
        ExecutionHistory.objects.filter(execution=execution)
        .order_by("rev", "lane")
        .values_list("rev", "lane", "before", "after", "writer")
    )


# --- moves of executions ---------------------------------------------------------------------


def test_a_new_execution_has_its_first_two_lines_of_history(execution):
    assert history(execution) == [
        (1, "desired", "", "pending", "state-updater"),
        (1, "observed", "", "new", "state-updater"),
    ]


def test_a_change_that_does_not_say_who_makes_it_is_refused(execution):
    with pytest.raises(IntegrityError, match="must say who makes it"):
        update(execution, observed="ask_for_bid")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"observed": "completed", "by_writer": "endpoint"}, "cannot go from new to completed"),
        ({"observed": "ask_for_bid", "by_writer": "endpoint"}, "by the endpoint"),
        ({"desired": "running", "by_writer": "endpoint"}, "desired cannot go"),
        ({"observed": "bid_accepted", "by_writer": "compute-forwarder"}, "without_approval"),
        ({"settled": True}, "only_what_has_ended_is_settled"),
        ({"reserved": False}, "live_executions_hold_their_resources"),
    ],
)
def test_an_illegal_move_is_refused(execution, columns, sentence):
    with pytest.raises(IntegrityError, match=sentence):
        update(execution, **columns)


def test_the_end_closes_the_desired_lane_in_the_same_revision(execution):
    rows.move(execution, Observed.COMPLETED)
    last = [line for line in history(execution) if line[0] == execution.rev]
    assert last == [
        (execution.rev, "desired", "running", "stopped", "endpoint"),
        (execution.rev, "observed", "running", "completed", "endpoint"),
    ]
    assert (execution.desired, execution.ended_at is not None) == ("stopped", True)


def test_what_has_ended_stays_as_it_is(execution):
    rows.move(execution, Observed.COMPLETED)
    for after in ("running", "failed", "lost"):
        with pytest.raises(IntegrityError):
            update(execution, observed=after, by_writer="endpoint")


def test_desired_does_not_go_back(execution):
    rows.wish(execution, Desired.STOPPED)
    with pytest.raises(IntegrityError, match="desired cannot go"):
        update(execution, desired="running", by_writer="state-updater")


def test_what_was_stopped_is_accepted_only_if_it_was_approved_before(execution):
    rows.wish(execution, Desired.STOPPED)
    accepted = {"observed": "bid_accepted", "by_writer": "compute-forwarder"}
    with pytest.raises(IntegrityError, match="cannot be bid_accepted, nobody has approved it"):
        update(execution, **accepted)
    other = rows.execution(execution.job, rows.node(), slot=1)
    rows.wish(other, Desired.RUNNING)
    rows.wish(other, Desired.STOPPED)
    assert update(other, **accepted) == 1


def test_revisions_have_no_gap_and_writers_leave_nothing_behind(execution):
    rows.move(execution, Observed.RUNNING)
    revisions = sorted({rev for rev, *_ in history(execution)})
    assert revisions == list(range(1, execution.rev + 1))
    assert (execution.by_writer, execution.by_actor, execution.by_reason) == (None, None, None)


def test_a_slot_has_one_wanted_execution():
    job, node = rows.job(), rows.node()
    rows.execution(job, node, observed=Observed.RUNNING)
    with pytest.raises(IntegrityError, match="one_wanted_execution_per_slot"), transaction.atomic():
        rows.execution(job, node, observed=Observed.RUNNING)


def test_a_node_cannot_be_overcommitted():
    node = rows.node(cpu=100)
    with pytest.raises(IntegrityError, match="node_cpu_is_not_overcommitted"), transaction.atomic():
        type(node).objects.filter(pk=node.pk).update(allocated_cpu=101)


def test_a_job_cannot_leave_its_end_but_by_renewal():
    job = rows.job()
    type(job).objects.filter(pk=job.pk).update(state="completed")
    with pytest.raises(IntegrityError, match="state cannot go from completed to running"):
        with transaction.atomic():
            type(job).objects.filter(pk=job.pk).update(state="running")
    type(job).objects.filter(pk=job.pk).update(state="pending")
    job.refresh_from_db()
    assert job.ended_at is None


# --- beginnings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"by_writer": "endpoint"}, "only the state-updater creates"),
        ({"by_writer": None}, "only the state-updater creates executions, not nobody"),
        ({"observed": "running"}, "begins as new"),
        ({"desired": "stopped"}, "begins as new"),
        ({"told_rev": 1}, "begins as new and untold"),
        ({"started_at": "2026-01-01T00:00Z"}, "begins as new"),
        ({"ended_at": "2026-01-01T00:00Z"}, "ended_iff_terminal"),
        ({"reserved": False}, "live_executions_hold_their_resources"),
        ({"settled": True}, "only_what_has_ended_is_settled"),
        ({"slot": -1}, "execution_numbers_are_counted"),
        ({"attempt": 0}, "execution_numbers_are_counted"),
        ({"version": 0}, "execution_numbers_are_counted"),
        ({"round": 0}, "execution_numbers_are_counted"),
        ({"order_rev": 0}, "execution_numbers_are_counted"),
        ({"cpu": -1}, "execution_needs_are_not_negative"),
        ({"gpu": -1}, "execution_needs_are_not_negative"),
    ],
)
def test_an_execution_begins_as_the_state_updater_makes_it(columns, sentence):
    ordinary = {"version": 1, "slot": 0, "order_rev": 1, "by_writer": "state-updater"}
    job, node = rows.job(), rows.node()
    with pytest.raises(IntegrityError, match=sentence), transaction.atomic():
        Execution.objects.create(job=job, node=node, **{**ordinary, **columns})


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"state": "completed", "ended_at": "2026-01-01T00:00Z"}, "begins pending"),
        ({"state": "running"}, "begins pending"),
        ({"version": 2}, "in its first version"),
        ({"intent_rev": 2}, "in its first version"),
        ({"seen_intent": 1}, "in its first version"),
        ({"round": 7}, "in its first version, round"),
        ({"rev": 3}, "in its first version, round and revision"),
        ({"ended_at": "2026-01-01T00:00Z"}, "job_ended_iff_terminal"),
        ({"type": "nonsense"}, "job_type_is_known"),
        ({"count": -1}, "job_count_not_negative"),
        ({"priority": 0}, "job_priority_in_range"),
    ],
)
def test_a_job_begins_at_the_beginning(columns, sentence):
    with pytest.raises(IntegrityError, match=sentence), transaction.atomic():
        Job.objects.create(name="x", **{"type": "batch", **columns})


@pytest.mark.parametrize("columns", [{"order_rev": 1}, {"allocated_cpu": 1, "capacity_cpu": 2}])
def test_a_node_begins_without_orders_and_with_everything_free(columns):
    with pytest.raises(IntegrityError, match="no orders and nothing allocated"):
        with transaction.atomic():
            Node.objects.create(name="n", **columns)


# --- columns ---------------------------------------------------------------------------------

TABLES = (
    (Execution, execution_moves.EXECUTION),
    (ExecutionHistory, triggers.EXECUTION_HISTORY),
    (Job, triggers.JOB_COLUMNS),
    (JobVersion, triggers.JOB_VERSION),
    (Event, triggers.EVENT),
    (Node, node_tables.NODE),
    (NodeSession, node_tables.SESSION),
)
OTHER = {
    "uuid": "gen_random_uuid()",
    "bigint": "coalesce({0}, 0) + 1",
    "integer": "{0} + 1",
    "varchar": "'~' || substr(coalesce({0}, ''), 2)",
    "text": "'~' || substr({0}, 2)",
    "timestamp with time zone": "coalesce({0}, now()) + interval '1 day'",
    "jsonb": """'["other"]'""",
    "xid8": "'1'",
}
"""Another value than the one there is, by type."""


def columns(model):
    return {field.column: field for field in model._meta.concrete_fields if field.column}


def cases(*classes):
    return [
        pytest.param(model, name, id=f"{model.__name__}.{name}")
        for model, table in TABLES
        for group in classes
        for name in getattr(table, group)
    ]


@pytest.mark.parametrize(("model", "table"), TABLES, ids=lambda it: getattr(it, "__name__", ""))
def test_every_column_is_in_one_class_of_how_it_may_change(model, table):
    assert sorted(table.names()) == sorted(columns(model))


@pytest.mark.parametrize(("model", "name"), cases("fixed", "derived"))
def test_what_never_changes_cannot_be_changed(running, model, name):
    kind = columns(model)[name].db_type(connection).partition("(")[0]
    with pytest.raises(IntegrityError) as refused:
        run(f"UPDATE {model._meta.db_table} SET {name} = {OTHER[kind].format(name)}")
    assert refused.value.__cause__.diag.constraint_name is None, "only a constraint was in the way"


@pytest.mark.parametrize(("model", "name"), cases("rising"))
def test_what_only_rises_does_not_go_back(over, model, name):
    lower = "NOT {0}" if name == "settled" else "{0} - 1"
    with pytest.raises(IntegrityError, match="cannot go back"):
        run(f"UPDATE {model._meta.db_table} SET {name} = {lower.format(name)}")


def test_what_has_given_its_resources_back_does_not_hold_them_again(over):
    with pytest.raises(IntegrityError, match="reserved cannot go back, from f to t"):
        update(over, reserved=True)


@pytest.mark.parametrize(
    ("column", "value"), [("started_at", "NULL"), ("ended_at", "now() + interval '1 day'")]
)
def test_when_it_began_and_ended_is_not_said_anew(over, column, value):
    with pytest.raises(IntegrityError, match=f"{column} is written by the trigger alone"):
        run(f"UPDATE orchestrator_execution SET {column} = {value}")


def test_a_refusal_names_the_row_the_column_and_the_values(running):
    sentence = f"orchestrator_execution {running.pk}: slot never changes, from 0 to 1"
    with pytest.raises(IntegrityError, match=sentence):
        update(running, slot=1)


def test_a_frame_that_was_received_stays_received_until_the_next_epoch():
    session = NodeSession.objects.filter(node=rows.node())
    session.update(received=5)
    with pytest.raises(IntegrityError, match="cannot go back"), transaction.atomic():
        session.update(received=4)
    assert session.update(epoch=2, received=0) == 1


# --- what follows an execution -----------------------------------------------------------------


def live(execution):
    """What a living execution is looked up by: whether it is wanted, and whether it has a record.

    And which of its orders its node was not told.
    """
    found = LiveExecution.objects.filter(pk=execution.pk).values_list("is_wanted", "record")
    untold = UntoldOrder.objects.filter(execution=execution).values_list("rev", flat=True)
    return [(wanted, record and bool(record)) for wanted, record in found], list(untold)


def test_an_execution_is_looked_up_as_it_is_as_long_as_it_lives():
    it = rows.execution(rows.job(ask=1), rows.node())
    assert live(it) == ([(None, None)], [1])
    update(it, told_rev=1)
    assert live(it) == ([(None, None)], [])
    rows.move(it, Observed.ASK_FOR_BID_ACCEPTED)
    update(it, desired="running", order_rev=2, by_writer="state-updater")
    assert live(it) == ([(True, None)], [2])
    rows.move(it, Observed.RUNNING)
    update(it, desired="stopped", order_rev=3, by_writer="state-updater", stop_cause="drain")
    assert live(it) == ([(None, None)], [3])
    rows.move(it, Observed.CANCELLED)
    update(it, reserved=False, told_rev=3)
    assert live(it) == ([(None, None)], [])
    update(it, settled=True)
    assert live(it) == ([], [])


def test_what_is_settled_and_may_still_run_is_looked_up_until_it_holds_no_room():
    it = rows.execution(rows.job(), rows.node(), observed=Observed.LOST)
    update(it, settled=True)
    assert live(it)[0] == [(None, None)]
    update(it, reserved=False)
    assert live(it)[0] == []


def test_in_a_large_job_what_runs_as_it_was_told_has_a_record_and_nothing_else():
    it = rows.execution(rows.job(count=execution_moves.MANY), rows.node())
    assert live(it)[0] == [(None, None)]
    rows.move(it, Observed.RUNNING)
    assert live(it)[0] == [(True, True)]
    rows.wish(it, Desired.STOPPED)
    assert live(it)[0] == [(None, None)]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM orchestrator_liveexecution",
        "UPDATE orchestrator_liveexecution SET slot = 7",
        "INSERT INTO orchestrator_liveexecution SELECT gen_random_uuid(), slot, NULL, NULL, job_id,"
        " node_id FROM orchestrator_liveexecution",
        "DELETE FROM orchestrator_untoldorder",
        "UPDATE orchestrator_untoldorder SET rev = 7",
        "INSERT INTO orchestrator_untoldorder SELECT 7, execution_id, node_id"
        " FROM orchestrator_untoldorder",
    ],
)
def test_what_follows_an_execution_is_written_by_its_triggers_alone(execution, statement):
    with pytest.raises(IntegrityError, match="it follows the executions"):
        run(statement)


def test_no_index_of_executions_looks_at_what_changes():
    """Else each change would cost an entry in all of them, and leave a dead row behind."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.attname FROM pg_index i JOIN pg_depend d ON d.objid = i.indexrelid"
            " JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
            " WHERE i.indrelid = 'orchestrator_execution'::regclass"
        )
        looked_at = {name for (name,) in cursor.fetchall()}
    assert {"job_id", "node_id", "created_at"} <= looked_at
    assert looked_at <= set(execution_moves.EXECUTION.fixed)


def test_the_server_looks_up_no_node_for_each_execution():
    """While nothing can be vacuumed a node's row has thousands of versions."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT confrelid::regclass::text FROM pg_constraint"
            " WHERE contype = 'f' AND conrelid = 'orchestrator_execution'::regclass"
        )
        assert "nodes_node" not in {name for (name,) in cursor.fetchall()}


# --- what has been written for good ----------------------------------------------------------

FOR_GOOD = {
    "delete a live execution": (
        "DELETE FROM orchestrator_execution WHERE id = %(id)s",
        "holds resources of its node cannot be deleted",
    ),
    "rewrite its history": (
        "UPDATE orchestrator_executionhistory SET after = 'completed' WHERE execution_id = %(id)s",
        "neither changed nor deleted",
    ),
    "delete its history": (
        "DELETE FROM orchestrator_executionhistory WHERE execution_id = %(id)s",
        "neither changed nor deleted",
    ),
    "invent history": (
        "INSERT INTO orchestrator_executionhistory (execution_id, rev, lane, before, after,"
        " writer, actor, reason, at) VALUES (%(id)s, 99, 'observed', 'running', 'completed',"
        " 'nobody', '', '', now())",
        "written by the trigger of executions alone",
    ),
    "rewrite the journal": (
        "UPDATE orchestrator_event SET message = 'y'",
        "neither changed nor deleted",
    ),
    "delete from the journal": ("DELETE FROM orchestrator_event", "neither changed nor deleted"),
    "rewrite a version": ("UPDATE orchestrator_jobversion SET spec = '{}', digest = 'x'", "submit"),
    "delete a version": ("DELETE FROM orchestrator_jobversion", "deleted with its job"),
    "number a version zero": (
        "INSERT INTO orchestrator_jobversion (job_id, number, spec, digest, generation, actor)"
        " SELECT id, 0, '{}', '', '', '' FROM orchestrator_job",
        "version_numbers_are_counted",
    ),
    "see an intent that nobody has": (
        "UPDATE orchestrator_job SET seen_intent = intent_rev + 1",
        "job_numbers_are_counted",
    ),
}


@pytest.mark.parametrize("what", FOR_GOOD)
def test_the_database_refuses_to(what, running):
    statement, sentence = FOR_GOOD[what]
    with pytest.raises(IntegrityError, match=sentence):
        run(statement, id=running.pk)


def test_a_job_that_holds_nothing_is_deleted_whole(over):
    with transaction.atomic():
        for lock, key in ((Lock.QUEUE, "job_id"), (Lock.JOBS, "id")):
            lock_rows(lock, [over.job_id], key)
        over.job.delete()
    run("SELECT 1")
    assert not Execution.objects.exists()
    assert not JobVersion.objects.exists()
    assert ExecutionHistory.objects.filter(execution_id=over.pk).exists() is True


def test_a_user_with_the_longest_name_may_submit():
    user = User.objects.create(username="u" * 150)
    actor = f"user:{user.username}"
    job = endpoint.submit(rows.job_spec(), actor=actor, user=user).job
    assert JobVersion.objects.get(job=job).actor == actor
    assert Event.objects.get(job_id=job.pk).actor == actor


def test_who_submitted_a_version_may_be_deleted():
    user = User.objects.create(username="ana")
    job = endpoint.submit(rows.job_spec(), actor="user:ana", user=user).job
    user.delete()
    version = JobVersion.objects.get(job=job)
    assert (version.created_by, version.actor) == (None, "user:ana")


def test_what_people_want_is_numbered_and_how_it_stands_is_not():
    job = rows.job()

    def number(**columns):
        Job.objects.filter(pk=job.pk).update(**columns)
        job.refresh_from_db()
        return job.intent_rev

    assert number(tally={"running": 1}, reason=["x"], state="running", seen_intent=1) == 1
    assert number(priority=60) == 2
    assert number(priority=60) == 2
    assert number(labels={"a": "b"}, count=4) == 3
    assert number(stop_requested=True) == 4


@pytest.mark.parametrize("state", ["running", "completed", "failed", "stopped"])
def test_a_job_that_has_ended_is_pending_when_something_is_wanted_again(state):
    job = rows.job(state=state)
    Job.objects.filter(pk=job.pk).update(reason=["x"], tally={"completed": 1})
    Job.objects.filter(pk=job.pk).update(round_at=Now())
    job.refresh_from_db()
    goes_on = state == "running"
    assert job.state == ("running" if goes_on else "pending")
    assert job.reason == (["x"] if goes_on else [])
    assert (job.ended_at, job.tally) == (None, {"completed": 1})
    Job.objects.filter(pk=job.pk).update(round=2)
    job.refresh_from_db()
    assert job.tally == {}


def test_no_session_turns_a_trigger_off(running):
    triggers = [
        name
        for model in apps.get_models()
        for it in getattr(model._meta, "triggers", ())
        for name in (it.name, it.get_pgid(model), f"{model._meta.db_table}:{it.name}")
    ]
    assert len(triggers) > 20
    for statement in (
        "UPDATE orchestrator_jobversion SET actor = 'x'",
        "UPDATE orchestrator_event SET message = ''",
        "DELETE FROM orchestrator_executionhistory",
        "UPDATE orchestrator_execution SET slot = 99",
    ):
        off = f"SET LOCAL pgtrigger.ignore = '{{{','.join(triggers)}}}'"
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"{off}; {statement}")


class TestMovesThatAreWrittenAtOnce:
    """Nothing can be told from one after the other but by the times."""

    def wanted(self, desired=Desired.RUNNING):
        it = rows.execution(rows.job(), rows.node())
        if desired == Desired.RUNNING:
            rows.wish(it, Desired.RUNNING)
        return it

    def walk(self, *waves):
        it = self.wanted()
        for events in waves:
            changes = Changes()
            (locked,) = lock_executions([it.pk]).values()
            changes.follow(locked, events, reason="so")
            changes.write()
        history = ExecutionHistory.objects.filter(execution=it).order_by("rev", "lane", "at")
        seen = list(history.values_list("rev", "lane", "before", "after", "writer", "reason"))
        it.refresh_from_db()
        kept = {name: getattr(it, name) for name in ("rev", "desired", "observed", "by_steps")}
        return seen, kept, it

    def test_each_has_its_own_row_and_revision(self):
        way = ["accept", "start", "complete"]
        *one, it = self.walk(*([event] for event in way))
        *all_at_once, mine = self.walk(way)
        assert all_at_once == one
        assert all(execution.started_at < execution.ended_at for execution in (it, mine))
        assert live(mine)[0] == live(it)[0]

    def test_they_are_one_update(self):
        it = self.wanted()
        changes = Changes()
        (locked,) = lock_executions([it.pk]).values()
        changes.follow(locked, ["accept", "start", "complete"], reason="so")
        with CaptureQueriesContext(connection) as queries:
            changes.write()
        assert sum("SET observed = m.after" in it["sql"] for it in queries) == 1

    @pytest.mark.parametrize(
        ("steps", "last", "said"),
        [
            ([("running", "endpoint")], "completed", "cannot go from new to running"),
            ([("bid_accepted", "endpoint")], "running", "by the endpoint"),
            ([(None, "endpoint")], "running", "cannot go"),
            ([("lost", "endpoint")], "completed", "cannot be lost on its way"),
            ([("bid_accepted", "compute-forwarder")], "bid_accepted", "steps end where"),
            ([], "new", "steps end where"),
        ],
    )
    def test_no_step_is_illegal(self, steps, last, said):
        it = self.wanted()
        told = [{"after": after, "writer": writer} for after, writer in steps]
        with pytest.raises(IntegrityError, match=said):
            Execution.objects.filter(pk=it.pk).update(
                observed=last, by_writer="endpoint", by_steps=told
            )

    def test_nothing_runs_on_its_way_that_nobody_has_approved(self):
        it = self.wanted(Desired.PENDING)
        steps = [
            {"after": "ask_for_bid", "writer": "compute-forwarder"},
            {"after": "ask_for_bid_accepted", "writer": "endpoint"},
            {"after": "bid_accepted", "writer": "compute-forwarder"},
        ]
        with pytest.raises(IntegrityError, match="cannot be bid_accepted on its way"):
            Execution.objects.filter(pk=it.pk).update(
                observed="lost", by_writer="endpoint", by_steps=steps
            )
