"""A sample of what ``make faults`` tries: one call fails, or is the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.faults.plans import tell
from tests.agent.faults.story import Plan
from tests.agent.faults.tracing import why_not

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

SAMPLE = (
    Plan("supervisor", "write", "KILL", 3, "everybody"),
    Plan("agent", "fdatasync", "EIO", 8, is_synced=False),
    Plan("supervisor", "write", "ENOSPC, on and on", 1, "the agent, while all run"),
    Plan("supervisor", "write", "KILL", 1, is_synced=False),
    Plan("both", "write", "KILL", 2, "the agent too"),
    Plan("joining", "rename", "KILL", 2),
)


@pytest.mark.parametrize("plan", SAMPLE, ids=str)
async def test_whatever_fails_tasks_start_once_end_honestly_and_can_be_stopped(
    plan: Plan, tmp_path: Path
) -> None:
    verdict = await tell(plan, tmp_path)
    assert verdict.hit
    assert verdict.found == ()
