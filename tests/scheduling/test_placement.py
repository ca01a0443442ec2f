"""Which nodes are chosen, and why not the others."""

import json
from collections import Counter

import numpy as np
import pytest

from orchestrator.explain.reasons import Impossible, Lack, NoNode
from orchestrator.scheduling.feasibility import demand, refusal, refusals
from orchestrator.scheduling.placement import MOST_SHAPES, choose
from orchestrator.scheduling.placement_record import blocked, record
from orchestrator.scheduling.ranking import Question, scores, totals
from tests.scheduling.worlds import GIB, NOW, cluster, job_spec, node, seconds


def question(count=1, algorithm="binpack", used=None, failures=None, avoid=(), **job):
    spec = job_spec(count=count, **job)
    return Question(
        demand=demand(spec),
        algorithm=algorithm,
        affinities=spec.affinities,
        spread=spec.spread,
        count=count,
        used=used or {},
        failures=failures or {},
        avoid=frozenset(avoid),
    )


def names(here, chosen):
    return ["+".join(here.nodes.ids[row] for row in rows) for rows in chosen]


HALF = (2000, 4 * GIB, 0, 0)


def test_bin_packing_fills_the_fuller_node_and_spreading_the_emptier():
    here = cluster("n1", node("n2", used=HALF))
    assert names(here, choose(here, question(), 1, now=NOW)) == ["n2"]
    assert names(here, choose(here, question(algorithm="spread"), 1, now=NOW)) == ["n1"]


@pytest.mark.parametrize("slots", [1, 2])
def test_the_first_and_the_later_looks_at_a_shape_agree(slots):
    here = cluster(*(node(f"n{i}", used=(i * 100, 0, 0, 0)) for i in range(9)))
    first = choose(here, question(), slots, now=NOW)
    assert choose(here, question(), slots, now=NOW) == first
    assert choose(here, question(), slots, now=NOW) == first


def test_what_others_took_counts():
    here = cluster(node("n1", cpu=200, used=(100, 0, 0, 0)), node("n2", cpu=200))
    chosen = []
    while picked := choose(here, question(), 1, now=NOW):
        [(row,)] = picked
        here.take(here.nodes.ids[row], question().demand.need)
        chosen.append(here.nodes.ids[row])
    assert chosen == ["n1", "n2", "n2"]


def test_amounts_written_over_count_at_the_next_instant():
    here = cluster("n1", node("n2", used=HALF))
    for _ in range(3):
        assert names(here, choose(here, question(), 1, now=NOW)) == ["n2"]
    here.allocated[:] = [HALF, (0, 0, 0, 0)]
    assert names(here, choose(here, question(), 1, now=NOW + seconds(1))) == ["n1"]


def test_many_shapes_are_placed_alike_and_not_all_remembered():
    here = cluster(*(node(f"n{i}", used=(i * 100, 0, 0, 0)) for i in range(9)))
    for _ in range(3):
        for size in range(64, 84):
            asked = question(resources={"memory": f"{size}MiB"})
            assert names(here, choose(here, asked, 1, now=NOW)) == ["n8"]
            assert len(choose(here, asked, 2, now=NOW)) == 2
    assert sum(it is not None for it in here.memo["shapes"].values()) == MOST_SHAPES


def test_exactly_as_many_as_fit():
    here = cluster(node("n1", cpu=350), node("n2", cpu=250), node("n3", cpu=50))
    chosen = choose(here, question(count=9), 9, now=NOW)
    assert Counter(names(here, chosen)) == {"n1": 3, "n2": 2}


def test_the_emptiest_dimension_decides():
    here = cluster(node("n1", memory=GIB), node("n2", disk=0), node("n3", gpu=0), node("n4", gpu=2))
    asked = question(count=5, resources={"memory": "1GiB", "disk": "1GiB", "gpu": 1})
    assert names(here, choose(here, asked, 5, now=NOW)) == ["n4", "n4"]


def test_a_job_prefers_nodes_where_it_is_not():
    here = cluster("n1", "n2")
    asked = question(count=2, used={0: 1})
    assert names(here, choose(here, asked, 1, now=NOW)) == ["n2"]
    assert names(here, choose(here, asked, 1, now=NOW)) == ["n2"]


