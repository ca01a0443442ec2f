"""What a job file may say, and that it survives being stored."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.protocol import codec
from nodes.protocol.messages import MAX_FRAME, Task
from nodes.protocol.resources import Resources
from orchestrator import spec
from orchestrator.lifecycle import JobType
from orchestrator.spec import InvalidSpec, quantities

MINIMAL = {"name": "count-words", "task": {"command": ["wc", "-w", "a.txt"]}}


STORED = Path(__file__).parent / "stored"


def body_of(it):
    """*it* without what is no part of its body."""
    parts = {name: getattr(it, name) for name in spec.JobBody.model_fields}
    return spec.JobBody.model_construct(**parts)


def parsed(**differing):
    return spec.parse({**MINIMAL, **differing})


def with_resources(**resources):
    task = {**MINIMAL["task"], "resources": resources}
    return parsed(task=task).resources


def test_the_smallest_job_file_has_sane_defaults():
    it = spec.parse(MINIMAL)
    assert (it.type, it.count, it.priority, it.approval, it.ask) == (
        JobType.BATCH,
        1,
        50,
        spec.Approval.BID,
        1,
    )
    assert it.resources == Resources(cpu=100, memory=64 * 2**20)
    assert (it.retry.attempts, it.retry.delay, it.retry.max_delay) == (3, 5.0, 300.0)
    assert it.retry.max_interruptions == 100
    assert (it.timeouts.execution, it.timeouts.queue, it.timeouts.total) == (None, None, None)
    assert (it.on_lost, it.grace) == (spec.OnLost.REPLACE, 10.0)
    assert it.task.as_message() == Task("process", ("wc", "-w", "a.txt"))


def test_a_task_is_sent_with_the_variables_of_its_execution():
    task = {"driver": "docker", "command": ["x"], "env": {"A": "1"}, "config": {"user": "nobody"}}
    assert parsed(task=task).task.as_message({"MUSTER_SLOT": "3"}) == Task(
        "docker", ("x",), {"A": "1", "MUSTER_SLOT": "3"}, {"user": "nobody"}
    )


@pytest.mark.parametrize(
    ("written", "millicores"),
    [("500m", 500), (0.5, 500), ("0.5", 500), (2, 2000), ("2", 2000), (0.001, 1), ("1.25", 1250)],
)
def test_cpu_is_cores_or_millicores(written, millicores):
    assert with_resources(cpu=written).cpu == millicores


@pytest.mark.parametrize(
    ("written", "count"),
    [
        (2**20, 2**20),
        ("64MiB", 64 * 2**20),
        ("64Mi", 64 * 2**20),
        ("64MB", 64 * 10**6),
        ("64M", 64 * 10**6),
        ("1.5GiB", 3 * 2**29),
        ("2 GB", 2 * 10**9),
        ("1048576B", 2**20),
        ("2000kB", 2 * 10**6),
        ("1TiB", 2**40),
    ],
)
def test_memory_is_bytes_with_decimal_or_binary_units(written, count):
    assert with_resources(memory=written).memory == count


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        (90, 90),
        ("90", 90),
        (1.5, 1.5),
        ("1500ms", 1.5),
        ("2d", 172800),
    ],
)
def test_durations_are_texts_with_units_or_seconds(written, expected):
    assert parsed(timeouts={"execution": written}).timeouts.execution == expected


def test_a_queue_timeout_of_zero_is_something_else_than_none():
    assert parsed(timeouts={"queue": 0}).timeouts.queue == 0
    assert parsed(timeouts={"queue": None}).timeouts.queue is None


def test_no_slots_is_a_job():
    assert parsed(count=0).count == 0


FULL = {
    "name": "all.of_it-1",
    "type": "batch",
    "count": 12,
    "priority": 90,
    "approval": "bid",
    "ask": 3,
    "labels": {"team": '"><img onerror=x>', "example.org/owner": ""},
    "task": {
        "driver": "docker",
        "command": ["sh", "-c", "echo {braces} ü 💡"],
        "env": {"PATH_TO": "/x", "_A1": ""},
        "config": {"network": "none"},
        "resources": {"cpu": "1.5", "memory": "2GiB", "disk": "10GB", "gpu": 1},
        "run_as": "backup",
        "network": "none",
    },
    "constraints": ["arch in (arm64, amd64), !spot", "docker version>= 24.0", "host =~ r[0-9]+,x"],
    "affinities": [{"match": "ssd", "weight": -20}, {"match": 'zone = "a b"'}],
    "spread": [{"over": "zone", "weight": 10}],
    "retry": {
        "attempts": 5,
        "backoff": "linear",
        "delay": "2s",
        "max_delay": 60,
        "max_interruptions": 0,
    },
    "timeouts": {"execution": "1h", "queue": 0, "total": "1d"},
    "on_lost": "wait",
    "grace": 0,
}


@pytest.mark.parametrize("data", [MINIMAL, FULL])
def test_the_normal_form_is_json_and_parses_back_to_the_same(data):
    it = spec.parse(data)
    stored = json.loads(json.dumps(spec.canonical(it)))
    assert spec.parse(stored) == it
    assert spec.canonical(spec.parse(stored)) == stored
    assert spec.parse_json(json.dumps(data).encode()) == it


@pytest.mark.parametrize("data", [MINIMAL, FULL])
def test_what_was_stored_is_the_same_body_again(data):
    it = spec.parse(data)
    stored = json.loads(json.dumps(spec.body(it)))
    assert spec.load(stored) == body_of(it)
    assert spec.body(spec.load(stored)) == stored
    intent = {"name": it.name, "count": it.count, "priority": it.priority, "labels": it.labels}
    assert spec.in_full(stored, **intent) == {
        key: value for key, value in spec.canonical(it).items() if value is not None
    }


def test_what_is_the_default_is_not_stored_so_that_a_new_field_changes_no_stored_job():
    it = spec.parse(MINIMAL)
    assert spec.body(it) == {"task": {"command": MINIMAL["task"]["command"]}}
    said = spec.parse(json.loads(json.dumps(spec.canonical(it))))
    assert spec.digest(said) == spec.digest(it)

    class Later(spec.JobBody):
        """The body as a release after this one has it."""

        health: str = "none"
        task: spec.TaskSpec

    grown = Later(task=it.task)
    assert (spec.digest(grown), spec.generation(grown)) == (spec.digest(it), spec.generation(it))
    assert spec.digest(Later(task=it.task, health="http")) != spec.digest(it)


def test_what_any_release_has_stored_is_read():
    """In full until 0.1; what a later release adds is passed over."""
    before = json.loads((STORED / "0.1.json").read_text())
    it = spec.load(before)
    del before["retry"]["on"]  # It said that what fails is not retried.
    before["retry"]["attempts"] = 1
    assert spec.canonical(spec.parse(before)).items() >= spec.in_full(before).items()
    assert it == body_of(spec.parse(before))
    after = {**spec.body(it), "health": {"http": "/"}}
    after["task"] = {**after["task"], "sidecars": []}
    assert spec.load(after) == it


@pytest.mark.parametrize(
    ("on", "means"),
    [
        (["failed", "lost"], {"retry": {"attempts": 5}, "on_lost": "wait"}),
        (["failed"], {"retry": {"attempts": 5}, "on_lost": "fail"}),
        (["lost"], {"retry": {"attempts": 1}, "on_lost": "wait"}),
        ([], {"retry": {"attempts": 1}, "on_lost": "fail"}),
    ],
)
def test_what_was_not_retried_in_an_earlier_release_is_not_retried(on, means):
    stored = {"task": MINIMAL["task"], "retry": {"attempts": 5, "on": on}, "on_lost": "wait"}
    it = spec.load(stored)
    assert spec.stored(it) == spec.stored(parsed(**means))


def test_what_a_task_asks_of_walls_is_asked_of_nodes():
    it = spec.parse({**MINIMAL, "task": {**MINIMAL["task"], "network": "none", "run_as": "backup"}})
    assert [*map(str, it.requirements)] == [
        "node.run_as.backup = true",
        "node.isolation.sandbox = true",
    ]
    assert (it.task.as_message().run_as, it.task.as_message().network) == ("backup", "none")
    assert spec.parse(MINIMAL).task.as_message().network == ""


def test_what_was_stored_under_other_rules_is_read_as_it_is():
    """Whatever an earlier release accepted, this one runs."""
    long = "zone in (" + ", ".join(f"value-{i:03d}-abcd" for i in range(80)) + ")"
    stored = {
        "name": "A name of old",
        "priority": 1000,
        "task": {"driver": "process", "command": ["x" * 2**17], "config": {"user": "nobody"}},
        "constraints": [long, "cores >= many"],
        "affinities": [{"match": long, "weight": 0}],
        "retry": {"delay": 600.0, "max_delay": 1.0, "on": ["lost"]},
        "timeouts": {"execution": 3600.0, "total": 60.0},
        "forgotten": True,
    }
    it = spec.load(stored)
    assert (it.retry.attempts, it.retry.max_delay) == (1, 1.0)
    assert (it.task.config, it.task.resources.cpu) == ({"user": "nobody"}, 100)
    assert [len(one.values) for one in it.requirements] == [80, 1]
    assert not any(one.holds("8") for one in it.requirements)
    assert spec.digest(it) != spec.digest(parsed())


_values = st.text("abc-._", min_size=1, max_size=12)
_selectors = st.one_of(
    st.builds("a{}{}".format, st.sampled_from(["=", "==", "!=", " version>="]), _values),
    st.builds("{} in({})".format, _values, st.lists(_values, max_size=70).map(",".join)),
    st.builds("a={!r}".format, _values),
)


@given(st.lists(st.lists(_selectors, max_size=20).map(",".join), max_size=4))
def test_a_constraint_that_is_accepted_can_be_submitted_again_as_it_was_stored(texts):
    data = {**MINIMAL, "constraints": texts, "affinities": [{"match": text} for text in texts]}
    if not mistakes(spec.parse, data):
        it = spec.parse(data)
        assert spec.parse(spec.canonical(it)) == it
        assert spec.load(spec.body(it)) == body_of(it)


@pytest.mark.parametrize("text", ["\x01", '"', "\\", "\n", "\x7f", "é", "💡", "a"])
def test_a_job_that_is_accepted_fits_a_frame_whatever_its_texts_are(text):
    for size in (16_000, 10_000, 5_000):
        task = {"command": ["echo", *[text * (size // len(text.encode()))] * 4]}
        if mistakes(spec.parse, {**MINIMAL, "task": task}):
            continue
        assert codec.size(parsed(task=task).task.as_message()) <= MAX_FRAME - 4096
        return
    pytest.fail("even the small one is refused")


def test_a_long_delay_without_a_limit_is_its_own_limit():
    assert parsed(retry={"delay": "10m"}).retry.max_delay == 600
    assert parsed(retry={"delay": "10m", "max_delay": "1h"}).retry.max_delay == 3600


@given(st.integers(0, 400 * 86_400_000))
def test_a_duration_that_is_said_is_read_as_the_same(milliseconds):
    seconds = milliseconds / 1000
    assert quantities.seconds(quantities.duration(seconds)) == seconds


def test_equal_jobs_have_equal_digests_however_they_are_written():
    one = parsed(
        constraints=["arch==amd64 , zone in (b,a)"],
        timeouts={"total": "1h"},
        task={"command": ["x"], "resources": {"cpu": "1000m", "memory": "1GiB"}},
    )
    other = parsed(
        constraints=["arch = amd64,zone in (a, b)"],
        timeouts={"total": 3600},
        task={"resources": {"memory": 2**30, "cpu": 1.0}, "command": ["x"], "env": {}},
    )
    assert spec.digest(one) == spec.digest(other)
    assert spec.digest(one) != spec.digest(parsed())


@pytest.mark.parametrize("change", [{"count": 5}, {"priority": 1}, {"labels": {"a": "b"}}])
def test_how_much_is_wanted_is_no_part_of_the_body(change):
    assert spec.digest(parsed(**change, name="other")) == spec.digest(parsed())


@pytest.mark.parametrize(
    "change",
    [
        {"retry": {"attempts": 1}},
        {"timeouts": {"execution": 60}},
        {"grace": 1},
        {"affinities": [{"match": "ssd"}]},
        {"constraints": ["ssd"]},
        {"approval": "none"},
    ],
)
def test_what_changes_no_task_is_another_version_of_the_same_generation(change):
    assert spec.digest(parsed(**change)) != spec.digest(parsed())
    assert spec.generation(parsed(**change)) == spec.generation(parsed())


@pytest.mark.parametrize(
    "change",
    [
        {"task": {"command": ["wc", "-l"]}},
        {"task": {**MINIMAL["task"], "env": {"A": "b"}}},
        {"task": {**MINIMAL["task"], "resources": {"cpu": 1}}},
    ],
)
def test_another_task_is_another_generation(change):
    assert spec.generation(parsed(**change)) != spec.generation(parsed())


def test_the_schema_names_every_field_and_refuses_others():
    schema = spec.json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(spec.JobSpec.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name", "task"]
    json.dumps(schema)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_fields = st.sampled_from([*spec.JobSpec.model_fields, "x"])


def mistakes(parse, data):
    try:
        parse(data)
    except InvalidSpec as error:
        return error.errors
    return None


@given(st.dictionaries(_fields, _json, max_size=5) | _json)
def test_whatever_is_given_is_a_job_or_a_list_of_mistakes(data):
    for it in mistakes(spec.parse, data) or ():
        assert set(it) == {"path", "message", "hint"}
        assert it["message"]
        assert it["hint"]
        assert json.dumps(it).encode()


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_whatever_bytes_come_are_a_job_or_a_list_of_mistakes(text):
    assert mistakes(spec.parse_json, text)
