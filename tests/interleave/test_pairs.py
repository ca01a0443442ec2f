"""A sample of all interleavings in the automatic tests; ``make interleave`` runs all of them."""

import itertools
import math
import os
import random
import time

import pytest

from nodes.errors import Quarantined

from .holding import Lane
from .pairs import Pair
from .scenes import SCENES, Stage
from .verbs import VERBS

pytestmark = pytest.mark.django_db(transaction=True)

#: ``INTERLEAVE=all`` tries every pair; anything else is the seed of the sample.
SEED = os.environ.get("INTERLEAVE", "1")
IS_SAMPLE = SEED != "all"
#: ``VERBS=stop,plan`` tries only these, in both roles.
NAMES = [name for name in os.environ.get("VERBS", "").split(",") if name] or list(VERBS)
#: Of the sample, how long each scene is tried, in seconds.
SECONDS = 5.0


#: In a sample each scene chooses among all pairs; else each of the verbs is held in each scene.
CASES = list(itertools.product(SCENES, ["any verb"] if IS_SAMPLE else NAMES))


@pytest.fixture(scope="module")
def lanes():
    both = Lane(), Lane()
    yield both
    for lane in both:
        lane.close()


@pytest.mark.parametrize(("scene", "held"), CASES)
def test_two_verbs_that_meet_end_as_one_after_the_other(scene, held, lanes, record_property):
    firsts = [held] if held in NAMES else NAMES
    stage = Stage(scene)
    pairs = [Pair(stage, lanes, first, second) for first in firsts for second in NAMES]
    if IS_SAMPLE:
        random.Random(f"{SEED} {scene}").shuffle(pairs)
    end = time.monotonic() + (SECONDS if IS_SAMPLE else math.inf)
    runs, found = 0, []
    for pair in itertools.takewhile(lambda _: time.monotonic() < end, pairs):
        pair.check()
        runs += pair.runs
        found += pair.found
    record_property("interleavings", runs)
    assert runs
    assert not found, "\n".join(found[:20]) + f"\n({len(found)} in all)"


@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_can_be_made(scene):
    assert SCENES[scene]().leases


def test_time_finds_the_silent_node_and_what_ran_there():
    it = SCENES["a_silent_node_has_work"]()
    VERBS["mark-silent"](it)
    VERBS["lose-silent"](it)
    it.execution.refresh_from_db()
    assert it.execution.observed == "lost"


def test_a_copy_of_a_node_that_is_alive_is_found_out():
    it = SCENES["one_of_two_runs"]()
    VERBS["greet"](it)
    with pytest.raises(Quarantined):
        VERBS["greet-copy"](it)
