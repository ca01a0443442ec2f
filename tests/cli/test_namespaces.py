"""Where the command line looks names up: what says it, and what it does with it."""

import pytest

from orchestrator.cli import config
from orchestrator.models import Job
from tests import rows

FILE = 'name: it\ntask: {command: ["true"]}\n'


def test_a_namespace_is_made_filled_listed_and_removed_when_it_is_empty(muster):
    rows.node()
    assert muster("namespace", "create", "team-a").stdout == "team-a is there.\n"
    file = muster.file(FILE)
    for words in (("-n", "team-a"), ()):  # The second in that which is meant where none is named.
        assert muster("job", "run", file, *words).stdout == "it is a new job\n"
    assert sorted(Job.objects.values_list("namespace", "name")) == [
        ("default", "it"),
        ("team-a", "it"),
    ]
    listed = muster("job", "list", "-A", "-o", "table", "--no-headers").stdout.split("\n")
    assert sorted(line.split()[:2] for line in listed if line) == [
        ["default", "it"],
        ["team-a", "it"],
    ]
    stopped = muster("--namespace=team-a", "job", "stop", "it")
    assert stopped.returncode == 0
    assert Job.objects.get(stop_requested=True).namespace_id == "team-a"
    shown = muster("job", "show", "it", "-o", "json", MUSTER_NAMESPACE="team-a").stdout
    assert '"namespace": "team-a"' in shown
    refused = muster("namespace", "delete", "team-a")
    assert "has jobs" in refused.stderr
    Job.objects.filter(namespace="team-a").delete()
    assert muster("namespace", "delete", "team-a").stdout == "team-a is removed.\n"


@pytest.mark.parametrize("environ", [{}, {"MUSTER_NAMESPACE": "*"}])
def test_a_list_of_all_namespaces_says_which(muster, environ):
    rows.job(name="it", namespace="team-a")
    flags = () if environ else ("-A",)
    listed = muster("job", "list", *flags, "-o", "table", **environ).stdout.split()
    assert (listed[0], "team-a" in listed) == ("NAMESPACE", True)


def test_a_file_and_a_flag_that_contradict_each_other_are_named_with_the_line(muster):
    refused = muster("job", "run", muster.file("namespace: here\n" + FILE), "-n", "there")
    assert "is here, but the request is for the namespace there" in refused.stderr
    assert "line 1" in refused.stderr
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("flag", "environ", "kept", "found"),
    [
        ("flag", "environ", "kept", "flag"),
        (None, "environ", "kept", "environ"),
        (None, "", "kept", "kept"),
        (None, "", "", ""),
    ],
)
def test_the_first_that_names_a_namespace_counts(tmp_path, flag, environ, kept, found):
    config.keep("http://there", "at_x", tmp_path / "muster" / "config.toml", kept)
    told = {"XDG_CONFIG_HOME": str(tmp_path), "MUSTER_NAMESPACE": environ, "MUSTER_VAR": "/none"}
    assert config.resolve(None, None, told, namespace=flag).namespace == found
