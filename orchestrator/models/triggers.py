"""Triggers that keep the tables true whoever writes: code, admin, psql, bulk updates.

They refuse illegal moves, number the revisions and write the history, so the stream of one
execution is gap-free by construction; and they refuse to change what has been written for good.
"""

from __future__ import annotations

from collections.abc import Iterable

import pgtrigger

from nodes.triggers import Columns, array, broken, refuse, refuse_changes, refuse_illegal
from orchestrator.lifecycle import ENDED, JOB

from .execution_moves import BEGIN, LIVE, MOVE, UNTOLD

JOB_COLUMNS = Columns(
    fixed=("id", "namespace_id", "name", "created_at"),
    rising=("version", "round", "seen_intent"),
    derived=("rev", "updated_at", "ended_at", "outcome", "intent_rev"),
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
            func=BEGIN,
        ),
        pgtrigger.Trigger(
            name="execution_moves",
            when=pgtrigger.Before,
            operation=pgtrigger.Update,
            declare=[("now_record", "bytea"), ("was", "text"), ("step", "jsonb")],
            func=MOVE,
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
                    NEW.outcome := NEW.state;
                ELSE
                    NEW.ended_at := NULL;
                    NEW.outcome := NULL;
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
