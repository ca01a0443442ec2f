"""Every bad input has its path, a sentence with the value, and a cure."""

import json

import pytest

from orchestrator import spec
from orchestrator.spec import InvalidSpec
from orchestrator.spec.secrets import suspects
from tests import pace

GOOD = {"name": "job", "task": {"command": ["true"]}}


def mistakes(data):
    parse = spec.parse_json if isinstance(data, bytes) else spec.parse
    with pytest.raises(InvalidSpec) as caught:
        parse(data)
    assert all(it["message"] and it["hint"] for it in caught.value.errors)
    return {it["path"]: (it["message"], it["hint"]) for it in caught.value.errors}


def job(**fields):
    return {**GOOD, **fields}


def task(**fields):
    return job(task={"command": ["true"], **fields})


#: 64 values that take less than 1024 characters, and more with a space after each comma.
LONG = [f"value-{i:03d}-abcd" for i in range(64)]


def needs(**resources):
    return task(resources=resources)


# --- text --------------------------------------------------------------------------------------

DEEP = b'{"name":' + b"[" * 33 + b"]" * 33 + b"}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty; it must be an object"),
        (b" \n", "is empty; it must be an object"),
        (b"[]", "must be an object"),
        (b'"x"', "must be an object"),
        (b"null", "must be an object"),
        (b"{", "is not JSON at line 1, column 2"),
        (b'{"name": "a",}', "is not JSON at line 1, column 14"),
        (b'{}\n{"a": 1}', "is not JSON at line 2, column 1"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
        ('{"name": "a"}'.encode("utf-16"), "begins with a byte order mark"),
        (b'{"name": "\xff"}', "is not UTF-8 at byte 10"),
        (b'{"a": "' + b"x" * 2**18 + b'"}', "is 262153 bytes, and may have 262144"),
        (b"[" * 100_000, "is nested deeper than 32 levels"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "is nested deeper than 32 levels"),
        (DEEP, "is nested deeper than 32 levels"),
        (b'{"count": NaN}', "contains NaN, which is not JSON"),
        (b'{"count": Infinity}', "contains Infinity, which is not JSON"),
        (b'{"count": -Infinity}', "contains -Infinity, which is not JSON"),
        (b'{"count": ' + b"9" * 5000 + b"}", "contains an integer of 5000 digits"),
    ],
)
def test_text_that_is_not_a_job_is_refused_before_it_is_read(text, message):
    with pace.within(1):
        [(found, _)] = mistakes(text).values()
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (b'{"name":"a","count":1,"count":1000000}', "count", "occurs twice"),
        (b'{"name":"a","task":{"env":{"A":"1","A":"2"}}}', "task.env.A", "occurs twice"),
        (b'{"count":1e999}', "count", "is not a finite number"),
        (rb'{"name":"a\u0000"}', "name", "contains the unsupported character U+0000"),
        (rb'{"labels":{"a":"\ud800"}}', "labels.a", "contains the unsupported character U+D800"),
        (rb'{"labels":{"\ud800":"a"}}', "labels.�", "contains the unsupported character U+D800"),
    ],
)
def test_what_no_field_may_hold_is_found_with_its_path(text, path, message):
    assert mistakes(text)[path][0] == message


def test_brackets_inside_of_texts_are_not_depth():
    it = spec.parse_json(json.dumps(task(env={"A": '[{"' * 50})).encode())
    assert it.task.env["A"] == '[{"' * 50


def test_a_deep_object_that_was_not_text_is_refused_too():
    deep: object = 1
    for _ in range(10_000):
        deep = [deep]
    assert mistakes(job(labels=deep))[""][0] == "is nested deeper than 32 levels"


