"""PL/pgSQL of the triggers of executions: how one begins, and how it moves."""

from __future__ import annotations

from nodes.protocol.lifecycle import Lifecycle
from nodes.triggers import Columns, array, refuse_changes
from orchestrator.lifecycle import (
    AFTER_APPROVAL,
    DESIRED,
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
        *("by_writer", "by_actor", "by_reason", "by_steps"),
    ),
    free=("exit_code", "code", "message", "hint", "retryable", "ran"),
)


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

BEGIN = f"""
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
    NEW.by_steps := NULL;
    RETURN NEW;
"""  # noqa: S608 - only words of our own tables

#: While *desired* is pending a CHECK refuses these; what was stopped may have been approved before.
_APPROVED_FIRST = array({after for _, event, after in OBSERVED.edges() if event in AFTER_APPROVAL})

_NEW_CAUSE = "CASE WHEN NEW.stop_cause <> OLD.stop_cause THEN NEW.stop_cause ELSE '' END"


def _one_move(after: str, writer: str, actor: str, cause: str, reason: str) -> str:
    """One move of the observed lane, from ``was`` on: it is legal, and in the history."""
    return f"""
            IF ((was || '>' || ({after}) || '>' || ({writer})) = ANY ({_moves(OBSERVED)}))
               IS NOT TRUE THEN
                RAISE EXCEPTION 'execution %: observed cannot go from % to % by the %',
                    OLD.id, was, {after}, {writer} USING ERRCODE = 'check_violation';
            END IF;
            IF OLD.desired = '{Desired.STOPPED}' AND ({after}) = ANY ({_APPROVED_FIRST})
               AND NOT EXISTS (SELECT FROM {HISTORY} WHERE execution_id = OLD.id
                               AND lane = 'desired' AND after = '{Desired.RUNNING}') THEN
                RAISE EXCEPTION 'execution %: cannot be %, nobody has approved it',
                    OLD.id, {after} USING ERRCODE = 'check_violation';
            END IF;
            INSERT INTO {HISTORY}
                (execution_id, rev, lane, before, after, writer, actor, cause, reason, at)
            VALUES (NEW.id, NEW.rev, 'observed', was, {after}, {writer},
                    coalesce({actor}, ''), {cause}, coalesce({reason}, ''), clock_timestamp());
            was := {after};
            IF was = '{Observed.RUNNING}' THEN
                NEW.started_at := coalesce(NEW.started_at, clock_timestamp());
            END IF;
    """  # noqa: S608 - only words of our own tables


_STEP = ("step->>'after'", "step->>'writer'", "step->>'actor'", "''", "step->>'reason'")
_LAST = ("NEW.observed", "NEW.by_writer", "NEW.by_actor", _NEW_CAUSE, "NEW.by_reason")

#: What moves together is one update with ``by_steps``: the moves before the last, as an array.
MOVE = f"""
    {refuse_changes(EXECUTION)}
    IF NEW.observed IS DISTINCT FROM OLD.observed OR NEW.desired IS DISTINCT FROM OLD.desired
       OR NEW.by_steps IS NOT NULL THEN
        IF NEW.by_writer IS NULL THEN
            RAISE EXCEPTION 'execution %: a change of state must say who makes it (by_writer)',
                OLD.id USING ERRCODE = 'check_violation';
        END IF;
        NEW.rev := OLD.rev + 1;
        was := OLD.observed;
        IF NEW.by_steps IS NOT NULL THEN
            FOR step IN SELECT * FROM jsonb_array_elements(NEW.by_steps) LOOP
                {_one_move(*_STEP)}
                IF OLD.desired = '{Desired.PENDING}' AND was = ANY ({_APPROVED_FIRST})
                   OR was = ANY ({array(OBSERVED.terminal)}) THEN
                    RAISE EXCEPTION 'execution %: cannot be % on its way', OLD.id, was
                        USING ERRCODE = 'check_violation';
                END IF;
                NEW.rev := NEW.rev + 1;
            END LOOP;
        END IF;
        IF NEW.observed IS DISTINCT FROM was THEN
            {_one_move(*_LAST)}
        ELSIF NEW.by_steps IS NOT NULL THEN
            RAISE EXCEPTION 'execution %: its steps end where it ends, at %', OLD.id, was
                USING ERRCODE = 'check_violation';
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
    NEW.by_steps := NULL;
    RETURN NEW;
"""  # noqa: S608 - only words of our own tables
