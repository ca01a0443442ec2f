"""Triggers that keep the rules of ``nodes.protocol.lifecycle`` whoever writes.

The orchestrator makes its own from the same pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import pgtrigger

from nodes.protocol.lifecycle import APPROVAL, CONNECTION, Lifecycle


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How each column of a table may change.  A test sees that none is left out.

    ``fixed`` never change, ``rising`` and ``falling`` go one way only, ``derived`` are written by
    the table's own trigger alone, ``moving`` follow a lifecycle, move by move, and ``free`` are
    whatever their writer says.
    """

    fixed: tuple[str, ...] = ()
    rising: tuple[str, ...] = ()
    falling: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    moving: tuple[str, ...] = ()
    free: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Every column, once for each class that it is in."""
        return [name for group in fields(self) for name in getattr(self, group.name)]


NODE = Columns(
    fixed=("id", "name", "created_at", "enrolment"),
    rising=("order_rev",),
    derived=("rev", "changed", "connection_since"),
    moving=("approval", "connection"),
    free=(
        *("eligible", "draining", "quarantined", "degraded", "labels", "attributes"),
        "enrolled_from",
        "removed_at",
        *("capacity_cpu", "capacity_memory", "capacity_disk", "capacity_gpu"),
        *("advertised_cpu", "advertised_memory", "advertised_disk", "advertised_gpu"),
        *("approved_cpu", "approved_memory", "approved_disk", "approved_gpu"),
        *("allocated_cpu", "allocated_memory", "allocated_disk", "allocated_gpu"),
    ),
)

#: ``received`` rises within an epoch, see ``session_triggers``.
SESSION = Columns(
    fixed=("node_id",),
    rising=("epoch",),
    moving=("received",),
    free=("instance", "ledger", "run", "boot", "holder", "address", "started_at"),
)


def node_triggers() -> list[pgtrigger.Trigger]:
    """Legal moves only; every change raises ``rev`` and stamps the transaction in ``changed``."""
    return [
        refuse(
            "node_begins",
            pgtrigger.Insert,
            "begins with no orders and nothing allocated",
            when="NEW.order_rev <> 0 OR (NEW.allocated_cpu, NEW.allocated_memory,"
            " NEW.allocated_disk, NEW.allocated_gpu) <> (0, 0, 0, 0)",
        ),
        pgtrigger.Trigger(
            name="node_moves",
            when=pgtrigger.Before,
            operation=pgtrigger.Update,
            func=refuse_changes(NODE)
            + refuse_illegal("approval", APPROVAL)
            + refuse_illegal("connection", CONNECTION)
            + """
                NEW.rev := OLD.rev + 1;
                NEW.changed := pg_current_xact_id();
                IF NEW.connection IS DISTINCT FROM OLD.connection THEN
                    NEW.connection_since := clock_timestamp();
                END IF;
                RETURN NEW;
            """,
        ),
    ]


def session_triggers() -> list[pgtrigger.Trigger]:
    """The fence does not go back: an epoch that is over stays over, a frame received is so."""
    return [
        refuse(
            "session_moves",
            pgtrigger.Update,
            "a session stays with its node; epoch, and received within it, cannot go back",
            when=f"{broken(SESSION)} OR NEW.epoch = OLD.epoch AND NEW.received < OLD.received",
        ),
    ]


# --- the pieces ------------------------------------------------------------------------------


def array(items: Iterable[str]) -> str:
    """A text array literal; the items are words of our own tables."""
    return "ARRAY[" + ", ".join(f"'{item}'" for item in sorted(items)) + "]::text[]"


def legal(lifecycle: Lifecycle[Any]) -> str:
    """The array of moves that *lifecycle* allows, each written ``before>after``."""
    return array({f"{before}>{after}" for before, _, after in lifecycle.edges()})


def refuse_illegal(column: str, lifecycle: Lifecycle[Any]) -> str:
    """PL/pgSQL that raises check_violation when *column* moves in a way not in the table."""
    return f"""
        IF NEW.{column} IS DISTINCT FROM OLD.{column}
           AND NOT (OLD.{column} || '>' || NEW.{column}) = ANY ({legal(lifecycle)}) THEN
            RAISE EXCEPTION '% %: {column} cannot go from % to %',
                TG_TABLE_NAME, OLD.id, OLD.{column}, NEW.{column}
                USING ERRCODE = 'check_violation';
        END IF;
    """


def broken(columns: Columns) -> str:
    """SQL that is true when a column has changed as it must not."""
    kept = (*columns.fixed, *columns.derived)
    new, old = (", ".join(f"{row}.{name}" for name in kept) for row in ("NEW", "OLD"))
    rules = [f"({new}) IS DISTINCT FROM ({old})"]
    rules += [f"NEW.{name} < OLD.{name}" for name in columns.rising]
    rules += [f"NEW.{name} > OLD.{name}" for name in columns.falling]
    return "\n            OR ".join(rules)


def refuse_changes(columns: Columns) -> str:
    """PL/pgSQL that raises check_violation when a column changes as its class must not.

    One expression in the ordinary case: it is evaluated for every row of every update.
    """
    return f"""
        IF {broken(columns)} THEN
            {_raise(columns)}
        END IF;
    """


def refuse(
    name: str, operation: pgtrigger.Operation, sentence: str, *, when: str = ""
) -> pgtrigger.Trigger:
    """Refuse *operation* on rows for which the SQL in *when* holds, or on all, with *sentence*."""
    return pgtrigger.Trigger(
        name=name,
        when=pgtrigger.Before,
        operation=operation,
        condition=pgtrigger.Condition(f"({when})") if when else None,
        func=f"""
            RAISE EXCEPTION '%: {sentence}', TG_TABLE_NAME USING ERRCODE = 'check_violation';
        """,
    )


def _raise(columns: Columns) -> str:
    """PL/pgSQL that names the column which makes ``broken`` true."""
    classes = (
        (columns.fixed, "IS DISTINCT FROM", "never changes"),
        (columns.derived, "IS DISTINCT FROM", "is written by the trigger alone"),
        (columns.rising, "<", "cannot go back"),
        (columns.falling, ">", "cannot go back"),
    )
    branches = "".join(
        f"""
                WHEN NEW.{name} {differs} OLD.{name}
                    THEN format('{name} {sentence}, from %s to %s', OLD.{name}, NEW.{name})"""
        for names, differs, sentence in classes
        for name in names
    )
    return f"""
            RAISE EXCEPTION '% %: %', TG_TABLE_NAME, OLD.{columns.fixed[0]}, CASE {branches}
                END USING ERRCODE = 'check_violation';
    """