def test_all_mistakes_are_told_at_once():
    found = mistakes(
        {
            "name": "A b",
            "contraints": [],
            "count": -1,
            "task": {
                "comand": [],
                "config": {"user": "a", "group": "b"},
                "resources": {"cpu": "1,5", "memory": 0},
            },
            "retry": {"attempts": 0, "on": ["failed"]},
            "timeouts": {"execution": 3, "queue": 2, "total": 1},
        }
    )
    assert set(found) == {
        "name",
        "contraints",
        "count",
        "task.command",
        "task.comand",
        "task.config.user",
        "task.config.group",
        "task.resources.cpu",
        "task.resources.memory",
        "retry.attempts",
        "retry.on",
        "timeouts.execution",
        "timeouts.queue",
    }


# --- fields ------------------------------------------------------------------------------------

NAME = "Use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit."


@pytest.mark.parametrize(
    "name",
    [
        *("", "a" * 64, "../x", "a/b", ".", "-a", "a-", "A", " job", "job ", "job\n"),
        *("\uff4aob", "j\u043eb", "j\u202eob", "j\u200bob", "\u0663"),
        "<script>alert(1)</script>",
    ],
)
def test_a_name_is_short_and_plain(name):
    message, hint = mistakes(job(name=name))["name"]
    assert message.endswith("is not a name")
    assert hint == NAME


