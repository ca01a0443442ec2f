from datetime import timedelta
from uuid import UUID

import pytest

from dashboard.presenters import nodes, overview, queue
from dashboard.queries.overview import Minute
from dashboard.queries.queue import InState
from nodes.models import NodeHeartbeat
from orchestrator.explain.reasons import Impossible, Lack
from orchestrator.explain.wording import text
from orchestrator.models import Evaluation, WorkerProcess
from tests.dashboard.made import NOON, at, blocked, job, node, standing


@pytest.mark.parametrize(
    ("differing", "said", "well"),
    [
        (
            {},
            "All is well: every node answers, no job is stuck, none failed in the last hour.",
            True,
        ),
        (
            {"failures": 17},
            "All is well: every node answers, no job is stuck, none failed in the last hour;"
            " 17 executions did.",
            True,
        ),
        ({"known": 0}, "No job is stuck, none failed in the last hour.", False),
        (
            {"troubled": True},
            "Beyond what is said above, no job is stuck, none failed in the last hour.",
            False,
        ),
    ],
)
def test_a_calm_cluster_says_no_more_than_is_so(differing, said, well):
    calm = overview.attention([], [], [], cap=100, **differing)
    assert calm == overview.Attention(items=[], more="", calm=said, well=well)


def test_the_worst_comes_first_and_each_item_says_what_to_do():
    items = overview.attention(
        [node(name="gpu", approval="pending"), node(name="edge", connection="lost")],
        [(it := job(name="train", reason="short of 2 cpu"), blocked(it)),
         (it := job(name="never"), blocked(it, Impossible(1, Lack.DRIVER))),
         (it := job(name="bad"), standing(it, "dead", dead_letter="KeyError: 'x'", deliveries=5)),
         (it := job(name="late"), standing(it, "ready"))],
        [job(name="render", reason="slot 2 failed")],
        cap=100,
    ).items  # fmt: skip
    assert [(item.subject, item.word) for item in items] == [
        *(("bad", "dead letter"), ("edge", "lost"), ("never", "impossible"), ("render", "failed")),
        *(("late", "slow"), ("gpu", "awaits approval"), ("train", "blocked")),
    ]
    assert items[0].text == "Its evaluation failed 5 times: KeyError: 'x'"
    assert [item.subject for item in items if item.approve] == ["gpu"]


def test_equal_troubles_are_told_once_but_each_node_has_its_button():
    failed = [job(name=f"j-{n}", reason="exit 1 on local-1") for n in range(20)]
    pending = [node(id=UUID(int=n), name=f"n-{n}", approval="pending") for n in range(2)]
    found = overview.attention(pending, [], [*failed, job(name="other", reason="exit 2")], cap=100)
    assert [(item.subject, item.others) for item in found.items] == [
        *(("j-0", "and 19 other jobs"), ("other", "")),
        *(("n-0", ""), ("n-1", "")),
    ]


def test_what_is_not_shown_of_the_troubles_is_counted():
    found = overview.attention([], [], [job(reason=f"exit {n}") for n in range(22)], cap=100)
    assert (len(found.items), found.more) == (20, "and 2 other troubles")


def test_of_more_troubles_than_are_read_no_number_is_said_to_be_all():
    failed = [job(reason=f"exit {max(n, 5)}") for n in range(30)]
    nodes = [node(id=UUID(int=n), connection="lost") for n in range(3)]
    found = overview.attention(nodes, [], failed, cap=30)
    assert [it.others for it in found.items][:2] == ["and 2 other nodes", "and 5+ other jobs"]
    assert found.more == "and 6+ other troubles"


def test_the_tiles_count_and_say_of_what():
    tiles = overview.tiles(
        {"running": 4, "preparing": 1, "new": 2},
        {"queued": 3, "pending": 1},
        [Minute(0, 4, 1), Minute(59, 2, 2), Minute(60, 1, 9)],
        (2, 3),
        cap=1000,
        cap_failed=10_000,
    )
    assert [(tile.name, tile.value, tile.note) for tile in tiles] == [
        ("Executions running", "4", "1 starting"),
        ("Jobs waiting", "4", "3 queued, 1 not evaluated yet"),
        ("Executions failed", "3", "in the last hour"),
        ("Nodes ready", "2 of 3", "1 takes no new work"),
    ]


