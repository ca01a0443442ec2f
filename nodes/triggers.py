"""Triggers that keep the rules of ``nodes.protocol.lifecycle`` whoever writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pgtrigger

from nodes.protocol.lifecycle import APPROVAL, CONNECTION, Lifecycle


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


def node_triggers() -> list[pgtrigger.Trigger]:
    """Legal moves only; every change raises ``rev`` and stamps the transaction in ``changed``."""
    return [
        pgtrigger.Trigger(
            name="node_moves",
            when=pgtrigger.Before,
            operation=pgtrigger.Update,
            func=refuse_illegal("approval", APPROVAL)
            + refuse_illegal("connection", CONNECTION)
            + """
                NEW.rev := OLD.rev + 1;
                NEW.changed := pg_current_xact_id();
                IF NEW.connection IS DISTINCT FROM OLD.connection THEN
                    NEW.connection_since := clock_timestamp();
                END IF;
                RETURN NEW;
            """,
        )
    ]
