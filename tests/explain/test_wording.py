"""The sentences of reasons and jobs, one for each class, the same wherever they are read."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from orchestrator.explain import reasons, wording
from orchestrator.explain.reasons import (
    AllClosed,
    AwaitsBid,
    AwaitsLost,
    Completed,
    Delayed,
    Final,
    How,
    Impossible,
    Lack,
    NodeSilent,
    NoNode,
    NoPlaceInTime,
    NoRoom,
    Refused,
    Said,
    SlotFailed,
    SlotInterrupted,
    Starting,
    Stopped,
    ToEnd,
    TookTooLong,
    ToPlace,
    Unplaced,
)
from orchestrator.models import Job

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=40)

SENTENCES = {
    "slot 0 failed on local-3 at attempt 1 of 1: exit 1": SlotFailed(
        0, "local-3", 1, 1, final=Final.ATTEMPTS, exit_code=1, code="exit-code", message="it exited"
    ),
    "slot 2 failed on c-01 at attempt 1 of 3: no such program; trying again would not help":
        SlotFailed(2, "c-01", 1, 3, final=Final.NO_USE, message="no such program."),
    "slot 0 was lost with c-01 at attempt 1 of 3; lost executions are not retried": SlotFailed(
        0, "c-01", 1, 3, How.LOST, Final.NOT_RETRIED
    ),
    "slot 0 could not be given to c-01 at attempt 1 of 3: too large; trying again would not help":
        SlotFailed(0, "c-01", 1, 3, How.UNDELIVERED, Final.NO_USE, message="too large"),
    "slot 1 ran too long on c-01 at attempt 3 of 3": SlotFailed(1, "c-01", 3, 3, How.OVERRAN),
    "slot 0 was lost with c-01: its node has been silent too long; on_lost is fail":
        SlotInterrupted(0, "c-01", 1, 100, How.LOST, Final.ON_LOST,
                        "its node has been silent too long."),
    "slot 3 was interrupted on c-01; it is interruption 101, and 100 are allowed": SlotInterrupted(
        3, "c-01", 101, 100, How.INTERRUPTED, Final.INTERRUPTIONS
    ),
    "slot 3 was lost with c-01; it is interruption 2, and 1 is allowed": SlotInterrupted(
        3, "c-01", 2, 1, How.LOST, Final.INTERRUPTIONS
    ),
    "its slot has completed": Completed(1),
    "both slots have completed": Completed(2),
    "all 1,200 slots have completed": Completed(1200),
    "it asks for no slots": Completed(0),
    "by ana: wrong image": Stopped("user:ana", "wrong image."),
    "on request": Stopped(),
    "it took longer than the 1m the job may take in total": TookTooLong(60.0),
    "2 of 5 slots found no place within 30s: no room": NoPlaceInTime(2, 5, 30.0, NoRoom(2)),
    "1 of 1 slot found no place at once: there is no node": NoPlaceInTime(1, 1, 0, NoNode()),
    "waiting for a suitable node: 1 of 1 slot;"
    " impossible: needs 4 GPUs, the largest of 3 nodes has 2 GPUs": Unplaced(
        1, 1, Impossible(3, Lack.SIZE, "gpu", 4, 2)
    ),
    "impossible: the only node does not have the driver wasm": Impossible(1, Lack.DRIVER, "wasm"),
    "impossible: none of 3 nodes has the driver wasm": Impossible(3, Lack.DRIVER, "wasm"),
    "impossible: the only node does not satisfy zone = fra": Impossible(
        1, Lack.CONSTRAINT, "zone = fra"
    ),
    "impossible: none of 3 nodes satisfies all constraints and has the driver": Impossible(
        3, Lack.COMBINATION
    ),
    "impossible: none of 3 nodes offers enough of everything at once": Impossible(3, Lack.SIZES),
    "waiting for capacity: 2 of 5 slots; short of 0.5 cores and 1 GiB disk on the best of 2 nodes":
        Unplaced(2, 5, NoRoom(2, {"cpu": 500, "disk": 2**30})),
    "short of 1 core on the only node that fits": NoRoom(1, {"cpu": 1000}),
    "1 node could run it but takes no new work: 1 drains": AllClosed(1, {"drains": 1}),
    "3 nodes could run it but take no new work: 2 drain, 1 is lost": AllClosed(
        3, {"is lost": 1, "drains": 2}
    ),
    "waiting for nodes that have refused: 1 of 1 slot; asked again at 2026-03-01 12:00:40 UTC":
        Unplaced(1, 1, Refused(LATER)),
    "slot 0 failed on c-01 at attempt 1 of 3: exit 7;"
    " 1 slot is tried again at 2026-03-01 12:00:40 UTC": Delayed(
        1, LATER, SlotFailed(0, "c-01", 1, 3, exit_code=7, code="exit-code")
    ),
    "2 slots are tried again, the next at 2026-03-01 12:00:40 UTC": Delayed(2, LATER),
    "1 slot waiting for a lost node to return: c-01": AwaitsLost(1, ("c-01",)),
    "9 slots waiting for lost nodes to return: a, b, c and 2 others": AwaitsLost(
        9, ("a", "b", "c"), 2
    ),
    "waiting for a bid from local-3, asked at 2026-03-01 12:00:00 UTC": AwaitsBid(
        1, ("local-3",), NOON
    ),
    "waiting for 4 bids from a, b, c and 1 other, asked at 2026-03-01 12:00:00 UTC": AwaitsBid(
        4, ("a", "b", "c"), NOON, 1
    ),
    "1 execution about to start on c-01": Starting(1, ("c-01",)),
    "2 executions about to start": Starting(2),
    "1 slot to place": ToPlace(1),
    "3 executions still to end": ToEnd(3),
    "nothing is heard of local-3, which holds 1 execution of this job; the last word came"
    " at 2026-03-01 12:00:00 UTC": NodeSilent("local-3", NOON, 1),
    "words of an earlier release": Said("words of an earlier release"),
}  # fmt: skip


@pytest.mark.parametrize("said", SENTENCES)
def test_every_class_of_reason_has_its_sentence(said):
    assert wording.text(wording.reason(SENTENCES[said])) == said


def test_no_class_is_forgotten():
    inner = {type(it.why) for it in SENTENCES.values() if isinstance(it, Unplaced | NoPlaceInTime)}
    assert {type(it) for it in SENTENCES.values()} | inner == set(reasons.Reason.__args__)
    assert all(isinstance(reasons.cause(it), reasons.Cause) for it in SENTENCES.values())


@pytest.mark.parametrize("it", SENTENCES.values(), ids=SENTENCES)
def test_what_is_stored_is_read_again_as_it_was(it):
    stored = msgspec.json.decode(msgspec.json.encode(reasons.dump([it])))
    assert reasons.load(stored) == (it,)


def test_what_an_earlier_release_stored_is_a_sentence_and_a_later_one_a_word():
    assert reasons.load("short of 2 cpu") == (Said("short of 2 cpu"),)
    assert reasons.load("") == reasons.load([]) == ()
    assert reasons.load([{"is": "quota-reached", "key": "gpu"}]) == (Said("quota reached"),)


FAILED = reasons.dump([SlotFailed(1, "c-01", 3, 3, exit_code=1, code="exit-code")])
WAITS = reasons.dump([Unplaced(2, 5, NoRoom(2, {"cpu": 500}))])


@pytest.mark.parametrize(
    ("differing", "said"),
    [
        ({"state": "pending"}, "waits for its evaluation"),
        ({"state": "queued", "reason": "short of 2 cpu"}, "short of 2 cpu"),
        ({"state": "queued"}, "nothing runs yet"),
        ({"state": "running", "count": 2, "tally": {"running": 3}}, "2 running"),
        ({"state": "running", "tally": {"ask_for_bid": 3}}, "1 starting"),
        (
            {"state": "running", "count": 5, "tally": {"completed": 1, "running": 2}},
            "2 running, 2 waiting and 1 of 5 completed",
        ),
        (
            {"state": "running", "count": 5, "tally": {"running": 3}, "reason": WAITS},
            "3 running; waiting for capacity: 2 of 5 slots; short of 0.5 cores on the best of"
            " 2 nodes",
        ),
        (
            {"state": "completed", "count": 6, "ended_at": LATER},
            "all 6 slots have completed after 40 s",
        ),
        ({"state": "completed", "ended_at": LATER}, "its slot has completed after 40 s"),
        ({"state": "completed", "count": 0}, "it asks for no slots"),
        (
            {"state": "failed", "count": 5, "tally": {"completed": 2}, "reason": FAILED,
             "ended_at": LATER},
            "slot 1 failed on c-01 at attempt 3 of 3: exit 1; 2 of 5 slots completed after 40 s",
        ),
        ({"state": "failed", "ended_at": LATER}, "0 of 1 slot completed after 40 s"),
        (
            {"state": "stopped", "count": 2, "stopped_by": "user:ana",
             "stop_reason": "wrong image"},
            "by ana: wrong image; 0 of 2 slots completed",
        ),
        (
            {"state": "running", "stop_requested": True, "stopped_by": "user:ana",
             "stop_reason": "enough", "reason": reasons.dump([ToEnd(1)])},
            "stopping, asked for by ana: enough; 1 execution still to end",
        ),
        (
            {"state": "running", "stop_requested": True, "stopped_by": "user:ana",
             "stop_reason": "enough", "reason": reasons.dump([AwaitsLost(1, ("c-01",))])},
            "stopping, asked for by ana: enough",
        ),
    ],
)  # fmt: skip
def test_a_job_says_how_it_is_in_one_sentence(differing, said):
    row = Job(name="a-job", type="batch", round_at=NOON, **differing)
    assert wording.text(wording.job(row)) == said


def test_a_silent_node_comes_before_what_its_job_seems_to_do():
    row = Job(name="a-job", type="batch", state="running", tally={"running": 1})
    said = wording.text(wording.job(row, [NodeSilent("local-3", NOON, 1)]))
    assert said.startswith("nothing is heard of local-3, which holds 1 execution of this job;")
    assert said.endswith("; 1 running")


def test_the_journal_begins_with_what_became_of_the_job():
    assert wording.ending("etl", "failed", [TookTooLong(60.0)]).startswith("etl is failed: it took")
    assert wording.ending("etl", "stopped", [Stopped("user:ana")]) == "etl is stopped by ana"
    assert wording.ending("etl", "running", []) == "etl is running"


def test_a_whole_sentence_has_a_beginning_and_an_end():
    assert wording.whole(("asked ", NOON)) == ("Asked ", NOON, ".")
    assert wording.whole(("no room",)) == ("No room.",)
    assert wording.whole(()) == ()
