"""The list of bad inputs, row by row: each is tried here or elsewhere, or waits for a feature."""

from __future__ import annotations

from pathlib import Path

from tests.bad_inputs import (  # noqa: F401 - to be read is what fills the table.
    test_api,
    test_cli,
    test_configuration,
    test_joining,
    test_pages_admin,
    test_sockets,
)
from tests.bad_inputs.table import TRIED

ROWS = range(1, 132)
TESTS = Path(__file__).parent.parent

#: Tried, or tried further, by tests that were there before, and are not repeated.
ELSEWHERE: dict[int, str] = {
    **dict.fromkeys(range(1, 14), "spec/test_bad_input.py"),
    **dict.fromkeys((14, 15, 17, 18, 20, 21, 22, 39, 40, 41), "spec/test_bad_input.py"),
    19: "api/test_jobs.py",
    24: "spec/test_selectors.py",
    25: "spec/test_contradictions.py",
    26: "spec/test_bad_input.py",
    42: "orchestrator/test_secrets.py",
    43: "cli/test_secrets.py",
    44: "api/test_jobs.py",
    45: "api/test_preconditions.py",
    46: "api/test_idempotency.py",
    47: "api/test_concurrency.py",
    48: "api/test_authentication.py",
    49: "security/test_hostile_user.py",
    53: "security/test_hostile_user.py",
    55: "server/test_front_door.py",
    61: "api/test_logs.py",
    62: "endpoint/test_logs.py",
    64: "api/test_idempotency.py",
    **dict.fromkeys((66, 67, 68), "cli/test_jobfile.py"),
    **dict.fromkeys((70, 75), "cli/test_reaching.py"),
    **dict.fromkeys((72, 73, 74), "cli/test_muster.py"),
    76: "cli/test_sanitise.py",
    **dict.fromkeys((77, 78, 79, 80, 81, 82, 86, 101), "nodes/test_refusals.py"),
    **dict.fromkeys((83, 84), "nodes/test_daphne.py"),
    85: "nodes/test_slow_links.py",
    87: "nodes/test_late_and_lost.py",
    **dict.fromkeys((88, 92, 97), "orchestrator/test_reports.py"),
    90: "orchestrator/test_walk.py",
    **dict.fromkeys((93, 94, 95), "security/test_hostile_node.py"),
    96: "nodes/test_log_forwarding.py",
    98: "nodes/test_refusals.py",
    99: "nodes/test_presence.py",
    **dict.fromkeys((102, 103), "nodes/test_membership.py"),
    107: "agent/test_enrolment.py",
    108: "nodes/test_refusals.py",
    109: "agent/test_rotation.py",
    110: "admin/test_admin.py",
    111: "orchestrator/test_triggers.py",
    113: "server/test_q_admin.py",
    117: "dashboard/test_live.py",
    119: "browser/test_kept_true.py",
    127: "server/test_few_files.py",
    128: "server/test_listen_address.py",
    129: "agent/test_ledger.py",
    130: "security/test_hostile_task.py",
    131: "orchestrator/test_migrations.py",
}

#: Not tried yet: what a row is about does not exist.
WAITS: dict[int, str] = {
    30: "volumes",
    31: "artifacts",
    32: "inputs from addresses",
    33: "inputs from addresses",
    34: "inputs from addresses",
    35: "archives as inputs",
    36: "archives as inputs",
    37: "jobs on a schedule",
    38: "jobs on a schedule",
    60: "quotas",
    65: "events since a time",
    100: "clocks of nodes compared",
    105: "machines known again by their id",
    106: "keys of nodes in place of credentials",
    114: "jobs edited on pages",
    120: "exports as CSV",
    124: "connection poolers noticed",
}

#: Being mended at this moment, and whose tests come with that.
UNDER_WAY: dict[int, str] = {
    56: "limits of requests",
    57: "what Daphne believes of a request",
    63: "limits of requests",
    121: "settings that are weak",
    122: "settings that are weak",
    123: "settings that are weak",
}


def test_every_row_is_tried_or_waits_for_a_feature_that_is_named():
    assert TRIED | ELSEWHERE.keys() | WAITS.keys() | UNDER_WAY.keys() == set(ROWS)


def test_no_row_both_waits_and_is_tried_as_a_whole():
    waiting = WAITS.keys() | UNDER_WAY.keys()
    assert not waiting & ELSEWHERE.keys()
    assert waiting & TRIED <= {106}  # What an agent says in place of a key is tried.


def test_tests_that_are_named_exist():
    missing = {it for it in ELSEWHERE.values() if not (TESTS / it).is_file()}
    assert not missing
