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


def test_each_type_of_job_is_kept_as_long_as_all_unless_it_says_otherwise():
    read = parse({"MUSTER_KEEP_DAYS": "30", "MUSTER_KEEP_DAYS_SERVICE": "0"})
    assert (read.keep_days, read.keep_days_of) == (
        30,
        {"batch": 30, "service": 0, "ops": 30, "daemon": 30},
    )


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


RANDOM = "cXk2mQ8vT0aLr5yNw3sJf7hGd1bZp9uEoKiVxRtYqWnMjHgB4C"


def mistake(**environ):
    with pytest.raises(Misconfigured) as refused:
        parse(environ)
    (only,) = refused.value.mistakes
    return only


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("short", "has 5 characters; use 50 or more"),
        ("a" * 64, "repeats a few characters"),
        ("abcdefghi" * 8, "repeats a few characters"),
        ("0123456789ab" * 5, "repeats a few characters"),
        ("django-insecure-" + RANDOM, "says 'insecure'"),
        ("change-me-" + RANDOM, "says 'change-me'"),
        (RANDOM + "your-secret-key", "as examples do"),
    ],
)
def test_a_key_that_can_be_guessed_is_refused_with_a_way_to_make_one(key, why):
    said = mistake(MUSTER_SECRET_KEY=key)
    assert why in said
    assert "openssl rand" in said


def test_a_random_key_is_taken():
    assert parse({"MUSTER_SECRET_KEY": RANDOM}).secret_key == RANDOM


@pytest.mark.parametrize("host", ["*", "https://a.example", "a.example:8000", "a.example/x", "a b"])
def test_a_host_is_a_name_and_not_any(host):
    assert "MUSTER_HOSTS" in mistake(MUSTER_HOSTS=host)


@pytest.mark.parametrize(
    "by", [{"MUSTER_HOSTS": "a.example"}, {"MUSTER_ORIGINS": "https://a.example"}]
)
def test_debug_pages_are_not_for_others(by):
    assert "a.example" in mistake(MUSTER_DEBUG="1", **by)
    here = {"MUSTER_HOSTS": "localhost,[::1]", "MUSTER_ORIGINS": "http://localhost:8000"}
    assert parse({"MUSTER_DEBUG": "1", **here}).debug


def test_behind_https_no_page_comes_by_http():
    assert "http://a.example" in mistake(MUSTER_HTTPS="1", MUSTER_ORIGINS="http://a.example")


def test_the_owner_of_a_database_elsewhere_goes_with_its_address():
    owner = "postgres://owner@db/muster"
    assert "without DATABASE_URL" in mistake(MUSTER_MIGRATE_URL=owner)
    assert "MUSTER_MIGRATE_URL is no" in mistake(MUSTER_MIGRATE_URL="x", DATABASE_URL=owner)
    assert parse({"MUSTER_MIGRATE_URL": owner, "DATABASE_URL": owner}).migrate_url == owner
