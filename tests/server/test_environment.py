"""The environment: parsed once, and every mistake told."""

import re

import pytest

from orchestrator.server.environment import HOME, Misconfigured, Role, parse


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
                "MUSTER_INTERNAL_URL": "10.0.0.5:8000",
                "MUSTER_SECRET_KEY": "short",
            }
        )
    told = mistakes.value.mistakes
    assert len(told) == 6
    assert told[0] == "MUSTER_HOST means nothing to Muster. Did you mean MUSTER_HOSTS?"
    for name in ("WORKERS", "DEBUG", "ORIGINS", "INTERNAL_URL", "SECRET_KEY"):
        assert any(f"MUSTER_{name}" in mistake for mistake in told)


def test_names_of_our_other_programs_mean_nothing_here_and_are_no_mistake():
    parse({"MUSTER_TOKEN": "x", "MUSTER_SLOT": "3", "MUSTER_AGENT_NAME": "n", "PATH": "/bin"})


def test_every_name_that_a_program_or_the_manual_speaks_of_is_known():
    sources = [
        *(HOME / "docs").glob("*.md"),
        HOME / "README.md",
        *(HOME / "orchestrator" / "cli").glob("*.py"),
        *(HOME / "nodes" / "agent").glob("*.py"),
    ]
    names = {
        name for file in sources for name in re.findall(r"MUSTER_[A-Z_]*[A-Z]\b", file.read_text())
    }
    assert {"MUSTER_TOKEN_FILE", "MUSTER_AGENT_JOIN_TOKEN", "MUSTER_SLOT"} <= names
    try:
        parse(dict.fromkeys(names, ""))
    except Misconfigured as wrong:
        pytest.fail(str(wrong))


def test_a_misspelt_name_of_the_command_line_is_refused_with_the_right_one():
    with pytest.raises(Misconfigured, match=r"Did you mean MUSTER_TOKEN_FILE\?"):
        parse({"MUSTER_TOKENFILE": "x"})


def test_lists_are_separated_by_commas():
    assert parse({"MUSTER_HOSTS": "a.example, b.example"}).hosts == ("a.example", "b.example")
