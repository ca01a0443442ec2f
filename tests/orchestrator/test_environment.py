"""The environment: parsed once, and every mistake told."""

import pytest

from orchestrator.environment import Misconfigured, Role, parse


def test_nothing_set_is_a_private_installation():
    read = parse({})
    assert (read.role, read.database_url, read.debug, read.https) == (
        Role.COMMAND,
        None,
        False,
        False,
    )
    assert read.var.name == "var"


def test_every_mistake_is_told_at_once_with_its_cure():
    with pytest.raises(Misconfigured) as mistakes:
        parse(
            {
                "MUSTER_HOST": "a",
                "MUSTER_WORKERS": "none",
                "MUSTER_DEBUG": "yes",
                "MUSTER_ORIGINS": "muster.example.org",
                "MUSTER_SECRET_KEY": "short",
            }
        )
    told = mistakes.value.mistakes
    assert len(told) == 5
    assert told[0] == "MUSTER_HOST means nothing to Muster. Did you mean MUSTER_HOSTS?"
    for name in ("WORKERS", "DEBUG", "ORIGINS", "SECRET_KEY"):
        assert any(f"MUSTER_{name}" in mistake for mistake in told)


def test_names_of_our_other_programs_mean_nothing_here_and_are_no_mistake():
    parse({"MUSTER_TOKEN": "x", "MUSTER_SLOT": "3", "MUSTER_AGENT_NAME": "n", "PATH": "/bin"})


def test_lists_are_separated_by_commas():
    assert parse({"MUSTER_HOSTS": "a.example, b.example"}).hosts == ("a.example", "b.example")
