"""Triggers that keep the lifecycle tables true whoever writes: code, admin, psql, bulk updates.

They refuse illegal moves, number the revisions and write the history, so the stream of one
execution is gap-free by construction.
"""

from __future__ import annotations

import pgtrigger

from nodes.triggers import array, refuse_illegal

from .lifecycle import DESIRED, ENDED, JOB, OBSERVED, WRITERS, Desired, Observed

HISTORY = "orchestrator_executionhistory"


def execution_triggers() -> list[pgtrigger.Trigger]:
    """A BEFORE INSERT and a BEFORE UPDATE trigger; see the module's docstring."""
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
            func=_MOVE,
        ),
    ]


def job_triggers() -> list[pgtrigger.Trigger]:
    """Legal moves of a job's state only; every change raises ``rev``."""
    return [
        pgtrigger.Trigger(
            name="job_moves",
            when=pgtrigger.Before,
            operation=pgtrigger.Update,
            func=refuse_illegal("state", JOB)
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
        )
    ]


def _observed_moves() -> str:
    return array(
        {
            f"{before}>{after}>{writer}"
            for before, event, after in OBSERVED.edges()
            for writer in WRITERS[event]
        }
    )


def _desired_moves() -> str:
    return array(
        {
            f"{before}>{after}>{writer}"
            for before, event, after in DESIRED.edges()
            for writer in WRITERS[event]
        }
    )


_BEGIN = f"""
    IF NEW.by_writer IS DISTINCT FROM 'state-updater' THEN
        RAISE EXCEPTION 'execution %: only the state-updater creates executions, not %',
            NEW.id, coalesce(NEW.by_writer, 'nobody') USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.observed <> '{Observed.NEW}' OR NEW.desired = '{Desired.STOPPED}' THEN
        RAISE EXCEPTION 'execution %: begins as new, not %/%', NEW.id, NEW.desired, NEW.observed
            USING ERRCODE = 'check_violation';
    END IF;
    NEW.rev := 1;
    INSERT INTO {HISTORY} (execution_id, rev, lane, before, after, writer, actor, reason, at)
    VALUES (NEW.id, 1, 'desired', '', NEW.desired, NEW.by_writer, coalesce(NEW.by_actor, ''),
            coalesce(NEW.by_reason, ''), clock_timestamp()),
           (NEW.id, 1, 'observed', '', NEW.observed, NEW.by_writer, coalesce(NEW.by_actor, ''),
            coalesce(NEW.by_reason, ''), clock_timestamp());
    NEW.by_writer := NULL;
    NEW.by_actor := NULL;
    NEW.by_reason := NULL;
    RETURN NEW;
"""  # noqa: S608 - only words of our own tables

_MOVE = f"""
    IF NEW.observed IS DISTINCT FROM OLD.observed OR NEW.desired IS DISTINCT FROM OLD.desired THEN
        IF NEW.by_writer IS NULL THEN
            RAISE EXCEPTION 'execution %: a change of state must say who makes it (by_writer)',
                OLD.id USING ERRCODE = 'check_violation';
        END IF;
        NEW.rev := OLD.rev + 1;
        IF NEW.observed IS DISTINCT FROM OLD.observed THEN
            IF NOT (OLD.observed || '>' || NEW.observed || '>' || NEW.by_writer)
                   = ANY ({_observed_moves()}) THEN
                RAISE EXCEPTION 'execution %: observed cannot go from % to % by the %',
                    OLD.id, OLD.observed, NEW.observed, NEW.by_writer
                    USING ERRCODE = 'check_violation';
            END IF;
            INSERT INTO {HISTORY}
                (execution_id, rev, lane, before, after, writer, actor, reason, at)
            VALUES (NEW.id, NEW.rev, 'observed', OLD.observed, NEW.observed, NEW.by_writer,
                    coalesce(NEW.by_actor, ''), coalesce(NEW.by_reason, ''), clock_timestamp());
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
                   = ANY ({_desired_moves()}) THEN
                RAISE EXCEPTION 'execution %: desired cannot go from % to % by the %',
                    OLD.id, OLD.desired, NEW.desired, NEW.by_writer
                    USING ERRCODE = 'check_violation';
            END IF;
            INSERT INTO {HISTORY}
                (execution_id, rev, lane, before, after, writer, actor, reason, at)
            VALUES (NEW.id, NEW.rev, 'desired', OLD.desired, NEW.desired, NEW.by_writer,
                    coalesce(NEW.by_actor, ''), coalesce(NEW.by_reason, ''), clock_timestamp());
        END IF;
    ELSE
        NEW.rev := OLD.rev;
    END IF;
    NEW.by_writer := NULL;
    NEW.by_actor := NULL;
    NEW.by_reason := NULL;
    RETURN NEW;
"""  # noqa: S608 - only words of our own tables
