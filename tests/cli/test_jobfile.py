"""What a YAML file may say, and every way in which it could mean something else."""

import json
import os
import threading
from contextlib import suppress

import pytest

from orchestrator.cli import jobfile
from orchestrator.cli.failures import Code, Failure


@pytest.fixture
def read(tmp_path):
    def read(text, name="job.yaml"):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(data)
        return jobfile.read(str(tmp_path / name))

    return read


def value(read, text):
    return json.loads(read(f"it: {text}\n").text)["it"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("-0.5E-2", -0.005),
        ("text", "text"),
        ("500m", "500m"),
        ("64MiB", "64MiB"),
        ("1h30m", "1h30m"),
        ("'a: b'", "a: b"),
        ('"no"', "no"),
        ("'017'", "017"),
        ('"1:30"', "1:30"),
        ("1.2.3", "1.2.3"),
        ("-c", "-c"),
        ("--flag=no", "--flag=no"),
        ("[a, 1, true]", ["a", 1, True]),
        ("{a: {b: [c]}}", {"a": {"b": ["c"]}}),
        ("|\n  one\n  two", "one\ntwo\n"),
        ("nope", "nope"),
        ("99999999999999999999", 99999999999999999999),
    ],
)
def test_what_is_clear_means_what_it_says(read, text, meant):
    assert value(read, text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("no", "No", "NO", "yes", "Yes", "on", "On", "off", "OFF", "y", "n", "Y", "N"),
        *("True", "TRUE", "False", "Null", "NULL"),
        *("1:30", "1:30:45", "190:20:30.15", "017", "0o17", "0x1F", "0b11", "1_000", "+5"),
        *(".5", "5.", ".nan", ".NaN", ".inf", "-.inf", "1e999", "9" * 21),
        *("2026-11-23", "2026-11-23T10:00:00Z", "2026-11-23 10:00:00"),
        "=",
    ],
)
def test_what_yaml_would_take_for_something_else_is_a_mistake_with_its_line(read, text):
    with pytest.raises(Failure) as failed:
        read(f"name: x\nits:\n  value: {text}\n")
    (mistake,) = failed.value.errors
    assert failed.value.code == Code.USAGE
    assert (mistake["line"], mistake["path"]) == ("3", "its.value")
    assert mistake["hint"]


def test_keys_are_text_whatever_they_look_like(read):
    assert json.loads(read("retry: {on: [failed]}\n1: a\nno: b\n").text) == {
        "retry": {"on": ["failed"]},
        "1": "a",
        "no": "b",
    }


BILLION_LAUGHS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))  # noqa: B905
)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (BILLION_LAUGHS, "1", "anchors are not supported"),
        ("a: &x [*x]", "1", "anchors are not supported"),
        ("name: x\nb: *nothing", "2", "anchors are not supported"),
        ("name: x\nit: !!python/object/apply:os.system ['true']", "2", "tags are not supported"),
        ("it: !!str 1", "1", "tags are not supported"),
        ("it: ! 1", "1", "tags are not supported"),
        ("name: x\ntask:\n  count: 1\n  count: 2", "4", "occurs twice"),
        ("name: x\nname: x", "2", "occurs twice"),
        ("<<: {a: b}", "1", "merging is not supported"),
        ("name: x\n---\nname: z\n---\n- a", "5", "must be an object"),
        ("name: x\n\tcount: 1", "2", "is not YAML"),
        ("name: 'x", "1", "is not YAML"),
        ("name: x\n  count: 1", "2", "is not YAML"),
        ("name: x\nit: \x07", "2", "U+0007"),
        ("{[a]: b}", "1", "a key must be text"),
        ("? {a: b}\n: c", "1", "a key must be text"),
        ("a: " + "[" * 40 + "]" * 40, "1", "nested deeper"),
        ("[" * 100_000, "1", "nested deeper"),
        ("", "1", "must be an object"),
        ("# only words", "1", "must be an object"),
        ("- a", "1", "must be an object"),
        ("text", "1", "must be an object"),
    ],
)
def test_what_a_job_file_may_not_be(read, text, line, says):
    with pytest.raises(Failure) as failed:
        read(text)
    assert failed.value.code == Code.USAGE
    mistake = failed.value.errors[0]
    assert says in mistake["message"]
    assert mistake["line"] == line


def test_every_mistake_is_named_at_once(read):
    with pytest.raises(Failure) as failed:
        read("name: no\ncount: 017\ntask:\n  command: [echo, 1:30]\n")
    assert [(it["line"], it["path"]) for it in failed.value.errors] == [
        ("1", "name"),
        ("2", "count"),
        ("4", "task.command.1"),
    ]


def test_no_more_mistakes_are_named_than_anybody_reads(read):
    with pytest.raises(Failure) as failed:
        read("it: [" + "no, " * 5000 + "no]")
    assert len(failed.value.errors) == jobfile.MOST_MISTAKES


