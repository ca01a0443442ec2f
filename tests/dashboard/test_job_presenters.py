import dataclasses
from uuid import UUID

import pytest

from dashboard.presenters import explain, jobs, slots, specification
from orchestrator.explain.reasons import (
    AwaitsBid,
    AwaitsLost,
    Delayed,
    Impossible,
    Lack,
    NoRoom,
    SlotFailed,
    Starting,
    Unplaced,
    dump,
)
from orchestrator.explain.wording import text
from orchestrator.scheduling.slot_set import of_ranges
from orchestrator.scheduling.world import Progress
from tests.dashboard.made import at, blocked, job, standing


def test_slots_of_which_nothing_is_known_wait_while_the_job_lives():
    found = jobs.slots_by_look(10, {"completed": 3, "running": 2, "new": 1, "failed": 4}, "running")
    assert found == {"ok": 3, "running": 2, "starting": 0, "waiting": 5}


@pytest.mark.parametrize(
    ("count", "tally", "found"),
    [
        (1, {"ask_for_bid": 3}, {"starting": 1}),
        (2, {"running": 3}, {"running": 2}),
        (3, {"completed": 2, "running": 2, "ask_for_bid": 2}, {"ok": 2, "running": 1}),
        (2, {"completed": 5, "new": 4}, {"ok": 2}),
        (0, {"running": 1}, {}),
    ],
)
@pytest.mark.parametrize("state", ["queued", "running", "failed", "stopped"])
def test_slots_are_counted_once_however_many_executions_they_have(count, tally, found, state):
    counted = jobs.slots_by_look(count, tally, state)
    assert sum(counted.values()) == count
    assert {look: n for look, n in counted.items() if n} == found


def test_slots_of_a_failed_job_failed_or_were_given_up():
    found = jobs.slots_by_look(6, {"completed": 2, "failed": 3}, "failed", tried=1)
    assert {look: n for look, n in found.items() if n} == {"ok": 2, "failed": 1, "waiting": 3}


def test_slots_of_a_stopped_job_were_stopped_lost_or_never_run():
    head = jobs.head(
        job(state="stopped", count=5, tally={"completed": 1, "cancelled": 2, "lost": 1}), None
    )
    assert head.line.bar.label == "1 completed, 1 not run, 1 lost, 2 stopped"
    assert {"completed": "1", "stopped": "2", "lost": "1", "not run": "1"}.items() <= dict(
        head.figures
    ).items()


def test_what_waits_for_a_lost_node_is_lost_in_the_head_as_in_the_grid():
    waits = dump([AwaitsLost(1, ("c-01",))])
    row = job(state="running", count=2, tally={"running": 1, "lost": 1}, reason=waits)
    assert jobs.head(row, None).line.bar.label == "1 running, 1 lost"
    assert ("lost attempt", "1") in jobs.head(row, None).figures


def test_a_tally_of_words_that_nobody_knows_is_left_out():
    assert jobs.by_look({"running": 2, "sleeping": 9}) == {"running": 2}


def test_what_blocks_a_job_is_a_chip():
    it = job(state="queued", reason="no room")
    assert jobs.waits(it, None) is None
    assert jobs.waits(it, blocked(it)).word == "capacity"
    assert jobs.waits(it, blocked(it, NEVER.why)).word == "impossible"
    assert jobs.waits(it, standing(it, "dead", dead_letter="KeyError")).word == "dead letter"
    delayed = job(state="queued", reason=dump([Delayed(1, at(40))]))
    assert jobs.waits(delayed, standing(delayed, "waiting")).word == "delayed"


def test_what_no_node_could_run_looks_the_same_in_the_list_the_head_and_the_explanation():
    it = job(state="queued", reason=dump([NEVER]))
    line = jobs.line(it, blocked(it, NEVER.why))
    assert (line.shown.word, line.shown.look) == ("impossible", "failed")
    assert line.waits.look == explain.explain(NEVER).look == "failed"


def test_a_live_job_can_be_stopped_and_an_ended_one_run_again():
    live = jobs.head(job(state="running", tally={"running": 3}), None)
    stopping = jobs.head(job(state="running", stop_requested=True), None)
    ended = jobs.head(job(state="failed", ended_at=at(1)), None)
    assert (live.stop, live.rerun) == (True, False)
    assert (stopping.stop, stopping.stopping) == (False, True)
    assert (ended.stop, ended.rerun) == (False, True)
    assert live.effect == "Stops 3 executions that run now, and places nothing more."