def test_a_job_avoids_nodes_where_it_failed_but_takes_them_when_there_is_no_other():
    here = cluster("n1", "n2")
    asked = question(failures={0: 1})
    assert names(here, choose(here, asked, 1, now=NOW)) == ["n2"]
    alone = cluster("n1")
    assert names(alone, choose(alone, asked, 1, now=NOW)) == ["n1"]


FULL = (3000, 6 * GIB, 0, 0)


@pytest.mark.parametrize(
    ("slots", "job"),
    [(1, {}), (2, {}), (2, {"spread": [{"over": "zone"}]}), (2, {"affinities": [{"match": "x"}]})],
)
def test_no_other_merit_brings_a_job_back_to_where_it_failed(slots, job):
    here = cluster(node("n1", used=FULL, zone="a", x="y"), node("n2", cpu=100, zone="b"))
    asked = question(count=slots, used={1: 9}, failures={0: 1}, **job)
    assert names(here, choose(here, asked, slots, now=NOW)) == ["n2", "n1"][:slots]


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("spread", [[], [{"over": "zone"}]])
def test_a_node_where_the_job_failed_is_not_asked_beside_another(slots, spread):
    here = cluster(node("n1", cpu=100), node("n2", used=FULL), node("n3", used=FULL))
    bad = question(count=2, failures={1: 1, 2: 1}, spread=spread)
    chosen = names(here, choose(here, bad, slots, now=NOW, ask=2))
    assert [sorted(it.split("+")) for it in chosen] == [["n1"], ["n2", "n3"]][:slots]


@pytest.mark.parametrize("spread", [[], [{"over": "zone"}]])
def test_each_slot_has_a_node_before_a_second_one_is_asked_for_any(spread):
    here = cluster(*(node(f"n{i}", cpu=100, zone=f"z{i}") for i in range(4)))
    chosen = choose(here, question(count=3, spread=spread), 3, now=NOW, ask=3)
    assert [len(rows) for rows in chosen] == [2, 1, 1]
    assert len({row for rows in chosen for row in rows}) == 4


def test_nodes_to_avoid_are_not_chosen():
    here = cluster("n1", "n2")
    for _ in range(3):
        assert choose(here, question(avoid=[0, 1]), 1, now=NOW) == []
        assert names(here, choose(here, question(avoid=[0]), 3, now=NOW)) == ["n2"] * 3


def test_preferences_outweigh_a_slightly_better_fit():
    here = cluster(node("n1", used=(400, 0, 0, 0)), node("n2", ssd="yes"), node("n3", spot="yes"))
    assert names(here, choose(here, question(affinities=[{"match": "ssd"}]), 1, now=NOW)) == ["n2"]
    disliked = question(affinities=[{"match": "spot", "weight": -100}])
    assert names(here, choose(here, disliked, 1, now=NOW)) == ["n1"]


def test_a_job_is_shared_out_evenly_over_the_values_of_a_label():
    zones = ["a"] * 6 + ["b"] * 2 + ["c"]
    here = cluster(*(node(f"n{i}", zone=zone) for i, zone in enumerate(zones)))
    asked = question(count=12, spread=[{"over": "zone"}])
    chosen = choose(here, asked, 12, now=NOW)
    assert Counter(zones[row] for (row,) in chosen) == {"a": 4, "b": 4, "c": 4}


def test_spreading_counts_what_is_already_there_and_stays_soft():
    here = cluster(node("n1", zone="a"), node("n2", zone="b"), "n3")
    asked = question(count=4, used={0: 2}, spread=[{"over": "zone"}])
    assert names(here, choose(here, asked, 2, now=NOW)) == ["n2", "n2"]
    tight = cluster(node("n1", zone="a"), node("n2", zone="b", cpu=100))
    chosen = choose(tight, question(count=4, spread=[{"over": "zone"}]), 4, now=NOW)
    assert Counter(names(tight, chosen)) == {"n1": 3, "n2": 1}


