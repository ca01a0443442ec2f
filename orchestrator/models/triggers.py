"""Triggers that keep the tables true whoever writes: code, admin, psql, bulk updates.

They refuse illegal moves, number the revisions and write the history, so the stream of one
execution is gap-free by construction; and they refuse to change what has been written for good.
"""

from __future__ import annotations

from collections.abc import Iterable

import pgtrigger

from nodes.protocol.lifecycle import Lifecycle
from nodes.triggers import Columns, array, broken, refuse, refuse_changes, refuse_illegal
from orchestrator.lifecycle import (
    AFTER_APPROVAL,
    DESIRED,
    ENDED,
    JOB,
    OBSERVED,
    WRITERS,
    Desired,
    Observed,
)

HISTORY = "orchestrator_executionhistory"
LIVE = "orchestrator_liveexecution"
UNTOLD = "orchestrator_untoldorder"

#: A job of so many slots is large: of what runs in it there are records.
MANY = 100

EXECUTION = Columns(
    fixed=(
        *("id", "job_id", "node_id", "evaluation_id", "version", "generation", "round", "slot"),
        *("attempt", "cpu", "memory", "disk", "gpu", "created_at"),
    ),
    rising=("order_rev", "told_rev", "settled"),
    falling=("reserved",),
    derived=("rev", "started_at", "ended_at"),
    moving=(
        *("desired", "observed", "stop_cause", "stop_detail"),
        *("by_writer", "by_actor", "by_reason"),
    ),
    free=("exit_code", "code", "message", "hint", "retryable", "ran"),
)

JOB_COLUMNS = Columns(
    fixed=("id", "namespace_id", "name", "created_at"),
    rising=("version", "round", "seen_intent"),
    derived=("rev", "updated_at", "ended_at", "intent_rev"),
    moving=("state",),
    free=(
        *("type", "priority", "count", "labels", "reason", "stop_requested", "stop_reason"),
        "stopped_by",
        *("progress", "tally", "created_by_id", "round_at"),
    ),
)

#: The columns of a job that say what people want.
INTENT = (
    *("type", "version", "round", "round_at", "count", "priority", "labels"),
    *("stop_requested", "stop_reason", "stopped_by"),
)

#: Whoever submitted it may be deleted; the name in ``actor`` stays.
JOB_VERSION = Columns(
    fixed=("id", "job_id", "number", "spec", "digest", "generation", "created_at", "actor"),
    free=("created_by_id",),
)

EVENT = Columns(
    fixed=(
        *("id", "xid", "at", "topic", "what", "actor", "message"),
        *("namespace", "job_id", "execution_id", "node_id", "data"),
    )
)

EXECUTION_HISTORY = Columns(
    fixed=(
        *("execution_id", "rev", "lane", "before", "after", "writer", "actor", "cause", "reason"),
        *("at", "xid"),
    )
)


def execution_triggers() -> list[pgtrigger.Trigger]:
    """Legal beginnings and moves, written to the history; no end while resources are held.

    What is looked up by what changes follows in tables of its own, see `followers`.
    """
    return [
        pgtrigger.Trigger(
            name="execution_begins",
            when=pgtrigger.Before,
            operation=pgtrigger.Insert,
            func=_BEGIN,
        ),
        pgtrigger.Trigger(
            name="execution_moves",
            when=pgtrigger.Before,
            operation=pgtrigger.Update,
            declare=[("now_record", "bytea")],
            func=_MOVE,
        ),
        refuse(
            "execution_goes",
            pgtrigger.Delete,
            "an execution that holds resources of its node cannot be deleted",
            when="OLD.reserved",
        ),
        pgtrigger.Trigger(
            name="execution_leaves",
            when=pgtrigger.Before,
            operation=pgtrigger.Delete,
            func=f"""
                DELETE FROM {LIVE} WHERE execution_id = OLD.id;
                DELETE FROM {UNTOLD}
                WHERE (node_id, rev, execution_id) = (OLD.node_id, OLD.order_rev, OLD.id);
                RETURN OLD;
            """,  # noqa: S608 - only names of our own tables
        ),
    ]


def followers(name: str) -> list[pgtrigger.Trigger]:
    """Rows are written by the triggers of executions alone, which they follow."""
    return [
        refuse(
            name,
            pgtrigger.Insert | pgtrigger.Update | pgtrigger.Delete,
            "it follows the executions, whose triggers alone write here",
            when="pg_trigger_depth() = 0",
        )
    ]


