"""What holds wherever executions are placed."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.scheduling.feasibility import demand, large_enough, refusal
from orchestrator.scheduling.placement import choose, how_many
from orchestrator.scheduling.placement_record import blocked, record
from orchestrator.scheduling.ranking import Question, totals
from tests.scheduling.worlds import GIB, MIB, NOW, cluster, job_spec, node, seconds


@st.composite
def nodes(draw):
    found = []
    for i in range(draw(st.integers(1, 7))):
        cpu, memory = draw(st.sampled_from([(1000, 2 * GIB), (2000, 2 * GIB), (4000, 8 * GIB)]))
        gpu = draw(st.integers(0, 2))
        zone = draw(st.sampled_from(["", "a", "b", "c"]))
        found.append(
            node(
                f"n{i}",
                cpu=cpu,
                memory=memory,
                gpu=gpu,
                used=(
                    draw(st.sampled_from([0, 300, cpu])),
                    draw(st.sampled_from([0, GIB])),
                    0,
                    draw(st.integers(0, gpu)),
                ),
                unready=draw(st.sampled_from(["", "", "", "drains"])),
                **({"zone": zone} if zone else {}),
            )
        )
    return found


@st.composite
def questions(draw, among):
    spec = job_spec(
        count=draw(st.integers(1, 8)),
        resources={
            "cpu": draw(st.sampled_from(["100m", "500m", 1, 3])),
            "memory": draw(st.sampled_from([64 * MIB, GIB])),
            "gpu": draw(st.sampled_from([0, 0, 1])),
        },
        constraints=draw(st.sampled_from([[], ["zone"], ["zone in (a, b)"], ["!zone"]])),
        affinities=[
            {"match": match, "weight": weight}
            for match, weight in draw(
                st.sampled_from([[], [("zone = a", 40)], [("zone = b", -30), ("!zone", 5)]])
            )
        ],
        spread=draw(st.sampled_from([[], [{"over": "zone"}]])),
    )
    rows = st.integers(0, len(among) - 1)
    return Question(
        demand(spec),
        draw(st.sampled_from(["binpack", "spread"])),
        spec.affinities,
        spec.spread,
        spec.count,
        used=draw(st.dictionaries(rows, st.sampled_from([0.5, 1, 2, 3]), max_size=3)),
        failures=draw(st.dictionaries(rows, st.integers(1, 3), max_size=2)),
        avoid=frozenset(draw(st.sets(rows, max_size=2))),
    )


ANY = st.data()
SLOTS, ASK = st.integers(1, 6), st.integers(1, 3)


@given(ANY)
def test_what_was_asked_before_does_not_change_the_answer(data):
    among = data.draw(nodes())
    warm = cluster(*among)
    for step in range(data.draw(st.integers(1, 4))):
        asked, slots, ask = data.draw(questions(among)), data.draw(SLOTS), data.draw(ASK)
        cold = cluster(*among)
        cold.allocated[:] = warm.allocated
        got = choose(warm, asked, slots, now=NOW + seconds(step // 2), ask=ask)
        assert got == choose(cold, asked, slots, now=NOW, ask=ask)
        for row in (row for rows in got for row in rows):
            warm.take(warm.nodes.ids[row], asked.demand.need)
        assert (warm.allocated <= warm.nodes.capacity).all()
        left = how_many(warm, asked)
        left[list(asked.avoid)] = 0
        assert len(got) == slots or not left.any(), "a short answer only when nothing more fits"


@given(ANY)
def test_the_first_choice_is_the_best_of_all_that_fit(data):
    among = data.draw(nodes())
    here, asked = cluster(*among), data.draw(questions(among))
    fitting = [
        row
        for row in range(len(among))
        if refusal(here, row, asked.demand) is None and row not in asked.avoid
    ]
    points = dict(zip(fitting, totals(here, asked, np.array(fitting, dtype=int)), strict=True))
    for slots in (1, 2):
        chosen = choose(here, asked, slots, now=NOW)
        assert bool(chosen) == bool(fitting)
        if chosen:
            best = chosen[0][0]
            assert points[best] >= max(points.values()) - 1e-9
            assert best not in asked.failures or all(row in asked.failures for row in fitting)


@given(ANY)
def test_to_ask_more_nodes_for_a_slot_costs_no_slot_its_place_or_its_best_node(data):
    among = data.draw(nodes())
    asked, slots, ask = data.draw(questions(among)), data.draw(SLOTS), data.draw(ASK)
    alone = choose(cluster(*among), asked, slots, now=NOW)
    chosen = choose(cluster(*among), asked, slots, now=NOW, ask=ask)
    assert [rows[:1] for rows in chosen] == alone
    for rows in chosen:
        assert len(set(rows)) == len(rows) <= ask
        assert len({row in asked.failures for row in rows}) == 1


@given(ANY)
def test_refusals_room_and_record_agree(data):
    among = data.draw(nodes())
    here, asked = cluster(*among), data.draw(questions(among))
    fits = [refusal(here, row, asked.demand) is None for row in range(len(among))]
    assert fits == (how_many(here, asked) > 0).tolist()
    made = record(here, asked.demand)
    assert made["could_run_now"] == sum(fits)
    assert made["large_enough"] == large_enough(here.nodes, asked.demand.need).sum()
    assert not (any(fits) and blocked(here, asked.demand, 1, NOW).impossible)


@settings(max_examples=50)
@given(ANY)
def test_one_more_node_places_no_fewer(data):
    among = data.draw(nodes())
    asked, slots, ask = data.draw(questions(among)), data.draw(SLOTS), data.draw(ASK)
    before = choose(cluster(*among), asked, slots, now=NOW, ask=ask)
    after = choose(cluster(*among, node("extra", zone="a")), asked, slots, now=NOW, ask=ask)
    assert len(after) >= len(before)