def test_one_is_said_as_one():
    head = jobs.head(job(state="running", tally={"running": 1, "failed": 1}), None)
    assert head.effect == "Stops 1 execution that runs now, and places nothing more."
    assert ("slot", "1") in head.figures
    assert ("failed attempt", "1") in head.figures


def test_the_grid_shows_what_lives_over_what_is_accounted_for():
    progress = Progress(
        completed=of_ranges([(0, 1)]), failed_attempts={2: 1, 3: 3}, retry_at={2: at(60)}
    )
    live = [(4, "running", "running", UUID(int=9)), (5, "stopped", "running", UUID(int=8))]
    grid = slots.grid(7, live, progress, state="running")
    assert [cell.look for cell in grid.cells] == [
        *("ok", "ok", "waiting", "failed", "running", "starting", "waiting")
    ]
    assert grid.cells[2].title == "slot 2: waiting after 1 failed attempt, again at 12:01:00 UTC"
    assert grid.cells[4].execution == str(UUID(int=9))
    assert grid.cells[5].title == "slot 5: stopping"
    assert ("starting", "stopping", 1) in grid.legend


@pytest.mark.parametrize(
    ("live", "look"),
    [
        ([("running", "running"), ("stopped", "ask_for_bid")], "running"),
        ([("stopped", "ask_for_bid"), ("running", "running")], "running"),
        ([("pending", "ask_for_bid"), ("stopped", "running")], "starting"),
        ([("stopped", "failed"), ("pending", "new")], "waiting"),
        ([("stopped", "lost"), ("stopped", "failed")], "failed"),
    ],
    ids=["rival last", "rival first", "asked again", "tried again", "the newest"],
)
def test_of_several_executions_of_a_slot_the_wanted_one_is_shown(live, look):
    given = [(0, desired, observed, UUID(int=n)) for n, (desired, observed) in enumerate(live)]
    (cell,) = slots.grid(1, given, Progress(), state="running").cells
    assert cell.look == look


def test_slots_of_an_ended_job_that_never_ran_are_not_waiting():
    grid = slots.grid(2, [], Progress(completed=of_ranges([(0, 0)])), state="stopped")
    assert [cell.title for cell in grid.cells] == ["slot 0: completed", "slot 1: not run"]


def test_slots_of_a_stopped_job_that_had_run_say_so():
    over = [(0, "stopped", "cancelled", UUID(int=1)), (1, "stopped", "cancelled", UUID(int=2))]
    grid = slots.grid(3, over, Progress(completed=of_ranges([(1, 1)])), state="stopped")
    assert [cell.title for cell in grid.cells] == [
        *("slot 0: cancelled", "slot 1: completed", "slot 2: not run")
    ]
    assert grid.legend == (
        *(("ok", "completed", 1), ("waiting", "not run", 1), ("stopped", "stopped", 1)),
    )


def test_many_slots_share_cells_and_the_most_urgent_gives_the_look():
    live = [(5, "stopped", "failed", UUID(int=1))]
    grid = slots.grid(100_000, live, Progress(completed=of_ranges([(0, 49_999)])), state="running")
    assert len(grid.cells) == slots.MOST_CELLS
    assert grid.each == 250
    assert grid.cells[0].look == "failed"
    assert grid.cells[0].title == "slots 0 to 249: 1 failed, 249 completed"
    assert {look: n for look, _, n in grid.legend}["waiting"] == 50_000


def test_progress_beyond_the_count_is_ignored():
    grid = slots.grid(2, [(9, "running", "running", UUID(int=1))], Progress(
        completed=of_ranges([(0, 9)]), failed_attempts={7: 1}), state="running")  # fmt: skip
    assert [cell.look for cell in grid.cells] == ["ok", "ok"]


NEVER = Unplaced(1, 1, Impossible(4, Lack.SIZE, "gpu", 99, 0))

RECORD = {
    "known": 4,
    "ready": {"pass": 3, "only_blocker": 0},
    "unready": {"drains": 1},
    "driver": {"name": "process", "pass": 4, "only_blocker": 0},
    "constraints": [{"text": "zone = fra", "pass": 2, "only_blocker": 1}],
    "fit": {"cpu": {"pass": 1, "only_blocker": 2}, "gpu": {"pass": 4, "only_blocker": 0}},
    "could_run_now": 0,
    "large_enough": 4,
    "need": {"cpu": 2000, "memory": 2**30, "disk": 0, "gpu": 0},
    "nearest": [{"node": "n", "name": "c-01", "short": {"cpu": 500}, "refusals": []}],
}