def test_few_executions_go_to_as_many_values_of_a_label():
    here = cluster(*(node(f"{zone}{i}", zone=zone) for zone in "abcdef" for i in "12"))
    asked = question(count=3, spread=[{"over": "zone"}])
    assert len({name[0] for name in names(here, choose(here, asked, 3, now=NOW))}) == 3
    assert scores(here, asked, 0)[-1].reason == "zone = a has 0 of an even share of 1.0"


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_node_without_the_label_comes_after_every_value_of_it(count):
    here = cluster(node("none", used=HALF), *(node(f"n{zone}", zone=zone) for zone in "abcd"))
    asked = question(count=count, used={1: count}, spread=[{"over": "zone"}])
    points = {here.nodes.ids[row]: scores(here, asked, row)[-1].points for row in range(5)}
    assert points["none"] < points["na"] < points["nb"] == points["nd"] == 1
    assert scores(here, asked, 0)[-1].reason == "no label zone"


def test_a_share_is_even_over_the_values_of_nodes_that_could_run_it_full_or_not():
    """Nodes without the label, that take no work, or that do not suit the job have no share."""
    full = node("nb", zone="b", used=(4000, 0, 0, 0))
    others = [node("nc", zone="c", unready="drains"), node("nd", zone="d", spot="yes"), "none"]
    here = cluster(node("na", zone="a"), full, *others)
    asked = question(count=4, constraints=["!spot"], spread=[{"over": "zone"}])
    assert scores(here, asked, 0)[-1].reason == "zone = a has 0 of an even share of 2.0"


def test_two_labels_to_spread_over_and_several_nodes_a_slot():
    here = cluster(*(node(f"n{i}", zone="ab"[i % 2], rack=f"r{i % 4}", cpu=400) for i in range(8)))
    asked = question(count=8, spread=[{"over": "zone"}, {"over": "rack", "weight": 10}])
    chosen = choose(here, asked, 8, now=NOW, ask=3)
    assert all(len(set(rows)) == len(rows) == 3 for rows in chosen)
    chosen = choose(here, asked, 100, now=NOW, ask=1)
    assert len(chosen) == 32


def test_every_scorer_gives_points_and_a_reason():
    here = cluster(node("n1", used=HALF, zone="a"), node("n2", zone="b"))
    asked = question(
        count=4,
        used={0: 1},
        failures={0: 2},
        affinities=[{"match": "zone = a", "weight": 50}, {"match": "zone = b"}],
        spread=[{"over": "zone"}],
    )
    given = {score.name: score for score in scores(here, asked, 0)}
    assert list(given) == ["fit", "affinity", "anti-affinity", "spread", "failures"]
    assert given["fit"].reason == "52% of cpu and 51% of memory used after it, full nodes first"
    assert given["anti-affinity"].points == -0.5
    assert given["affinity"].reason == "meets 1 of 2 preferences: zone = a"
    assert given["spread"].reason == "zone = a has 1 of an even share of 2.0"
    assert given["failures"].reason == "this job has failed there 2 times"
    total = sum(score.points for score in given.values())
    assert totals(here, asked, np.array([0]))[0] == pytest.approx(total)


# --- why not -----------------------------------------------------------------------------------


def test_a_refusal_is_a_sentence_with_numbers_and_explaining_tells_all_of_them():
    here = cluster(
        node("n1"),
        node("n2", used=(3900, 8 * GIB - 2**20, 0, 0), arch="arm64", unready="drains"),
    )
    asked = demand(job_spec(constraints=["arch = amd64, !spot"], resources={"cpu": "500m"}))
    assert refusal(here, 0, asked) == "has no label arch, needs arch = amd64"
    assert refusals(here, 1, asked) == [
        "drains",
        "has arch = arm64, needs arch = amd64",
        "has 0.1 cores free, needs 0.5 cores",
        "has 1 MiB memory free, needs 64 MiB memory",
    ]


def test_a_node_that_can_run_it_refuses_nothing():
    here = cluster(node("n1"))
    assert refusal(here, 0, demand(job_spec())) is None