def history_triggers() -> list[pgtrigger.Trigger]:
    """Rows come from the triggers of executions alone, stay as they are, and go after those."""
    return [
        refuse(
            "history_begins",
            pgtrigger.Insert,
            "history is written by the trigger of executions alone",
            when="pg_trigger_depth() = 0",
        ),
        pgtrigger.Trigger(
            name="history_stays",
            when=pgtrigger.Before,
            operation=pgtrigger.Update | pgtrigger.Delete,
            func="""
                IF TG_OP = 'DELETE' AND NOT EXISTS (
                    SELECT FROM orchestrator_execution WHERE id = OLD.execution_id) THEN
                    RETURN OLD; END IF;
                RAISE EXCEPTION '%: what is written here is neither changed nor deleted, as long'
                    ' as there is its execution', TG_TABLE_NAME USING ERRCODE = 'check_violation';
            """,
        ),
    ]


#: The last number that an event was given, or 0.
LAST_EVENT = "coalesce(pg_sequence_last_value('orchestrator_event_id_seq'), 0)"

#: What the highest 16 bits of an advisory lock's key say: who holds it writes the journal.  The
#: other 48 bits are the last event's number when it began to.
JOURNAL = 0x6A6F


def event_triggers() -> list[pgtrigger.Trigger]:
    """The journal is appended to, and who appends says so.  To drop a partition fires none."""
    return [
        refuse(
            "event_stays",
            pgtrigger.Update | pgtrigger.Delete,
            "what is written here is neither changed nor deleted",
        ),
        pgtrigger.Trigger(
            name="event_is_announced",
            level=pgtrigger.Statement,
            when=pgtrigger.Before,
            operation=pgtrigger.Insert,
            # Each statement takes one: what a session says of itself is not to be believed.
            func=f"""
                PERFORM pg_advisory_xact_lock_shared({JOURNAL << 48} + {LAST_EVENT});
                RETURN NULL;
            """,
        ),
    ]


def job_triggers() -> list[pgtrigger.Trigger]:
    """Legal beginnings and moves of a job's state only; every change raises ``rev``."""
    return [
        refuse(
            "job_begins",
            pgtrigger.Insert,
            f"a job begins {JOB.initial}, in its first version, round and revision",
            when=f"NEW.state <> '{JOB.initial}' OR (NEW.version, NEW.round, NEW.rev,"
            " NEW.intent_rev, NEW.seen_intent) <> (1, 1, 1, 1, 0)",
        ),
        pgtrigger.Trigger(
            name="job_moves",
            when=pgtrigger.Before,
            operation=pgtrigger.Update,
            func=refuse_changes(JOB_COLUMNS)
            + f"""
                NEW.intent_rev := OLD.intent_rev;
                IF ({_columns("NEW", INTENT)}) IS DISTINCT FROM ({_columns("OLD", INTENT)}) THEN
                    NEW.intent_rev := OLD.intent_rev + 1;
                    IF NEW.round <> OLD.round THEN
                        NEW.tally := '{{}}';
                    END IF;
                    IF NEW.round_at <> OLD.round_at AND OLD.state = ANY ({array(ENDED)}) THEN
                        NEW.state := '{JOB.initial}';
                        NEW.reason := '[]';
                    END IF;
                END IF;
            """
            + refuse_illegal("state", JOB)
            + f"""
                NEW.rev := OLD.rev + 1;
                NEW.updated_at := clock_timestamp();
                IF NEW.state = ANY ({array(ENDED)}) THEN
                    NEW.ended_at := coalesce(OLD.ended_at, NEW.updated_at);
                ELSE
                    NEW.ended_at := NULL;
                END IF;
                RETURN NEW;
            """,
        ),
    ]


def version_triggers() -> list[pgtrigger.Trigger]:
    """A version is what was submitted; it goes with its job."""
    return [
        refuse(
            "version_stays",
            pgtrigger.Update,
            "a version is never changed; submit a new one",
            when=broken(JOB_VERSION),
        ),
        pgtrigger.Trigger(
            name="version_goes",
            when=pgtrigger.After,
            operation=pgtrigger.Delete,
            timing=pgtrigger.Deferred,  # Those who delete a job delete its versions first.
            func="""
                IF EXISTS (SELECT FROM orchestrator_job WHERE id = OLD.job_id) THEN
                    RAISE EXCEPTION '%: a version is deleted with its job, not without it',
                        TG_TABLE_NAME USING ERRCODE = 'check_violation';
                END IF;
                RETURN NULL;
            """,
        ),
    ]


