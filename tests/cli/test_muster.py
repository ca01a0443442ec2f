"""The command line against a real server: what it prints, what is stored, and how it leaves."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
import uuid
from datetime import timedelta, timezone

import pytest
import yaml
from django.db import connection

from nodes.models import Node
from orchestrator.explain.reasons import NoNode, Unplaced, dump
from orchestrator.lifecycle import Observed
from orchestrator.models import ExecutionOutput, Job, RemovedHistory, journal
from tests import rows

GOOD = """\
name: from-yaml
count: 2
task:
  command: [echo, "hello world"]
"""
BAD = """\
name: From YAML
count: -1
contraints: []
task:
  comand: [echo]
"""


def end(state):
    Job.objects.update(state=state, reason="it ended")


# --- submitting ------------------------------------------------------------------------------


def test_a_job_file_is_submitted_and_said_so(muster):
    rows.node()
    done = muster("job", "run", muster.file(GOOD))
    assert (done.returncode, done.stdout, done.stderr) == (0, "from-yaml is a new job\n", "")
    assert Job.objects.get().count == 2
    again = muster("job", "run", "-", stdin=GOOD)
    assert "unchanged" in again.stdout


def test_an_ended_job_says_when_it_ended_and_how_it_runs_again(muster):
    file = muster.file(GOOD, "my job.yaml")
    muster("job", "run", file)
    end("completed")
    done = muster("job", "run", file)
    assert re.fullmatch(
        r"from-yaml is unchanged: version 1 is the same specification, and it completed at "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\n",
        done.stdout,
    )
    cure = "muster job rerun from-yaml, or muster job run --rerun 'my job.yaml'"
    assert cure in done.stderr
    again = muster("job", "run", "--rerun", file)
    assert again.stdout == "from-yaml runs again: round 2 of version 1\n"
    assert (Job.objects.get().state, Job.objects.get().round) == ("pending", 2)
    assert "is unchanged" in muster("job", "run", "--rerun", file).stdout, "it has not ended"


SEVERAL = GOOD + "---\n" + GOOD.replace("from-yaml", "second")


def test_several_documents_are_submitted_together_and_waited_for(muster, eventually):
    waiting = muster.start(
        "job", "run", "--wait", muster.file(SEVERAL), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    eventually(lambda: Job.objects.count() == 2)
    Job.objects.filter(name="from-yaml").update(state="failed", reason="it broke")
    Job.objects.filter(name="second").update(state="completed", reason="it ended")
    printed, said = waiting.communicate(timeout=60)
    assert printed == b"from-yaml is a new job\nsecond is a new job\n"
    assert b"from-yaml:" in said
    assert b"completed: both slots have completed" in said
    assert waiting.returncode == 5, "one of them failed"


def test_of_several_documents_all_are_stored_or_none(muster):
    done = muster("job", "run", muster.file(SEVERAL + "---\n" + BAD))
    assert done.returncode == 2
    assert "line 11, jobs.2.name" in done.stderr
    assert not Job.objects.exists()
    assert "is a good job file of 2 jobs" in muster("job", "validate", muster.file(SEVERAL)).stdout


def test_json_is_a_job_file_too(muster):
    text = json.dumps({"name": "from-json", "task": {"command": ["true"]}})
    assert muster("job", "run", muster.file(text, "job.json")).returncode == 0
    assert muster("job", "run", "-q", "-", stdin=text).stdout == "from-json\n"
    assert json.loads(muster("job", "run", "-o", "json", "-", stdin=text).stdout)["version"] == 1


def test_a_job_that_is_shown_says_what_of_it_is_no_longer_kept(muster):
    job = rows.job(name="old")
    assert "not kept" not in muster("job", "show", "old").stdout
    RemovedHistory.objects.create(job=job, executions=12, ended_before=job.created_at)
    rows.made(job, job.created_at - timedelta(days=100))
    assert "12 executions that ended before" in muster("job", "show", "old").stdout


def test_an_invalid_job_file_names_every_mistake_with_its_line_and_cure(muster):
    done = muster("job", "run", muster.file(BAD))
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "muster: job.yaml has 5 mistakes; nothing was stored."
    for place in (
        "line 1, name",
        "line 2, count",
        "line 3, contraints",
        "line 5, task.comand",
        "line 4, task.command",
    ):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"  {place}: "))
        assert lines[at + 1].startswith("      "), "a cure"
    assert "Did you mean 'constraints'?" in done.stderr
    assert not Job.objects.exists()


def test_what_yaml_misreads_is_refused_before_anything_is_sent(muster):
    done = muster("job", "run", muster.file("name: no\n"), MUSTER_SERVER="http://127.0.0.1:1")
    assert done.returncode == 2
    assert "line 1, name: 'no' means something else" in done.stderr


def test_mistakes_of_yaml_and_of_the_job_are_named_together(muster):
    done = muster("job", "run", muster.file("name: no\ncount: -1\ntask: {command: [a, 1:30]}\n"))
    assert done.returncode == 2
    told = [line.split(":")[0].strip() for line in done.stderr.splitlines()[1::2]]
    assert told == ["line 1, name", "line 3, task.command.1", "line 2, count"]


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\nb"])
def test_an_unreadable_file_is_one_sentence(muster, name):
    done = muster("job", "run", name)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_standard_input_is_one_sentence(muster):
    command = " ".join([*muster.command("job", "run", "-"), "<&-"])
    done = subprocess.run(
        ["sh", "-c", command], env=muster.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_validation_stores_nothing(muster):
    good = muster("job", "validate", muster.file(GOOD))
    assert (good.returncode, good.stdout) == (0, "job.yaml is a good job file.\n")
    shown = yaml.safe_load(muster("job", "validate", "job.yaml", "-o", "yaml").stdout)
    assert shown["task"]["resources"]["cpu"] == "100m"
    assert muster("job", "validate", muster.file(BAD)).returncode == 2
    assert not Job.objects.exists()


MISSPELT = GOOD.replace("task:\n", "task:\n  driver: proces\n")


@pytest.mark.parametrize("verb", ["validate", "run"])
def test_a_driver_that_no_node_has_is_warned_of_with_its_line(muster, verb):
    rows.node()
    done = muster("job", verb, muster.file(MISSPELT))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "muster: job.yaml is a job, with 1 warning.",
        "  line 4, task.driver: no node of the cluster has the driver 'proces'; the job waits "
        "for one",
        "      Did you mean 'process'?",
    ]


# --- waiting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code", "why"),
    [
        ("completed", 0, "both slots have completed after"),
        ("failed", 5, "it ended; 0 of 2 slots completed after"),
        ("stopped", 5, "it ended; 0 of 2 slots completed after"),
    ],
)
def test_the_end_of_a_job_is_the_exit_code_of_who_waits(muster, eventually, state, code, why):
    waiting = muster.start("job", "run", "--wait", muster.file(GOOD), stderr=subprocess.PIPE)
    eventually(Job.objects.exists)
    end(state)
    _, said = waiting.communicate(timeout=30)
    assert waiting.returncode == code
    assert f"{state}: {why}" in said.decode()


@pytest.mark.parametrize("wait", [["--wait=running"], ["--wait", "running"]])
def test_one_may_wait_until_it_runs(muster, eventually, wait):
    waiting = muster.start("job", "run", *wait, muster.file(GOOD), stderr=subprocess.DEVNULL)
    eventually(Job.objects.exists)
    Job.objects.update(state="running")
    assert waiting.wait(30) == 0


@pytest.mark.parametrize("reason", ["-w", "--wait", "--watch"])
def test_a_reason_may_look_like_an_option(muster, reason):
    rows.job(name="shown")
    for words in (("--reason", reason), (f"--reason={reason}",)):
        muster("job", "stop", "shown", *words)
        assert Job.objects.get().stop_reason == reason
        Job.objects.update(stop_requested=False, stop_reason="")


def test_waiting_has_an_end_and_the_job_goes_on(muster):
    done = muster("job", "run", "--wait", "--timeout", "200ms", muster.file(GOOD))
    assert done.returncode == 9
    assert "it goes on" in done.stderr
    assert "muster job show from-yaml" in done.stderr
    assert not Job.objects.get().stop_requested


def test_an_interruption_detaches_and_leaves_the_job_alone(muster, eventually):
    waiting = muster.start(
        "job", "run", "--wait", muster.file(GOOD), stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert waiting.stdout.readline()
    assert next(line for line in waiting.stderr if b" s  " in line)  # It is being followed.
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert "the job goes on" in said.decode()
    assert "Traceback" not in said.decode()
    assert not Job.objects.get().stop_requested


# --- looking ---------------------------------------------------------------------------------


def test_jobs_are_listed_in_every_format(muster):
    job = rows.job(name="seen", labels={"a": "b"})
    table = muster("job", "list").stdout.splitlines()
    assert table[0].split() == ["NAME", "STATE", "CREATED", "WHAT"]
    assert table[1].startswith("seen  pending")
    assert "\x1b" not in "".join(table)
    assert len(muster("job", "list", "--no-headers").stdout.splitlines()) == 1
    assert "LABELS" in muster("job", "list", "-o", "wide").stdout
    assert muster("job", "list", "-q").stdout == "seen\n"
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        (found,) = read(muster("job", "list", "-o", form).stdout)
        assert found["id"] == str(job.pk)
    assert muster("job", "list", "--state", "running", "-q").stdout == ""


def test_a_job_is_shown_with_its_executions(muster):
    execution = rows.execution(rows.job(name="shown"), rows.node(), observed="running")
    text = muster("job", "show", "shown").stdout
    assert '"true"' in text
    assert "batch, 1 slot, priority" in text
    assert str(execution.pk) in text
    assert json.loads(muster("job", "show", "shown", "-o", "json").stdout)["spec"]["count"] == 1


def test_a_job_says_what_it_needs_as_nodes_say_what_they_have(muster):
    text = "{name: big, task: {command: [x], resources: {cpu: 1000, memory: 2GiB, gpu: 1}}}"
    muster("job", "run", muster.file(text))
    shown = muster("job", "show", "big").stdout
    assert re.search("^needs +1000 cores, 2 GiB memory, 1 GPU$", shown, re.MULTILINE)


def test_an_execution_is_shown_with_its_history(muster):
    execution = rows.execution(rows.job(), rows.node(), observed="completed")
    text = muster("execution", "show", str(execution.pk)[:8]).stdout
    assert "state-updater" in text
    assert "completed" in text
    listed = muster("execution", "list", "-q", "--job", execution.job.name).stdout
    assert listed == f"{execution.pk}\n"
    assert muster("execution", "list", "--job", "a", "--node", "b").returncode == 2


def test_a_log_is_printed_as_it_is(muster):
    execution = rows.execution(rows.job(name="told"), rows.node(), observed="completed")
    ExecutionOutput.objects.create(
        execution=execution,
        stdout="\x1b[31mred\x1b[0m\n",
        stdout_size=13,
        stderr="oh",
        stderr_size=2,
    )
    both = muster("execution", "logs", str(execution.pk))
    assert (both.stdout, both.stderr) == ("\x1b[31mred\x1b[0m\n", "oh")
    one = muster("execution", "logs", str(execution.pk), "--stdout", "-f")
    assert (one.stdout, one.stderr) == (both.stdout, "")
    assert muster("execution", "logs", str(execution.pk), "--stderr").stdout == "oh"
    assert on_a_terminal(muster, "execution", "logs", str(execution.pk)) == (
        "red\r\n\x1b[31moh\x1b[0m",
        0,
    )
    assert "one stream" in muster("execution", "logs", str(execution.pk), "--offset", "1").stderr
    end("completed")
    red, oh = "0 | \x1b[31mred\x1b[0m\n", "0 ! oh\n"
    assert muster("job", "logs", "told").stdout == red + oh
    assert muster("job", "logs", "told", "-f").stdout in (red + oh, oh + red)
    assert muster("job", "logs", "told", "--stdout", "-f").stdout == red
    assert muster("job", "logs", "told", "--stderr").stdout == "0 | oh\n"
    assert on_a_terminal(muster, "job", "logs", "told") == (
        "0 | red\r\n\x1b[31m0 | oh\x1b[0m\r\n",
        0,
    )


def test_who_follows_what_waits_hears_at_once_what_it_waits_for(muster):
    job = rows.job(name="waits", state="queued")
    Job.objects.update(reason=dump([Unplaced(1, 1, NoNode())]))
    of_job = muster.start("job", "logs", "-f", "waits", stderr=subprocess.PIPE)
    assert of_job.stderr.readline().decode() == (
        "muster: waiting for it to run; now it is queued: "
        "waiting for capacity: 1 of 1 slot; there is no node\n"
    )
    execution = rows.execution(job, rows.node(), observed="ask_for_bid")
    of_it = muster.start("execution", "logs", "-f", str(execution.pk), stderr=subprocess.PIPE)
    assert b"waiting for it to run; now it is ask_for_bid: " in of_it.stderr.readline()
    rows.move(execution, Observed.COMPLETED)
    end("completed")
    for process in (of_job, of_it):
        _, said = process.communicate(timeout=30)
        assert (process.returncode, b"waiting" in said) == (0, False)
    assert "waiting" not in muster("job", "logs", "-f", "waits").stderr


def on_a_terminal(muster, *words):
    """Run with a terminal for standard output; all that it has shown, and the exit code."""
    ours, theirs = pty.openpty()
    process = muster.start(*words, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # The other end is closed.
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return shown.decode(), process.wait(30)


def test_a_terminal_gets_no_escapes_of_the_tasks(muster):
    execution = rows.execution(rows.job(), rows.node(), observed="completed")
    text = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2J\x1b]8;;http://evil\x07c\x1b]8;;\x07\n"
    ExecutionOutput.objects.create(execution=execution, stdout=text, stdout_size=len(text))
    shown, code = on_a_terminal(muster, "execution", "logs", str(execution.pk))
    assert (shown, code) == ("abc\r\n", 0)


def test_a_terminal_follows_what_it_submits(muster, eventually):
    def complete():
        eventually(Job.objects.exists)
        end("completed")
        connection.close()

    completing = threading.Thread(target=complete)
    completing.start()
    shown, code = on_a_terminal(muster, "job", "run", muster.file(GOOD))
    completing.join()
    assert code == 0
    assert "completed: both slots have completed" in shown
    detached, code = on_a_terminal(muster, "job", "run", "--detach", "job.yaml")
    assert code == 0
    assert "unchanged" in detached


def test_times_are_spans_for_who_looks_and_exact_for_who_asks(muster):
    job = rows.job(name="timed")
    at = job.created_at.isoformat().replace("+00:00", "Z")
    shown, _ = on_a_terminal(muster, "job", "list")
    assert re.search(r"\b\d+ s ago\b", shown)
    assert at in muster("job", "list").stdout
    for words in (["-o", "wide"], ["--utc"]):
        assert at in on_a_terminal(muster, "job", "list", *words)[0]
    local = job.created_at.astimezone(timezone(timedelta(hours=-3))).isoformat()
    muster.environ["TZ"] = "UTC+3"
    assert local in on_a_terminal(muster, "job", "show", "timed", "--local")[0]
    assert local in muster("job", "list", "--local").stdout


def test_a_list_that_is_cut_says_so_and_how_the_rest_is_seen(muster):
    job, node = rows.job(name="long"), rows.node()
    for slot in range(22):
        rows.execution(job, node, slot=slot)
    shown = muster("job", "show", "long").stderr
    cure = "muster execution list --job long --limit 200"
    assert shown == f"The first 20; {cure} shows more.\n"
    part = muster("execution", "list", "-q", "--limit", "3")
    assert len(part.stdout.splitlines()) == 3
    assert part.stderr == "The first 3; --limit 30 shows more.\n"
    assert muster("execution", "list", "--limit", "22").stderr == ""


def test_nodes_are_listed_judged_and_invited(muster):
    rows.node(name="machine", approval="pending", connection="disconnected")
    assert "waits for approval" in muster("node", "list").stdout
    assert muster("node", "approve", "machine").stdout == "machine is disconnected\n"
    assert "takes no new work" not in muster("node", "eligible", "machine", "--off").stdout
    muster("node", "drain", "machine")
    assert Node.objects.get().draining
    muster("node", "drain", "machine", "--off")
    muster("node", "reject", "machine")
    node = Node.objects.get()
    assert (node.approval, node.eligible, node.draining) == ("rejected", False, False)
    token = muster("node", "token", "--uses", "3", "--label", "zone=a").stdout
    assert token.startswith("jt_")
    assert muster("node", "token", "--label", "zone").returncode == 2
    muster("node", "approve", "machine", "--label", "zone=a")
    assert muster("node", "label", "machine", "pool=prod", "zone-").returncode == 0
    assert Node.objects.get().labels == {"pool": "prod"}
    assert muster("node", "label", "machine", "pool").returncode == 2
    assert "cannot be given" in muster("node", "label", "machine", "name=x").stderr
    assert "8" in muster("node", "show", "machine").stdout


def test_what_came_of_a_change_is_an_object_for_programs(muster):
    rows.node(name="machine", approval="pending")
    muster("job", "run", muster.file(GOOD))
    for words, field, value in (
        (("job", "stop", "from-yaml"), "name", "from-yaml"),
        (("job", "rerun", "from-yaml"), "round", 2),
        (("node", "approve", "machine"), "approval", "approved"),
        (("node", "drain", "machine"), "draining", True),
        (("node", "eligible", "machine", "--off"), "eligible", False),
        (("node", "reject", "machine"), "approval", "rejected"),
        (("queue", "pause", "repairs"), "paused_reason", "repairs"),
        (("queue", "resume"), "paused", False),
    ):
        assert json.loads(muster(*words, "-o", "json").stdout)[field] == value
    made = yaml.safe_load(muster("node", "token", "-o", "yaml").stdout)
    assert made["token"].startswith("jt_")
    assert muster("node", "token", "-o", "name").stdout.startswith("jt_")
    assert muster("node", "remove", "machine", "-o", "name").stdout == "machine\n"


def test_the_cluster_is_on_one_screen(muster):
    rows.job()
    rows.node()
    text = muster("status").stdout
    assert "1 pending" in text
    assert "1 of 1 connected" in text
    assert json.loads(muster("status", "-o", "json").stdout)["jobs"]["pending"] == 1


def test_the_queue_is_paused_with_a_reason(muster):
    assert muster("queue", "pause").returncode == 2
    assert muster("queue", "pause", "maintenance").returncode == 0
    assert "paused by root: maintenance" in muster("queue", "show").stdout
    assert muster("queue", "resume").returncode == 0
    assert "goes on" in muster("queue", "show").stdout


def test_events_are_shown_and_followed(muster):
    muster("job", "run", muster.file(GOOD))
    assert "root submits from-yaml" in muster("events").stdout
    following = muster.start("events", "-f", stdout=subprocess.PIPE)
    first = following.stdout.readline().decode()
    assert re.match(r"\d\d:\d\d:\d\dZ  ", first), "the hour is not that of whoever reads"
    assert "submits from-yaml" in first
    muster("job", "stop", "from-yaml", "--reason", "enough")
    assert b"stops from-yaml: enough" in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    following.stdout.close()
    assert following.wait(30) == 130


def test_events_that_are_followed_may_be_more_than_one_answer_holds(muster):
    muster("job", "run", muster.file(GOOD))
    following = muster.start("events", "-f", "--limit", "1", stdout=subprocess.PIPE)
    assert following.stdout.readline()  # The newest: from here on it follows.
    journal.record([journal.fact("cluster", "test", f"event {n}") for n in range(1200)])
    seen = (line.decode().split("event ")[-1].strip() for line in following.stdout)
    shown = [next(it for it in seen if it == str(n)) for n in range(1200)]
    following.kill()
    following.stdout.close()
    following.wait(30)
    assert shown[-1] == "1199"
    assert muster("events", "--limit", "501").returncode == 2


def test_a_job_is_stopped_run_again_and_its_versions_listed(muster):
    muster("job", "run", muster.file(GOOD))
    stopped = muster("job", "stop", "from-yaml", "--reason", "enough").stdout
    assert "stopping, asked for by root: enough" in stopped
    assert "begins round 2" in muster("job", "rerun", "from-yaml").stdout
    (version,) = muster("job", "versions", "from-yaml", "--no-headers").stdout.splitlines()
    assert version.split()[:2] == ["1", "root"]
    assert "hello world" in version


# --- leaving ---------------------------------------------------------------------------------


def test_what_is_not_there_is_6(muster):
    for words in (("job", "show"), ("job", "stop"), ("execution", "show"), ("node", "approve")):
        done = muster(*words, "nobody")
        assert done.returncode == 6
        assert "There is no" in done.stderr
    for name in ("", ".", "..", "a/b", "../../x?y#z"):
        done = muster("node", "remove", name)
        assert (done.returncode, "Nothing is called" in done.stderr) == (6, True)


def test_what_may_be_two_things_is_7(muster):
    for last in (1, 2):
        Job.objects.create(id=uuid.UUID(int=0xABCD << 112 | last), name=f"j{last}", type="batch")
    done = muster("job", "show", "abcd")
    assert done.returncode == 7
    assert "more characters" in done.stderr


def test_who_may_not_is_8(muster):
    for token in ("", "at_00000000_wrong"):
        done = muster("job", "list", MUSTER_TOKEN=token)
        assert done.returncode == 8
        assert "token" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("job", "run", "--wait", "completed", "-d", "x"),
            "--wait waits for the job, and --detach",
        ),
        (("node", "label", "web-1", "zone"), "'zone' is no label"),
    ],
)
def test_what_means_nothing_is_named_with_the_cure(muster, words, says):
    done = muster(*words)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("job", "nonsense"),
        ("job", "list", "--nonsense"),
        ("job", "list", "-o", "xml"),
        ("job", "list", "--state", "nonsense"),
        ("job", "run"),
        ("job", "run", "--timeout", "soon", "job.yaml"),
        ("job", "show", "-name"),
        ("--server", "ftp://x", "status"),
        ("--token-file", "missing", "status"),
    ],
)
def test_wrong_usage_is_2(muster, words):
    done = muster(*words)
    assert done.returncode == 2
    assert done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("events", "--limit", "501"), '"501" must be at most 500.  Use 500 or less.'),
        (("events", "--limit", "many"), '"many" must be a whole number.'),
        (("job", "logs", "a", "--tail", "-1"), '"-1" must be at least 0.'),
        (("job", "list", "--watch", "0"), '"0" must be at least 0.1.'),
        (("status", "-o", "xml"), "'-o' / '--output': 'xml' is not one of 'table', 'wide'"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_told_with_what_it_may_be(muster, words, said):
    done = muster(*words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_name_may_begin_with_a_dash_after_two(muster):
    assert muster("job", "show", "--", "-name").returncode == 6


def test_who_reads_only_the_beginning_ends_it_well(muster):
    for _ in range(50):
        rows.job()
    command = " ".join([*muster.command("job", "list", "-o", "json"), "| head -1"])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=muster.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[\n", "")


def test_a_token_is_read_from_a_file_and_never_shown(muster):
    file = muster.home / "secret"
    file.write_text(muster.token + "\n")
    file.chmod(0o600)
    done = muster("--token-file", str(file), "job", "list", MUSTER_TOKEN="")
    assert (done.returncode, done.stderr) == (0, "")
    file.chmod(0o644)
    done = muster("job", "list", MUSTER_TOKEN="", MUSTER_TOKEN_FILE=str(file))
    assert done.returncode == 0
    assert "chmod 600" in done.stderr
    file.write_text("not a token at all")
    done = muster("--token-file", str(file), "job", "list")
    assert done.returncode == 2
    assert "not a token at all" not in done.stderr


def test_signing_in_keeps_address_and_token_for_later(muster):
    wrong = muster("login", stdin="at_00000000_wrong")
    assert wrong.returncode == 8
    done = muster("login", muster.server, stdin=muster.token, MUSTER_TOKEN="", MUSTER_SERVER="")
    assert done.returncode == 0
    assert muster.token not in done.stdout + done.stderr
    kept = muster.home / "muster" / "token"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert muster("job", "list", MUSTER_TOKEN="", MUSTER_SERVER="").returncode == 0
    (muster.home / "muster" / "config.toml").write_text("server = 1")
    assert muster("job", "list").returncode == 2


def test_it_starts_without_what_it_does_not_need(muster):
    loaded = subprocess.run(
        [*muster.command()[:1], "-c", _LOADED],
        env=muster.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "[]"


_LOADED = """
import sys, orchestrator.cli.main
print([name for name in ("django", "pydantic", "numpy", "yaml", "nodes") if name in sys.modules])
"""
