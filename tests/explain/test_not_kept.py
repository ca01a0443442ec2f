"""What of a job is gone, in words."""

from datetime import UTC, datetime

import pytest

from orchestrator.explain.not_kept import NotKept

SEPTEMBER = datetime(2026, 9, 2, 14, 3, 11, tzinfo=UTC)
MONDAY = datetime(2026, 9, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (NotKept(), ""),
        (
            NotKept(executions=1, ended_before=SEPTEMBER),
            "1 execution that ended before 2026-09-02 14:03:11 UTC is no longer kept",
        ),
        (
            NotKept(executions=1200, evaluations=2, ended_before=SEPTEMBER, events_before=MONDAY),
            "1,200 executions that ended before 2026-09-02 14:03:11 UTC are no longer kept; "
            "2 evaluations that ended before 2026-09-02 14:03:11 UTC are no longer kept; "
            "events before 2026-09-07 00:00:00 UTC are no longer kept",
        ),
    ],
)
def test_what_is_gone_is_counted_and_said_since_when(gone, said):
    assert gone.sentence == said