def test_too_small_and_too_full_are_told_apart():
    here = cluster(node("n1", cpu=1000, used=(900, 0, 0, 0)))
    assert refusal(here, 0, demand(job_spec(resources={"cpu": 2}))) == (
        "has 1 core in all, needs 2 cores"
    )
    assert refusal(here, 0, demand(job_spec(resources={"cpu": 1}))) == (
        "has 0.1 cores free, needs 1 core"
    )


def test_what_a_shrunk_node_still_runs_is_nothing_that_it_could_give():
    """Its capacity is what is allocated there: more than it offers now."""
    here = cluster(node("n1", cpu=4000, used=(4000, 0, 0, 0)))
    here.nodes.offered[:] = [(1000, 8 * GIB, 100 * GIB, 0)]
    asked = demand(job_spec(resources={"cpu": 2}))
    assert refusal(here, 0, asked) == "has 1 core in all, needs 2 cores"
    assert blocked(here, asked, 1, NOW).why == Impossible(1, Lack.SIZE, "cpu", 2000, 1000)


def test_what_only_a_rejected_node_could_run_is_impossible():
    here = cluster(node("n1", cpu=8000, unready="was rejected", gpu=1), "n2")
    asked = demand(job_spec(resources={"cpu": 8}))
    assert blocked(here, asked, 1, NOW).why == Impossible(1, Lack.SIZE, "cpu", 8000, 4000)
    gone = cluster(node("n1", unready="was rejected"))
    assert blocked(gone, demand(job_spec()), 1, NOW).why == NoNode()


def test_what_needs_none_of_something_fits_however_little_there_is_of_it():
    here = cluster(node("n1", used=(0, 0, 0, 3)))
    asked = demand(job_spec())
    assert refusal(here, 0, asked) is None
    assert record(here, asked)["could_run_now"] == 1
    for _ in range(2):
        assert names(here, choose(here, question(), 1, now=NOW)) == ["n1"]


def test_a_missing_driver_is_named_with_those_there_are():
    here = cluster(node("n1"))
    asked = demand(job_spec(task={"command": ["x"], "driver": "docker"}))
    assert refusal(here, 0, asked) == "has no driver docker, it has process"


def test_the_record_is_the_funnel_with_the_nearest_misses():
    here = cluster(
        node("n1", arch="amd64", used=(3500, 0, 0, 0)),
        node("n2", arch="arm64"),
        node("n3", arch="amd64", unready="drains"),
        node("n4", arch="arm64", unready="drains"),
    )
    asked = demand(job_spec(constraints=["arch = amd64"], resources={"cpu": 1}))
    made = record(here, asked)
    assert json.loads(json.dumps(made)) == made
    assert made["known"] == 4
    assert made["ready"] == {"pass": 2, "only_blocker": 1}
    assert made["unready"] == {"drains": 2}
    assert made["driver"] == {"name": "process", "pass": 4, "only_blocker": 0}
    assert made["constraints"] == [{"text": "arch = amd64", "pass": 2, "only_blocker": 1}]
    assert made["fit"]["cpu"] == {"pass": 3, "only_blocker": 1}
    assert made["fit"]["memory"] == {"pass": 4, "only_blocker": 0}
    assert (made["eligible"], made["large_enough"], made["could_run_now"]) == (1, 4, 0)
    assert [(it["name"], it["short"]) for it in made["nearest"][:2]] == [
        ("N1", {"cpu": 500}),
        ("N2", {}),
    ]
    assert made["nearest"][0]["refusals"] == ["has 0.5 cores free, needs 1 core"]
    assert len(record(cluster(*(f"n{i}" for i in range(9))), asked)["nearest"]) == 5


def test_the_record_follows_what_is_taken():
    here = cluster(node("n1"))
    asked = demand(job_spec(resources={"cpu": 4}))
    assert record(here, asked)["could_run_now"] == 1
    here.take("n1", asked.need)
    assert record(here, asked)["could_run_now"] == 0


def test_the_record_of_an_empty_cluster_is_all_zeros():
    made = record(cluster(), demand(job_spec()))
    assert (made["known"], made["nearest"]) == (0, [])