def test_json_is_sent_as_it_is_so_that_the_server_sees_what_is_wrong(read):
    text = b'{"count": 1, "count": 2}'
    assert read(text, "job.json").text == text
    assert read(text, "job.yaml").text == text


def test_several_documents_are_several_jobs_each_with_its_lines(read):
    file = read("---\nname: x\n---\n# nothing but words\n---\nname: z\ncount: 2\n---\n")
    assert [json.loads(job) for job in file.jobs] == [{"name": "x"}, {"name": "z", "count": 2}]
    assert [file.line(it) for it in ("jobs.0.name", "jobs.1.count", "jobs.1.task")] == [2, 7, 6]


def test_mistakes_of_several_documents_are_named_with_their_jobs(read):
    with pytest.raises(Failure) as failed:
        read("name: x\ncount: 017\n---\nname: no\n")
    places = [(it["line"], it["path"]) for it in failed.value.errors]
    assert places == [("2", "jobs.0.count"), ("4", "jobs.1.name")]


def test_a_mistake_of_all_documents_together_is_of_none_of_them(read):
    file = read("name: x\n---\nname: z\n")
    assert file.placed([{"path": "jobs", "message": "has more than 500 entries"}]) == [
        {"path": "jobs", "message": "has more than 500 entries", "line": ""}
    ]


def test_the_line_of_a_path_is_that_of_the_nearest_thing(read):
    file = read("name: x\ntask:\n  command:\n    - a\n    - b\n")
    assert [file.line(it) for it in ("name", "task.command.1", "task.env", "nothing", "")] == [
        1,
        5,
        2,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xef\xbb\xbfname: x", "byte order mark"),
        ("name: x".encode("utf-16"), "byte order mark"),
        (b"name: \xff", "not UTF-8 at byte 6"),
        (b"x" * (jobfile.LARGEST + 1), "larger than"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(read, data, says):
    with pytest.raises(Failure, match=says) as failed:
        read(data)
    assert failed.value.code == Code.USAGE


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing", "No such file"), (".", "not a file"), ("/dev/zero", "not a file")],
)
def test_missing_files_directories_and_devices_are_no_job_files(tmp_path, name, says):
    with pytest.raises(Failure, match=says) as failed:
        jobfile.read(str(tmp_path / name))
    assert failed.value.code == Code.USAGE


@pytest.fixture
def piped(tmp_path):
    """Read what somebody writes to a pipe: one that has a name, or one of the shell's."""

    def read(data, named):
        reading, writing = os.pipe()
        name = f"/dev/fd/{reading}"
        if named:
            os.close(writing)
            name = str(tmp_path / "pipe")
            os.mkfifo(name)

        def write():
            # Who has read enough closes the pipe.
            with suppress(BrokenPipeError), open(name if named else writing, "wb") as pipe:  # noqa: PTH123
                pipe.write(data)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            return jobfile.read(name)
        finally:
            os.close(reading)
            writer.join(10)

    return read


@pytest.mark.parametrize("named", [True, False])
def test_what_a_command_writes_into_a_pipe_is_a_job_file(piped, named):
    text = "name: piped\n" + "# a comment\n" * 10_000
    assert json.loads(piped(text.encode(), named).text) == {"name": "piped"}


@pytest.mark.parametrize("named", [True, False])
def test_a_pipe_is_read_no_further_than_a_file(piped, named):
    with pytest.raises(Failure, match="larger than"):
        piped(b"#" * (jobfile.LARGEST + 2**20), named)


def test_a_name_with_a_zero_byte_is_no_file():
    with pytest.raises(Failure, match="cannot be read"):
        jobfile.read("a\0b")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "is empty; it must be an object", "Write name: … and task: …."),
        ("---\n---\n", "is empty; it must be an object", "Write name: … and task: …."),
        (
            "- name: a\n",
            "is a list; it must be an object",
            "Write the jobs one after the other, with --- between them.",
        ),
        (
            "job { }",
            "is plain text; it must be an object",
            "A job file is YAML or JSON: write name: … and task: ….",
        ),
        ("a:\n\tb: c\n", "is not YAML: it is indented with a tab", "Use spaces."),
    ],
    ids=["empty", "two empty documents", "a list", "another language", "a tab"],
)
def test_what_is_no_job_is_told_what_it_is(read, text, message, hint):
    with pytest.raises(Failure) as refused:
        read(text)
    (one,) = refused.value.errors
    assert (one["message"], one["hint"]) == (message, hint)


def test_a_name_that_two_jobs_of_a_file_have_is_a_mistake_with_its_line(read):
    with pytest.raises(Failure) as refused:
        read("name: a\n---\nname: b\n---\nname: a\n---\nname: a\n")
    found = [(it["line"], it["path"], it["message"]) for it in refused.value.errors]
    message = "'a' is the name of the job in line 1, too"
    assert found == [("5", "jobs.2.name", message), ("7", "jobs.3.name", message)]
