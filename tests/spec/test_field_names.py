"""What an unknown field was meant to be."""

import pytest

from orchestrator import spec
from orchestrator.spec import field_names
from orchestrator.spec.parsing import InvalidSpec


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        # A level too high, and too low.
        ("resources", "Did you mean task.resources?"),
        ("memory", "Did you mean task.resources.memory?"),
        ("env", "Did you mean task.env?"),
        ("task.cpu", "Did you mean task.resources.cpu?"),
        ("attempts", "Did you mean retry.attempts?"),
        ("task.count", "Did you mean count, at the top level?"),
        ("task.resources.command", "Did you mean task.command?"),
        ("affinities.0.over", "Did you mean spread.over?"),
        ("retry.execution", "Did you mean timeouts.execution?"),
        # Misspelt, here or elsewhere.
        ("contraints", "Did you mean 'constraints'?"),
        ("task.comand", "Did you mean 'command'?"),
        ("drver", "Did you mean task.driver?"),
        # As others call it.
        ("Count", "Did you mean 'count'?"),
        ("replicas", "Did you mean 'count'?"),
        ("engine", "Did you mean task.driver?"),
        ("Resources", "Did you mean task.resources?"),
        ("MemoryMB", "Did you mean task.resources.memory?"),
        ("task.args", "Did you mean 'command'?"),
        ("task.environment", "Did you mean 'env'?"),
        ("nodeSelector", "Did you mean 'constraints'?"),
        ("task.restart_policy", "Did you mean retry, at the top level?"),
        ("kill_timeout", "Did you mean 'grace'?"),
        ("max_client_disconnect", "Did you mean 'on_lost'?"),
        # What has no counterpart.
        ("task.foo", "Known here: driver, command, env, config, resources, run_as, network."),
    ],
)
def test_an_unknown_field_is_told_the_nearest_path(path, cure):
    assert field_names.cure(path.split(".")) == cure


@pytest.mark.parametrize("name", ["image", "WorkingDir", "apiVersion", "datacenters", "ports"])
def test_what_there_is_not_is_told_what_stands_for_it(name):
    hint = field_names.cure([name])
    assert "Did you mean" not in hint
    assert "Known here" not in hint


def test_every_counterpart_is_a_field():
    paths = {path for _, path in field_names._paths()}
    assert set(field_names._COUNTERPARTS.values()) <= paths


def test_a_name_of_any_length_is_answered():
    assert field_names.cure(["x" * 200_000]).startswith("Known here: ")


@pytest.mark.parametrize(
    ("tool", "data"),
    [
        ("Compose", {"version": "3.9", "services": {"web": {"image": "nginx"}}}),
        ("Compose", {"name": "app", "services": {}, "volumes": {}}),
        ("Nomad", {"Job": {"ID": "a", "TaskGroups": []}}),
        ("Nomad", {"job": {"a": {"group": {}}}}),
        ("Kubernetes", {"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, "spec": {}}),
        ("Kubernetes", {"metadata": {"name": "a"}, "spec": {"template": {}}}),
    ],
)
def test_a_file_of_another_tool_is_told_as_that_and_nothing_else(tool, data):
    with pytest.raises(InvalidSpec) as refused:
        spec.parse(data)
    [only] = refused.value.errors
    assert only["message"] == f"is a file of {tool}, and no job file of Muster"
    assert "begins with name: and task:" in only["hint"]


@pytest.mark.parametrize("name", ["services", "job", "kind", "spec", "apiVersion"])
def test_one_such_field_in_a_job_file_is_told_as_itself(name):
    with pytest.raises(InvalidSpec) as refused:
        spec.parse({"name": "a", "task": {"command": ["true"]}, name: "x"})
    assert [it["path"] for it in refused.value.errors] == [name]
