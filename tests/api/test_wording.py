"""The sentences of the API: true for as long as the row is as it is."""

from datetime import UTC, datetime

import pytest

from orchestrator.api import wording
from orchestrator.models import Job

LATER = datetime(2026, 3, 1, 12, 0, 40, tzinfo=UTC).isoformat()


@pytest.mark.parametrize(
    ("differing", "said"),
    [
        ({"state": "pending"}, "waits for its evaluation"),
        ({"state": "queued", "reason": "short of 2 cpu"}, "short of 2 cpu"),
        ({"state": "running", "count": 2, "tally": {"running": 3}}, "2 of 2 running"),
        ({"state": "running", "tally": {"ask_for_bid": 3}}, "1 of 1 starting"),
        (
            {"state": "running", "count": 3, "tally": {"completed": 1, "running": 1, "new": 4}},
            "1 of 3 completed, 1 of 3 running, 1 of 3 starting",
        ),
        (
            {"state": "running", "progress": {"retry_at": {"0": LATER, "9": LATER}}},
            "1 to be tried again at 2026-03-01 12:00:40 UTC",
        ),
        ({"state": "completed", "count": 3, "tally": {"completed": 3}}, "3 of 3 completed"),
        ({"state": "completed", "count": 1, "tally": {"completed": 3}}, "1 of 1 completed"),
        ({"state": "completed", "count": 0}, "asks for no slots"),
        ({"state": "failed", "reason": "slot 0 failed"}, "slot 0 failed"),
        ({"state": "failed", "count": 2, "tally": {"completed": 1}}, "1 of 2 completed"),
        ({"state": "stopped", "count": 2}, "0 of 2 completed"),
        ({"state": "running", "stop_requested": True, "stop_reason": "enough"}, "stopping: enough"),
    ],
)
def test_a_job_says_how_it_is_in_one_sentence(differing, said):
    assert wording.job(Job(name="a-job", type="batch", **differing)) == said
