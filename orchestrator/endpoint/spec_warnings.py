"""What is odd about a specification and yet no mistake: the job is taken, and may wait for ever."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

from django.db import connection

from nodes.labels import OWN
from nodes.protocol.secret_references import PREFIX
from orchestrator.spec import JobBody, contradictions
from orchestrator.spec.mistakes import Mistake, mistake
from orchestrator.spec.secrets import suspects
from orchestrator.spec.selectors import Requirement, read

from . import drivers

#: What constraints see of a node, as in a snapshot of the cluster.
_LABELS = "(n.attributes || jsonb_build_object('name', n.name) || n.labels)"


def warnings(specs: Sequence[JobBody]) -> list[list[Mistake]]:
    """What is odd about each of *specs*, as path, message and hint.

    A driver or a label that no node has: a node that has it may still join.  Constraints that
    exclude each other: no node can satisfy them.  What should rather be a secret.
    """
    labels = [list(_labels(it)) for it in specs]
    missing, there = _missing({key for them in labels for _, key in them})
    return [
        [
            *absent,
            *map(_excluding, contradictions([read(text) for text in it.constraints])),
            *(_unseen(path, key, there) for path, key in them if key in missing),
            *(_in_clear(path) for path in suspects(it.task.env, it.task.command)),
        ]
        for it, absent, them in zip(specs, drivers.warnings(specs), labels, strict=True)
    ]


def _labels(it: JobBody) -> Iterable[tuple[str, str]]:
    """Every label that a node must have to be of use here, and the path that says so."""
    texts = [(f"constraints.{at}", text) for at, text in enumerate(it.constraints)]
    texts += [(f"affinities.{at}.match", one.match) for at, one in enumerate(it.affinities)]
    for path, text in texts:
        for one in read(text):
            if not one.holds(None):
                yield path, one.key
    for at, spread in enumerate(it.spread):
        yield f"spread.{at}.over", spread.over


def _excluding(found: tuple[int, tuple[Requirement, ...]]) -> Mistake:
    number, wanted = found
    said = " and ".join(repr(str(one)) for one in wanted)
    message = f"{said} exclude each other: no node can ever satisfy this, and the job waits"
    return mistake(f"constraints.{number}", message, "Leave one of them out, or join them by in.")


def _in_clear(path: str) -> Mistake:
    message = "looks like a secret, and whoever sees the job can read it"
    if not path.startswith("env."):
        hint = "Name a secret in task.env, and have the command read that variable."
        return mistake(f"task.{path}", message, hint)
    name = path.removeprefix("env.").lower().replace("_", "-").strip("-") or "secret"
    hint = (
        f"`muster secret put {name}`, and write {PREFIX}{name} here; or `muster job run "
        "--move-secrets` does both."
    )
    return {**mistake(f"task.{path}", message, hint), "secret": name[:63]}


def _unseen(path: str, key: str, there: Collection[str]) -> Mistake:
    if OWN + key in there:
        message = f"no node was given the label {key!r}: nodes only say it of themselves"
        hint = (
            f"Write {OWN + key!r} to take a node's own word, or `muster node label NODE {key}=…`."
        )
        return mistake(path, message, hint)
    near = get_close_matches(key, there, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "`muster node show` lists what a node has."
    return mistake(path, f"no node of the cluster has the label {key!r}", hint)


def _missing(wanted: Collection[str]) -> tuple[set[str], set[str]]:
    """Those of the labels *wanted* that no node has, and all that nodes have if there are such.

    Of a cluster without nodes nothing can be said.
    """
    if not wanted:
        return set(), set()
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT wanted.key FROM unnest(%s::text[]) AS wanted(key)
            WHERE EXISTS (
                SELECT FROM nodes_node n WHERE n.approval <> 'rejected' AND n.removed_at IS NULL)
            AND NOT EXISTS (
                SELECT FROM nodes_node n
                WHERE n.approval <> 'rejected' AND n.removed_at IS NULL
                AND {_LABELS} ? wanted.key)
            """,  # noqa: S608 - a constant
            [list(wanted)],
        )
        missing = {key for (key,) in cursor.fetchall()}
        if not missing:
            return set(), set()
        cursor.execute(
            f"""
            SELECT DISTINCT jsonb_object_keys({_LABELS})
            FROM nodes_node n WHERE n.approval <> 'rejected' AND n.removed_at IS NULL
            """  # noqa: S608 - a constant
        )
        return missing, {key for (key,) in cursor.fetchall()}