@pytest.mark.parametrize(
    ("ready", "known", "note", "look"),
    [
        (0, 0, "there is no node", "blocked"),
        (3, 3, "every one takes work", "ok"),
        (1, 3, "2 take no new work", "blocked"),
    ],
)
def test_nodes_that_take_no_work_are_counted(ready, known, note, look):
    tile = overview.tiles({}, {}, [], (ready, known), cap=1000, cap_failed=10_000)[-1]
    assert (tile.note, tile.look) == (note, look)


def test_a_bounded_count_says_so():
    tiles = overview.tiles({}, {}, [Minute(3, 0, 50)], (0, 0), cap=1000, cap_failed=50)
    assert tiles[2].value == "50+"


def test_waits_that_nobody_measured_are_left_out():
    found = overview.waits({"submit": (0.03, 0.09), "run": (None, None)})
    assert [(wait.text, wait.p50, wait.p95) for wait in found] == [
        ("Submit to running", "30 ms", "90 ms")
    ]


def test_a_node_that_was_never_heard_of_says_so():
    assert nodes.line(node(), 0).heard is None


def test_a_node_shows_what_it_runs_and_what_is_allocated():
    it = node(allocated_cpu=3800, labels={"zone": "fra"})
    it.heartbeat = NodeHeartbeat(node=it, seen_at=at(5))
    line = nodes.line(it, 2)
    assert (line.running, line.heard, line.labels) == (2, at(5), (("zone", "fra"),))
    assert [(bar.name, bar.percent, bar.hot) for bar in line.bars] == [
        ("cpu", 95, True),
        ("memory", 0, False),
    ]


def test_triggers_are_told_in_words():
    assert queue.triggers({"node-join": 1, "execution-failed": 3}) == (
        "a node joined and an execution failed (3 times)"
    )
    assert queue.triggers({"full-moon": 1}) == "full moon"
    assert queue.triggers({}) == "it is looked at again"


def test_a_state_of_the_queue_counts_with_a_bound_and_names_its_types():
    full = queue.state_box("blocked", InState(10_000, NOON, {"batch": 9_000, "ops": 1_000}), 10_000)
    assert (full.n, full.by_type, full.empty) == ("10,000+", "9,000 batch and 1,000 ops", False)
    assert queue.state_box("ready", InState(), 10_000).empty


def test_a_blocked_row_says_what_it_waits_for():
    row = queue.row(job(), blocked(job(), since=at(-840)))
    assert text(row.detail) == "short of 2 cores on the best of 2 nodes"
    assert row.since == at(-840), "it has waited since its first look"


def test_a_dead_letter_shows_its_error():
    assert queue.row(job(), standing(job(), "dead", dead_letter="KeyError")).detail == ("KeyError",)


def test_an_evaluation_says_why_it_was_asked_for_and_what_came_of_it():
    line = queue.line(
        Evaluation(
            pk=7, job=job(), state="complete", triggers={"job-submit": 1}, outcome="placed 3",
            waited_since=NOON, leased_at=at(0.004), finished_at=at(0.011), priority=50,
        )
    )  # fmt: skip
    assert (line.triggers, line.outcome) == ("The job was submitted", "placed 3")
    assert (line.waited, line.took) == ("4 ms", "7 ms")


def test_an_evaluation_that_broke_shows_the_last_line_of_its_error():
    broken = Evaluation(
        pk=8, job=job(), state="failed", error="Traceback\n  …\nKeyError: 'x'", leased_at=NOON,
        priority=50, finished_at=NOON,
    )  # fmt: skip
    assert queue.line(broken).outcome == "KeyError: 'x'"


def test_a_worker_that_is_not_heard_of_is_silent():
    it = WorkerProcess(name="w", pid=1, seen_at=NOON, evaluations=1200)
    assert queue.worker(it, NOON + timedelta(seconds=5)).word == "alive"
    assert queue.worker(it, NOON + timedelta(seconds=31)).word == "silent"
    assert queue.worker(it, NOON).evaluations == "1,200"