@pytest.mark.parametrize(
    ("data", "path", "message", "hint"),
    [
        ({"task": {"command": ["x"]}}, "name", "is missing", "Add it."),
        (job(name=3), "name", "3 must be text", "Put it in quotes."),
        (job(count=True), "count", "true must be a whole number", None),
        (job(count="3"), "count", '"3" must be a whole number', None),
        (job(count=3.0), "count", "3.0 must be a whole number", None),
        (job(count=1.5), "count", "1.5 must be a whole number", None),
        (job(count=None), "count", "null must be a whole number", None),
        (job(count=-1), "count", "-1 must be at least 0", "Use 0 or more."),
        (job(count=100_001), "count", "100001 must be at most 100000", "Use 100000 or less."),
        (job(count=10**18), "count", f"{10**18} must be at most 100000", None),
        (job(count=10**5000), "count", "the number must be at most 100000", None),
        (job(priority=0), "priority", "0 must be at least 1", None),
        (job(priority=101), "priority", "101 must be at most 100", None),
        (job(priority="high"), "priority", '"high" must be a whole number', None),
        (job(type="service"), "type", '"service" comes later; this release runs batch jobs', None),
        (job(type="cron"), "type", '"cron" must be one of batch, service, ops, daemon', None),
        (job(type=[]), "type", "must be one of batch, service, ops, daemon", None),
        (job(approval="maybe"), "approval", '"maybe" must be one of bid, none', None),
        (job(ask=0), "ask", "0 must be at least 1", None),
        (job(ask=11), "ask", "11 must be at most 10", None),
        (job(ask=2, approval="none"), "", "ask is 2, but approval none asks nobody", None),
        (
            job(contraints=["x"]),
            "contraints",
            "is an unknown field 'contraints'",
            "Did you mean 'constraints'?",
        ),
        (task(resorces={}), "task.resorces", "is an unknown field 'resorces'", None),
        (needs(mem="1GiB"), "task.resources.mem", "is an unknown field 'mem'", None),
        (needs(zzz=1), "task.resources.zzz", None, "Known here: cpu, memory, disk, gpu."),
        (job(task=None), "task", "null must be an object", None),
        (job(task="true"), "task", '"true" must be an object', None),
        (job(task={}), "task.command", "is missing", None),
        (task(command=[]), "task.command", "needs at least 1 entry", None),
        (task(command="sleep 1"), "task.command", '"sleep 1" must be a list', None),
        (task(command={"a": 1}), "task.command", "must be a list", None),
        (task(command=["x", 1]), "task.command.1", "1 must be text", "Put it in quotes."),
        (task(command=[" "]), "task.command", "begins with an empty text", None),
        (task(command=["x"] * 257), "task.command", "has more than 256 entries", None),
        (
            task(command=["x" * 16385]),
            "task.command.0",
            "is longer than 16384 characters",
            "Shorten it.",
        ),
        (
            task(command=["x" * 16000] * 5),
            "task",
            "is 80000 bytes of command, env and config, and may have 65536",
            None,
        ),
        (
            task(command=["x", *["\x01" * 16000] * 3, "x" * 16000]),
            "task",
            "takes 304048 bytes of command, env and config when it is sent to a node, and may "
            "take 258048",
            "A control character takes six bytes there, a quote two: put such data into files "
            "that the task reads.",
        ),
        (
            task(
                env={
                    "A": '\x01"' * 8000,
                    "B": "\x01" * 16000,
                    "C": "\x01" * 16000,
                    "D": "\x01" * 16000,
                }
            ),
            "task",
            None,
            None,
        ),
        (
            task(config={"user": "nobody"}),
            "task.config.user",
            "is an unknown field 'user'",
            "Leave it out. The driver process takes no config; task.run_as names a user.",
        ),
        (
            task(run_as="root"),
            "task.run_as",
            '"root" would have all rights of the node',
            "Name another user.",
        ),
        (task(run_as="0"), "task.run_as", '"0" is not the name of a user', None),
        (task(run_as="a:b"), "task.run_as", '"a:b" is not the name of a user', None),
        (
            task(network="bridge"),
            "task.network",
            '"bridge" must be one of host, none',
            "Write host or none.",
        ),
        (task(driver="../x"), "task.driver", '"../x" is not a name', None),
        (task(driver=""), "task.driver", '"" is not a name', None),
        (task(env={"A=B": "x"}), "task.env.A=B", "is not a variable's name", None),
        (task(env={"": "x"}), "task.env.", "is not a variable's name", None),
        (task(env={"1A": "x"}), "task.env.1A", "is not a variable's name", None),
        (
            task(env={"LD_PRELOAD": "x"}),
            "task.env.LD_PRELOAD",
            "would change how programs are loaded",
            "Leave it out.",
        ),
        (task(env={"MUSTER_SLOT": "1"}), "task.env.MUSTER_SLOT", "is set by Muster itself", None),
        (task(env={"A": 1}), "task.env.A", "must be text", "Put it in quotes."),
        (task(env={"A": "x" * 2**20}), "task.env.A", "is longer than 16384 characters", None),
        (task(env=["A=b"]), "task.env", "must be an object", None),
        (task(config={"a": {"b": "c"}}), "task.config.a", "must be text", None),
        (needs(cpu=0), "task.resources.cpu", "0 must be at least 1m", None),
        (needs(cpu=-1), "task.resources.cpu", "-1 must be at least 1m", None),
        (needs(cpu=True), "task.resources.cpu", "true is not an amount of cpu", None),
        (needs(cpu="0.0001"), None, '"0.0001" must be whole thousandths of a core', None),
        (needs(cpu="1e3"), None, '"1e3" is not an amount of cpu', None),
        (needs(cpu=1e12), None, "1000000000000.0 must be at most 1000000", None),
        (needs(cpu=None), None, "null is not an amount of cpu", None),
        (needs(cpu="5m\n"), None, None, "Write for example 500m, 0.5 or 2."),
        (needs(memory=0), None, "0 must be at least 1MiB", "Use 1MiB to 1PiB."),
        (needs(memory=1), None, "1 must be at least 1MiB", None),
        (needs(memory="10EiB"), None, "\"10EiB\" has the unknown unit 'EiB'", None),
        (needs(memory="2048TiB"), None, '"2048TiB" must be at most 1PiB', None),
        (needs(memory="1,5G"), None, '"1,5G" is not an amount of bytes', None),
        (needs(memory="1gb"), None, "\"1gb\" has the unknown unit 'gb'", None),
        (needs(memory="64m"), None, "\"64m\" has the unknown unit 'm'", None),
        (needs(memory="1.0000001kB"), None, '"1.0000001kB" must be whole bytes', None),
        (needs(memory=1.5), None, "1.5 must be whole bytes", None),
        (needs(disk=-1), "task.resources.disk", "-1 must be at least 0", None),
        (needs(gpu=-1), "task.resources.gpu", "-1 must be at least 0", None),
        (needs(gpu="1"), "task.resources.gpu", '"1" must be a whole number', None),
        (needs(gpu=65), "task.resources.gpu", "65 must be at most 64", None),
        (job(labels={"a b": "c"}), "labels.a b", '"a b" is not the name of a label', None),
        (job(labels={"a": "x" * 257}), "labels.a", "is longer than 256 characters", None),
        (job(labels={"a": 1}), "labels.a", "1 must be text", None),
        (
            job(labels={f"l{i}": "" for i in range(1000)}),
            "labels",
            "has more than 64 entries",
            None,
        ),
        (job(constraints="arch = amd64"), "constraints", '"arch = amd64" must be a list', None),
        (job(constraints=["a"] * 65), "constraints", "has more than 64 entries", None),
        (
            job(constraints=["ssd", "zone in (" + ",".join(LONG) + ")"]),
            "constraints.1",
            None,
            "Split it into several, or label the nodes by group.",
        ),
        (
            job(affinities=[{"match": "zone in(" + ",".join(LONG) + ")"}]),
            "affinities.0.match",
            None,
            None,
        ),
        (job(affinities=[{"match": "a", "weight": 0}]), "affinities.0.weight", None, None),
        (job(affinities=[{"match": "a", "weight": 101}]), "affinities.0.weight", None, None),
        (job(affinities=[{"match": "a", "weight": -101}]), "affinities.0.weight", None, None),
        (job(affinities=[{"weight": 1}]), "affinities.0.match", "is missing", None),
        (job(affinities=[{"match": ""}]), "affinities.0.match", '"" is empty', None),
        (job(spread=[{"over": ""}]), "spread.0.over", '"" is not the name of a label', None),
        (job(spread=[{"over": "a", "weight": 0}]), "spread.0.weight", "0 must be at least 1", None),
        (job(spread=[{"over": "a"}] * 9), "spread", "has more than 8 entries", None),
        (job(retry={"attempts": 10**9}), "retry.attempts", None, "Use 100 or less."),
        (job(retry={"delay": 0}), "retry.delay", "0 must be at least 1s", None),
        (job(retry={"delay": "soon"}), "retry.delay", '"soon" is not a duration', None),
        (job(retry={"delay": float("nan")}), "retry.delay", "is not a finite number", None),
        (job(retry={True: ["failed"]}), "retry.True", "has a name that is not text", None),
        (
            job(retry={"on": ["failed"]}),
            "retry.on",
            '["failed"] is a field of earlier releases: '
            "on_lost says what becomes of executions that are lost",
            "Leave it out; write on_lost: fail.",
        ),
        (
            job(retry={"on": ["lost"]}),
            "retry.on",
            None,
            "Leave it out; write retry.attempts: 1.",
        ),
        (
            job(retry={"on": []}),
            "retry.on",
            None,
            "Leave it out; write retry.attempts: 1 and on_lost: fail.",
        ),
        (
            job(retry={"on": ["lost", "failed"]}),
            "retry.on",
            None,
            "Leave it out; this is what happens without it.",
        ),
        (
            job(retry={"on": "failed"}),
            "retry.on",
            '"failed" is a field of earlier releases: '
            "on_lost says what becomes of executions that are lost",
            "Leave it out; write on_lost: fail.",
        ),
        (job(retry={"on": "lost"}), "retry.on", None, "Leave it out; write retry.attempts: 1."),
        (
            job(retry={"on": None}),
            "retry.on",
            None,
            "Leave it out; write on_lost: replace, wait or fail.",
        ),
        (
            job(retry={"on": [{"a": 1}]}),
            "retry.on",
            None,
            "Leave it out; write on_lost: replace, wait or fail.",
        ),
        (
            job(retry={"max_interruptions": -1}),
            "retry.max_interruptions",
            "-1 must be at least 0",
            None,
        ),
        (
            job(retry={"max_interruptions": 10_001}),
            "retry.max_interruptions",
            None,
            "Use 10000 or less.",
        ),
        (job(retry={"max_interruptions": None}), "retry.max_interruptions", None, None),
        (job(retry={"backoff": "random"}), "retry.backoff", None, None),
        (
            job(retry={"delay": "10m", "max_delay": "1s"}),
            "retry.delay",
            "is 10m, but retry.max_delay is 1s and limits it",
            "Raise retry.max_delay to 10m, or lower retry.delay to 1s.",
        ),
        (
            job(timeouts={"execution": "1h", "total": "1m"}),
            "timeouts.execution",
            "is 1h, but timeouts.total is 1m and ends the job before",
            "Raise timeouts.total to 1h, or lower timeouts.execution to 1m.",
        ),
        (job(timeouts={"queue": "1h", "total": "1h1s"}, count="x"), "count", None, None),
        (
            job(timeouts={"queue": "2h", "total": "1h30m"}),
            "timeouts.queue",
            "is 2h, but timeouts.total is 1h30m and ends the job before",
            None,
        ),
        (
            job(retry={"delay": "5m"}, timeouts={"total": "1m"}),
            "retry.delay",
            "is 5m, but timeouts.total is 1m and ends the job before",
            None,
        ),
        (job(timeouts={"execution": 0}), "timeouts.execution", "0 must be at least 1s", None),
        (job(timeouts={"execution": "10y"}), "timeouts.execution", None, None),
        (job(timeouts={"execution": "1m1m"}), "timeouts.execution", None, None),
        (job(timeouts={"execution": "30m1h"}), "timeouts.execution", None, None),
        (job(timeouts={"execution": "999d"}), None, '"999d" must be at most 366d', None),
        (job(timeouts={"queue": -1}), "timeouts.queue", "-1 must not be negative", None),
        (job(timeouts={"queue": True}), "timeouts.queue", "true is not a duration", None),
        (job(timeouts={"total": [1]}), "timeouts.total", "is not a duration", None),
        (job(grace=-1), "grace", "-1 must not be negative", None),
        (job(grace="10d"), "grace", '"10d" must be at most 1h', "Use 0s to 1h."),
        (job(on_lost="forget"), "on_lost", '"forget" must be one of replace, wait, fail', None),
    ],
)
def test_each_bad_field_is_named_with_its_cure(data, path, message, hint):
    found = mistakes(data)
    assert len(found) == 1
    [(at, (said, cure))] = found.items()
    assert path is None or at == path
    assert message is None or said == message
    assert hint is None or cure == hint


