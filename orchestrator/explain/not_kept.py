"""What of a job is no longer kept, as sentences.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .formatting import clock, counted


@dataclass(frozen=True, slots=True)
class NotKept:
    """How many executions and evaluations that ended before an instant are gone.

    And before when its events are: None where none is.
    """

    executions: int = 0
    evaluations: int = 0
    ended_before: datetime | None = None
    events_before: datetime | None = None

    @property
    def of_executions(self) -> str:
        return self._gone(self.executions, "execution")

    @property
    def of_evaluations(self) -> str:
        return self._gone(self.evaluations, "evaluation")

    @property
    def of_events(self) -> str:
        at = self.events_before
        return "" if at is None else f"events before {clock(at)} are no longer kept"

    @property
    def sentence(self) -> str:
        """All that is said of it, or nothing."""
        return "; ".join(filter(None, (self.of_executions, self.of_evaluations, self.of_events)))

    def _gone(self, number: int, noun: str) -> str:
        if not number or self.ended_before is None:
            return ""
        verb = "is" if number == 1 else "are"
        at = clock(self.ended_before)
        return f"{counted(number, noun)} that ended before {at} {verb} no longer kept"