def test_a_wait_for_capacity_is_a_funnel_with_numbers():
    found = explain.explain(Unplaced(1, 1, NoRoom(2, {"cpu": 500})), RECORD)
    assert (found.kind, found.look) == ("capacity", "blocked")
    assert text(found.sentence) == "Short of 0.5 cores on the best of 2 nodes."
    assert found.needs == "2 cores, 1 GiB memory"
    assert [(step.text, step.passes, step.blocker) for step in found.steps] == [
        ("take new work (1 drains)", 3, 0),
        ("have the driver process", 4, 0),
        ("satisfy zone = fra", 2, 1),
        ("have the cores free (2 cores)", 1, 2),
        ("pass every check", 0, 0),
    ]
    assert found.nearest[0].refusals == ("lacks 0.5 cores",)


def test_impossible_and_full_are_never_confused():
    found = explain.explain(NEVER, RECORD)
    assert (found.kind, found.look) == ("impossible", "failed")
    assert text(found.sentence) == "Needs 99 GPUs, the largest of 4 nodes has 0 GPUs."
    assert found.act == "Change what the job asks for, or add a node that has it."


def test_an_evaluation_is_explained_by_the_reason_in_its_record_not_by_its_words():
    never = {**RECORD, "reason": dump([NEVER.why])[0]}
    assert explain.of_record(never).kind == "impossible"
    full = {**RECORD, "reason": dump([NoRoom(2, {"cpu": 500})])[0]}
    assert explain.of_record(full).kind == "capacity"


@pytest.mark.parametrize(
    ("differing", "kind"),
    [
        ({}, "capacity"),
        ({"large_enough": 0}, "impossible"),
        ({"driver": {"name": "wasm", "pass": 0}}, "impossible"),
        ({"constraints": [{"text": "gpu", "pass": 0}]}, "impossible"),
        ({"ready": {"pass": 0}}, "capacity"),
    ],
)
def test_a_record_of_an_earlier_release_is_judged_by_its_counts(differing, kind):
    assert explain.of_record({**RECORD, **differing}).kind == kind


def test_an_empty_record_still_gives_a_sentence():
    found = explain.of_record({})
    assert (found.kind, found.steps, found.nearest) == ("capacity", (), ())
    assert found.act == "An operator adds a node."


def test_back_off_is_called_delayed_and_says_until_when():
    last = SlotFailed(0, "c-01", 1, 3, exit_code=1, code="exit-code")
    found = explain.explain(Delayed(1, at(40), last))
    assert (found.kind, found.look) == ("delayed", "waiting")
    assert found.sentence[-2:] == (at(40), "."), "the page lets it tick"
    assert text(found.sentence) == (
        "Slot 0 failed on c-01 at attempt 1 of 3: exit 1;"
        " 1 slot is tried again at 2026-03-01 12:00:40 UTC."
    )


def test_of_several_reasons_the_gravest_is_explained_and_a_prompt_bid_is_none():
    bid, starting = AwaitsBid(1, ("c-01",), at(0)), Starting(1)
    assert explain.foremost([starting, bid], at(1)) is None
    assert explain.foremost([starting, bid], at(3)) is bid
    assert explain.foremost([bid, Delayed(1, at(9)), NEVER], at(3)) is NEVER


def test_a_specification_reads_as_people_write_it():
    spec = {
        "task": {"resources": {"memory": 2**30, "cpu": "500m"}, "command": ["sh", "-c", "a\nb"]},
        "timeouts": {"queue": None},
        "count": 2,
        "name": "etl",
    }
    lines = [f"{line.indent}{line.key} {line.value}".rstrip() for line in specification.lines(spec)]
    assert lines == [
        *("name: etl", "count: 2", "task:", "  command:", "    - sh", "    - -c", "    - |"),
        *("       a", "       b", "  resources:", "    cpu: 500m", "    memory: 1 GiB"),
    ]


def test_changes_of_a_version_are_named_by_path():
    before = {"count": 2, "task": {"command": ["a"], "env": {"X": "1"}}}
    after = {"count": 3, "task": {"command": ["a", "b"]}}
    assert [dataclasses.astuple(one) for one in specification.changes(before, after)] == [
        ("count", "2", "3"),
        ("task.command[1]", "", "b"),
        ("task.env.X", "1", ""),
    ]