@pytest.mark.parametrize(
    "fields",
    [
        {"timeouts": {"total": "1s"}},
        {"timeouts": {"execution": "1h", "queue": "1h", "total": "1h"}},
        {"timeouts": {"total": "1m"}, "retry": {"delay": "10m", "attempts": 1}},
        {"retry": {"delay": "7d"}},
    ],
)
def test_what_is_no_contradiction_is_taken(fields):
    spec.parse(job(**fields))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(1, "The job specification has 1 mistake."), (2, "The job specification has 2 mistakes.")],
)
def test_mistakes_are_counted_in_english(number, sentence):
    with pytest.raises(InvalidSpec, match=f"^{sentence}$"):
        spec.parse(job(**{f"x{i}": i for i in range(number)}))


def test_values_of_the_environment_are_not_repeated():
    [(message, _)] = mistakes(task(env={"TOKEN": 12345})).values()
    assert "12345" not in message


def test_a_list_of_mistakes_has_an_end():
    with pytest.raises(InvalidSpec) as caught:
        spec.parse(job(**{f"x{i}": i for i in range(5000)}))
    assert len(caught.value.errors) == 100


@pytest.mark.parametrize("text", ["a.", "a-", "eyJ-", "a://x:", "-----BEGIN "])
def test_what_is_no_secret_is_seen_in_a_time_that_grows_with_its_length(text):
    with pace.within(5):
        assert not list(suspects({"COLOUR": text * (2**17 // len(text))}, ()))
