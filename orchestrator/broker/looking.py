"""Where in the queue work is looked for: from the beginning, while that is cheap.

What leases have taken stays in the index until it is vacuumed, which nothing can be while
somebody's old snapshot is open: a look from the beginning then wades through all that was ever
asked since.  So each process remembers from when on it has found work of each priority and
namespace, looks from there, and from the beginning only as often as that may cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from .enqueue import BY_PEOPLE

#: What a look from the beginning may take, in seconds, to be had each time; and the share of all
#: time that slower ones may take.
BRISK, SHARE = 0.01, 0.05

#: Seconds until it is looked from the beginning again, at most: a look may be slow because all is
#: for a moment, and until the next one nobody finds the first job of a priority or namespace.
LONGEST = 5.0

#: Before where work was found: who asks commits a moment after the time that it says.
MARGIN = timedelta(seconds=2)

#: Pairs of urgency and namespace that a look passes through, and those of them that it takes from.
MOST_PAIRS, TAKEN_FROM = 512, 64

Pair = tuple[int, str]


class Pace:
    """How often something is done that may be slow: for a SHARE of all time, or each LONGEST."""

    def __init__(self) -> None:
        self._again_at = 0.0

    def allows(self) -> bool:
        return time.monotonic() >= self._again_at

    def took(self, seconds: float, brisk: float = 0.0) -> None:
        """It was done and took so long; what is *brisk* may be done each time."""
        pause = min(seconds / SHARE, LONGEST) if seconds > brisk else 0.0
        self._again_at = time.monotonic() + pause


class Place:
    """Where one process looks: from when on there may be triggers, and what is due or freed."""

    def __init__(self) -> None:
        self._since: Mapping[Pair, datetime] = {}
        self._after: datetime | None = None
        self._whole = Pace()
        self._took = 0.0
        self._served = ""

    @contextmanager
    def look(self) -> Iterator[Look]:
        """Look for work with the look's ``pairs``, and say what was found."""
        is_whole = self._whole.allows()
        look = Look(is_whole, self._since, None if is_whole else self._after, self._served)
        yield look
        took = time.monotonic() - look.began
        if is_whole:  # One that is slow may be so by chance, as the first of a process is.
            self._whole.took(min(took, self._took), BRISK)
            self._took = took
        self._since, self._after, self._served = look.since, look.after, look.served

    def heed(self, pair: Pair, since: datetime) -> None:
        """There is a trigger, which may be older than what was found."""
        self._since = {**self._since, pair: min(since, self._since.get(pair, since))}


class Look:
    """One look at the queue: from the beginning if it *is_whole*, or from where work was found."""

    def __init__(
        self,
        is_whole: bool,
        since: Mapping[Pair, datetime],
        after: datetime | None,
        served: str = "",
    ) -> None:
        self.began = time.monotonic()
        self.since, self.after, self.served = dict(since), after, served
        self.pairs = _ALL_PAIRS if is_whole else _KNOWN_PAIRS
        self.parameters: dict[str, Any] = {
            "by_people": list(BY_PEOPLE),
            "urgencies": [urgency for urgency, _ in since],
            "namespaces": [namespace for _, namespace in since],
            "since": list(since.values()),
            "after": after,
            "served": served,
        }

    def found_all(self, at: datetime) -> None:
        """Nothing was ready *at* that time, by the server's clock, of what is not *found*."""
        self.since = dict.fromkeys(self.since, at - MARGIN)

    def found_nothing_due(self, at: datetime) -> None:
        """No time had come *at* that time, and no node was freed: what is older is passed over."""
        self.after = at - MARGIN

    def found(self, found: Iterable[tuple[Any, datetime]]) -> None:
        """These pairs have triggers that may be leased, each from the first that is named on."""
        first: dict[Pair, datetime] = {}
        for pair, since in found:
            first[pair] = min(since, first.get(pair, since))
        others = {pair: since for pair, since in self.since.items() if pair not in first}
        found_last = others | {pair: since - MARGIN for pair, since in first.items()}
        self.since = dict(list(found_last.items())[-MOST_PAIRS:])


#: Whether the job of trigger ``t`` may be leased: nobody has it, and it does not back off.  Else
#: a steady trickle of reports would evaluate a poisoned job in a hot loop; for people it is, and
#: for anything new if it is parked.
MAY_BE_LEASED = """
    (SELECT r.leased_until IS NULL
            AND (r.retry_at IS NULL OR r.retry_at <= (SELECT clock_timestamp())
                 OR r.dead_letter IS NOT NULL
                 OR t.trigger = ANY (%(by_people)s::text[]))
     FROM orchestrator_brokerrow r WHERE r.job_id = t.job_id) IS NOT FALSE
"""

#: Those that have a trigger that may be leased, and of them the most urgent; of equals those after
#: the namespace that was served last.
_FIRST_PAIRS = f"""
    heads AS MATERIALIZED (
        SELECT p.urgency, p.namespace, head.since FROM pairs p CROSS JOIN LATERAL (
            SELECT t.since FROM orchestrator_brokertrigger t
            WHERE t.urgency = p.urgency AND t.namespace = p.namespace AND t.since >= p.since
              AND {MAY_BE_LEASED}
            ORDER BY t.since LIMIT 1) AS head),
    first_pairs AS MATERIALIZED (
        SELECT *, count(*) OVER (PARTITION BY urgency) AS equals
        FROM (SELECT *, row_number() OVER (
                  PARTITION BY urgency ORDER BY namespace > %(served)s DESC, namespace) AS turn
              FROM heads ORDER BY urgency, turn LIMIT {TAKEN_FROM}) AS first)
"""  # noqa: S608 - our own columns

#: The pairs of urgency and namespace that triggers have, found by hopping through the index.
_ALL_PAIRS = f"""
    hops AS (
        (SELECT urgency, namespace, '-infinity'::timestamptz AS since
         FROM orchestrator_brokertrigger ORDER BY urgency, namespace LIMIT 1)
        UNION ALL
        SELECT next.* FROM hops CROSS JOIN LATERAL (
            SELECT t.urgency, t.namespace, '-infinity'::timestamptz
            FROM orchestrator_brokertrigger t
            WHERE (t.urgency, t.namespace) > (hops.urgency, hops.namespace)
            ORDER BY t.urgency, t.namespace LIMIT 1) AS next),
    pairs AS MATERIALIZED (SELECT * FROM hops LIMIT {MOST_PAIRS}),
    {_FIRST_PAIRS}
"""  # noqa: S608 - our own columns

#: Those that are known, each from where it was found.
_KNOWN_PAIRS = f"""
    pairs AS MATERIALIZED (
        SELECT * FROM unnest(%(urgencies)s::smallint[], %(namespaces)s::text[],
                             %(since)s::timestamptz[]) AS p(urgency, namespace, since)),
    {_FIRST_PAIRS}
"""  # noqa: S608 - our own columns