def _columns(row: str, names: Iterable[str]) -> str:
    return ", ".join(f"{row}.{name}" for name in names)


def _moves(lane: Lifecycle[Desired] | Lifecycle[Observed]) -> str:
    return array(
        {
            f"{before}>{after}>{writer}"
            for before, event, after in lane.edges()
            for writer in WRITERS[event]
        }
    )


_WANTED = f"nullif({{0}}.desired = '{Desired.RUNNING}', false)"

#: What ``worker.executions`` reads of what runs as it was told in a large job; of others null.
_RECORD = f"""
    CASE WHEN NEW.desired = '{Desired.RUNNING}' AND NEW.observed = '{Observed.RUNNING}'
              AND (SELECT count FROM orchestrator_job WHERE id = NEW.job_id) >= {MANY}
              AND NEW.generation = (SELECT generation FROM orchestrator_jobversion
                                    WHERE job_id = NEW.job_id AND number = NEW.version)
         THEN uuid_send(NEW.id) || uuid_send(NEW.node_id) || int4send(NEW.slot)
              || int4send(NEW.attempt) || int4send(NEW.version) || int4send(NEW.round)
              || timestamptz_send(NEW.created_at) || timestamptz_send(NEW.started_at) END
"""  # noqa: S608 - only words of our own tables

_BEGIN = f"""
    IF NEW.by_writer IS DISTINCT FROM 'state-updater' THEN
        RAISE EXCEPTION 'execution %: only the state-updater creates executions, not %',
            NEW.id, coalesce(NEW.by_writer, 'nobody') USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.observed <> '{Observed.NEW}' OR NEW.desired = '{Desired.STOPPED}'
       OR NEW.told_rev <> 0 OR NEW.started_at IS NOT NULL THEN
        RAISE EXCEPTION 'execution %: begins as new and untold, not %/%',
            NEW.id, NEW.desired, NEW.observed USING ERRCODE = 'check_violation';
    END IF;
    NEW.rev := 1;
    INSERT INTO {HISTORY} (execution_id, rev, lane, before, after, writer, actor, reason, at)
    VALUES (NEW.id, 1, 'desired', '', NEW.desired, NEW.by_writer, coalesce(NEW.by_actor, ''),
            coalesce(NEW.by_reason, ''), clock_timestamp()),
           (NEW.id, 1, 'observed', '', NEW.observed, NEW.by_writer, coalesce(NEW.by_actor, ''),
            coalesce(NEW.by_reason, ''), clock_timestamp());
    INSERT INTO {LIVE} (execution_id, job_id, slot, node_id, is_wanted)
    VALUES (NEW.id, NEW.job_id, NEW.slot, NEW.node_id, {_WANTED.format("NEW")});
    INSERT INTO {UNTOLD} (node_id, rev, execution_id) VALUES (NEW.node_id, NEW.order_rev, NEW.id);
    NEW.by_writer := NULL;
    NEW.by_actor := NULL;
    NEW.by_reason := NULL;
    RETURN NEW;
"""  # noqa: S608 - only words of our own tables

#: While *desired* is pending a CHECK refuses these; what was stopped may have been approved before.
_APPROVED_FIRST = array({after for _, event, after in OBSERVED.edges() if event in AFTER_APPROVAL})

_NEW_CAUSE = "CASE WHEN NEW.stop_cause <> OLD.stop_cause THEN NEW.stop_cause ELSE '' END"

