"""Why executions were stopped, in words."""

import pytest

from orchestrator.explain import stop_causes
from orchestrator.lifecycle import StopCause


def test_no_cause_is_without_words():
    assert stop_causes.WORDS.keys() == set(StopCause)


@pytest.mark.parametrize(
    ("cause", "detail", "sentence"),
    [
        ("job_stopped", "", "the job was stopped"),
        ("job_stopped", "wrong image", "the job was stopped: wrong image"),
        (StopCause.NODE_REJECTED, "user:ana", "its node was rejected by ana"),
        ("", "words of an earlier release", "words of an earlier release"),
        ("", "", ""),
        ("cause_of_a_later_one", "why", "cause of a later one: why"),
    ],
)
def test_a_cause_is_said_with_its_detail(cause, detail, sentence):
    assert stop_causes.sentence(cause, detail) == sentence
