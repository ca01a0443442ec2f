"""A sample of all interleavings in the automatic tests; ``make interleave`` runs all of them."""

import os
import random
import time

import pytest

from .pairs import all_pairs
from .scenes import SCENES
from .verbs import VERBS

pytestmark = pytest.mark.django_db(transaction=True)

#: ``INTERLEAVE=all`` tries every pair; a number is the seed of the sample.
CHOICE = os.environ.get("INTERLEAVE", "1")
SECONDS = 5.0


@pytest.mark.parametrize("scene", SCENES)
def test_two_verbs_that_meet_end_as_one_after_the_other(scene, capsys):
    pairs = [pair for pair in all_pairs() if pair.scene == scene and _is_asked_for(pair)]
    if CHOICE != "all":
        random.Random(f"{CHOICE} {scene}").shuffle(pairs)
    began, runs, found = time.monotonic(), 0, []
    for pair in pairs:
        pair.check()
        runs += pair.runs
        found += pair.found
        if CHOICE != "all" and time.monotonic() - began > SECONDS:
            break
    with capsys.disabled():
        print(f" {scene}: {runs} interleavings ", end="")  # noqa: T201 - what `make` is asked for
    assert runs
    assert not found, "\n".join(found[:20]) + f"\n({len(found)} in all)"


def _is_asked_for(pair):
    named = os.environ.get("VERBS", "").split(",")
    return named == [""] or {pair.first, pair.second} <= set(named)


def test_every_scene_can_be_made():
    for make in SCENES.values():
        make()


def test_every_verb_is_a_word():
    assert all(name.islower() for name in VERBS)