_MOVE = f"""
    {refuse_changes(EXECUTION)}
    IF NEW.observed IS DISTINCT FROM OLD.observed OR NEW.desired IS DISTINCT FROM OLD.desired THEN
        IF NEW.by_writer IS NULL THEN
            RAISE EXCEPTION 'execution %: a change of state must say who makes it (by_writer)',
                OLD.id USING ERRCODE = 'check_violation';
        END IF;
        NEW.rev := OLD.rev + 1;
        IF NEW.observed IS DISTINCT FROM OLD.observed THEN
            IF NOT (OLD.observed || '>' || NEW.observed || '>' || NEW.by_writer)
                   = ANY ({_moves(OBSERVED)}) THEN
                RAISE EXCEPTION 'execution %: observed cannot go from % to % by the %',
                    OLD.id, OLD.observed, NEW.observed, NEW.by_writer
                    USING ERRCODE = 'check_violation';
            END IF;
            IF OLD.desired = '{Desired.STOPPED}' AND NEW.observed = ANY ({_APPROVED_FIRST})
               AND NOT EXISTS (SELECT FROM {HISTORY} WHERE execution_id = OLD.id
                               AND lane = 'desired' AND after = '{Desired.RUNNING}') THEN
                RAISE EXCEPTION 'execution %: cannot be %, nobody has approved it',
                    OLD.id, NEW.observed USING ERRCODE = 'check_violation';
            END IF;
            INSERT INTO {HISTORY}
                (execution_id, rev, lane, before, after, writer, actor, cause, reason, at)
            VALUES (NEW.id, NEW.rev, 'observed', OLD.observed, NEW.observed, NEW.by_writer,
                    coalesce(NEW.by_actor, ''), {_NEW_CAUSE}, coalesce(NEW.by_reason, ''),
                    clock_timestamp());
            IF NEW.observed = '{Observed.RUNNING}' THEN
                NEW.started_at := coalesce(NEW.started_at, clock_timestamp());
            END IF;
        END IF;
        IF NEW.observed = ANY ({array(OBSERVED.terminal)}) THEN
            NEW.ended_at := coalesce(OLD.ended_at, clock_timestamp());
            IF OLD.desired <> '{Desired.STOPPED}' THEN
                NEW.desired := '{Desired.STOPPED}';
                INSERT INTO {HISTORY}
                    (execution_id, rev, lane, before, after, writer, actor, reason, at)
                VALUES (NEW.id, NEW.rev, 'desired', OLD.desired, NEW.desired, NEW.by_writer,
                        coalesce(NEW.by_actor, ''), 'it is ' || NEW.observed, clock_timestamp());
            ELSIF NEW.desired <> '{Desired.STOPPED}' THEN
                RAISE EXCEPTION 'execution %: desired cannot go back from stopped', OLD.id
                    USING ERRCODE = 'check_violation';
            END IF;
        ELSIF NEW.desired IS DISTINCT FROM OLD.desired THEN
            IF NOT (OLD.desired || '>' || NEW.desired || '>' || NEW.by_writer)
                   = ANY ({_moves(DESIRED)}) THEN
                RAISE EXCEPTION 'execution %: desired cannot go from % to % by the %',
                    OLD.id, OLD.desired, NEW.desired, NEW.by_writer
                    USING ERRCODE = 'check_violation';
            END IF;
            INSERT INTO {HISTORY}
                (execution_id, rev, lane, before, after, writer, actor, cause, reason, at)
            VALUES (NEW.id, NEW.rev, 'desired', OLD.desired, NEW.desired, NEW.by_writer,
                    coalesce(NEW.by_actor, ''), {_NEW_CAUSE}, coalesce(NEW.by_reason, ''),
                    clock_timestamp());
        END IF;
        now_record := {_RECORD};
        IF {_WANTED.format("NEW")} IS DISTINCT FROM {_WANTED.format("OLD")} THEN
            UPDATE {LIVE} SET is_wanted = {_WANTED.format("NEW")}, record = now_record
            WHERE execution_id = NEW.id;
        ELSIF now_record IS NOT NULL OR OLD.observed = '{Observed.RUNNING}' THEN
            UPDATE {LIVE} SET record = now_record
            WHERE execution_id = NEW.id AND record IS DISTINCT FROM now_record;
        END IF;
    ELSE
        NEW.rev := OLD.rev;
    END IF;
    IF (NEW.order_rev, NEW.told_rev) IS DISTINCT FROM (OLD.order_rev, OLD.told_rev) THEN
        IF OLD.order_rev > OLD.told_rev THEN
            DELETE FROM {UNTOLD}
            WHERE (node_id, rev, execution_id) = (OLD.node_id, OLD.order_rev, OLD.id);
        END IF;
        IF NEW.order_rev > NEW.told_rev THEN
            INSERT INTO {UNTOLD} (node_id, rev, execution_id)
            VALUES (NEW.node_id, NEW.order_rev, NEW.id);
        END IF;
    END IF;
    IF NEW.settled AND NOT NEW.reserved THEN
        DELETE FROM {LIVE} WHERE execution_id = NEW.id;
    END IF;
    NEW.by_writer := NULL;
    NEW.by_actor := NULL;
    NEW.by_reason := NULL;
    RETURN NEW;
"""  # noqa: S608 - only words of our own tables
