"""How an agent gets its identity, and what it does when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nodes.agent import enrolment
from nodes.agent.enrolment import Damaged, Identity, InUse, Refused, Unreachable
from nodes.agent.link import Ended, pause
from nodes.agent.machine import amount, attributes, detect
from nodes.agent.main import is_in_the_clear, main, parse, websocket_url
from nodes.protocol.messages import Close


class Desk(ThreadingHTTPServer):
    """Answers every enrolment with what the test has put down."""

    status, answer, asked = 201, {"node": "n1", "credential": "nt_x"}, None  # type: ignore[var-annotated]
    cuts = False
    held: threading.Event | None = None

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.came = threading.Event()


class Clerk(BaseHTTPRequestHandler):
    server: Desk

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.asked = (self.path, json.loads(self.rfile.read(length)))
        self.server.came.set()
        if self.server.held is not None:
            self.server.held.wait(20)
        if self.server.cuts:
            return
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk(("127.0.0.1", 0), Clerk) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(desk: Desk) -> str:
    return f"http://127.0.0.1:{desk.server_port}"


def test_a_join_token_is_traded_for_a_credential(desk):
    identity = enrolment.enrol(url(desk), "jt_1", "node-1")
    assert identity == Identity("n1", "nt_x")
    assert "nt_x" not in repr(identity)
    told = {"token": "jt_1", "name": "node-1", "key": ""}
    assert desk.asked == ("/api/v1/nodes/enrol", told)


def test_a_refusal_says_what_the_server_says(desk):
    desk.status = 403
    desk.answer = {"title": "Join token expired.", "detail": "It ended at 12:00.", "hint": "Ask."}
    with pytest.raises(Refused, match=r"^Join token expired: It ended at 12:00: Ask$"):
        enrolment.enrol(url(desk), "jt_1", "node-1")


def test_a_server_in_trouble_is_asked_again_later(desk):
    desk.status, desk.answer = 503, {}
    with pytest.raises(Unreachable, match="HTTP 503"):
        enrolment.enrol(url(desk), "jt_1", "node-1")
    with pytest.raises(Unreachable, match="refused"):
        enrolment.enrol("http://127.0.0.1:9", "jt_1", "node-1")


def test_an_answer_that_makes_no_sense_is_a_refusal(desk):
    desk.answer = {"node": "n1"}
    with pytest.raises(Refused, match="does not speak like Muster"):
        enrolment.enrol(url(desk), "jt_1", "node-1")


def test_the_key_is_made_once_for_each_state_directory_and_readable_by_nobody_else(tmp_path):
    here, elsewhere = tmp_path / "a", tmp_path / "b"
    here.mkdir(), elsewhere.mkdir()
    key = enrolment.own_key(here)
    assert len(key) > 40
    assert enrolment.own_key(here) == key != enrolment.own_key(elsewhere)
    assert stat.S_IMODE((here / "enrolment.key").stat().st_mode) == 0o600


def test_an_answer_that_is_cut_off_is_asked_for_again(desk):
    desk.cuts = True
    with pytest.raises(Unreachable):
        enrolment.enrol(url(desk), "jt_1", "node-1", "mine")
    desk.cuts = False
    assert enrolment.enrol(url(desk), "jt_1", "node-1", "mine") == Identity("n1", "nt_x")


def test_an_identity_is_kept_where_nobody_else_reads_it(tmp_path):
    state = tmp_path / "state"
    with enrolment.claim(state):
        assert enrolment.recall(state) is None
        enrolment.remember(state, Identity("n1", "nt_x"))
        assert enrolment.recall(state) == Identity("n1", "nt_x")
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert stat.S_IMODE((state / "identity.json").stat().st_mode) == 0o600
        assert not (state / "enrolment.key").exists(), "it is of no use any longer"
        with pytest.raises(InUse, match="another agent uses"):
            enrolment.claim(state)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"node": "n"}', '{"node": 1, "credential": ""}', "\0\xff"]
)
def test_a_damaged_identity_is_named_with_the_cure(tmp_path, content):
    (tmp_path / "identity.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(Damaged, match=r"identity\.json is damaged .*put a copy of it back"):
        enrolment.recall(tmp_path)


def test_a_key_that_was_never_written_is_made_anew(tmp_path):
    (tmp_path / "enrolment.key").touch()
    assert len(enrolment.own_key(tmp_path)) > 40


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_an_identity_is_on_the_disk_with_its_name_before_the_key_goes(tmp_path):
    program = (
        "from pathlib import Path; from nodes.agent import enrolment as e; "
        f"e.own_key(s := Path({str(tmp_path)!r})); e.remember(s, e.Identity('n', 'x'))"
    )
    traced = subprocess.run(
        ["strace", "-fyqe", "trace=fsync,rename,unlink", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    if traced.returncode:
        pytest.skip(f"nothing can be traced here: {traced.stderr[:200]}")
    calls = [line for line in traced.stderr.splitlines() if str(tmp_path) in line]
    said = [call.split("(")[0].split()[-1] for call in calls]
    assert said == ["fsync", "rename", "fsync"] * 2 + ["unlink"]
    assert f"<{tmp_path}>" in calls[2]


@pytest.mark.processes
def test_an_agent_that_is_told_to_end_while_it_enrols_remembers_the_answer(desk, tmp_path):
    desk.held = threading.Event()
    command = [sys.executable, "-m", "nodes.agent", "--server", url(desk), "--name", "n"]
    agent = subprocess.Popen(
        [*command, "--state-dir", str(tmp_path)],
        env={"MUSTER_AGENT_JOIN_TOKEN": "jt_1"},
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )
    with agent:
        assert desk.came.wait(20)
        agent.terminate()
        assert agent.stderr is not None
        assert "told to end" in agent.stderr.readline()
        desk.held.set()
        said = agent.stderr.read()
        assert agent.wait(20) == 0
    assert "enrolled as node n1" in said
    assert enrolment.recall(tmp_path) == Identity("n1", "nt_x")
    assert not (tmp_path / "enrolment.key").exists()


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("1000", 1000), ("512MiB", 512 << 20), ("2GB", 2 * 10**9), ("1.5g", 1_500_000_000)],
)
def test_amounts_are_read_as_people_write_them(text, bytes_):
    assert amount(text) == bytes_


@pytest.mark.parametrize("text", ["", "much", "-1", "1 mile", "MiB"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match="is not an amount"):
        amount(text)


def test_the_machine_offers_something_of_everything_but_gpus(tmp_path):
    found = detect(tmp_path, ours=tmp_path / "work")
    assert min(found.cpu, found.memory, found.disk) > 0
    assert attributes(found)["driver.process"] == "true"


def test_the_disk_that_executions_use_is_offered_again_after_a_restart(tmp_path):
    work, size = tmp_path / "work", 256 << 20
    (work / "e" / "deep").mkdir(parents=True)
    with (work / "e" / "deep" / "file").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    # Others may write to the same disk meanwhile, but hardly as much.
    gained = detect(tmp_path, ours=work).disk - detect(tmp_path, ours=tmp_path / "none").disk
    assert abs(gained - size) < size / 2


def test_directories_may_be_nested_however_deep(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    inside = os.open(work, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=inside)
        deeper = os.open("d", os.O_RDONLY, dir_fd=inside)
        os.close(inside)
        inside = deeper
    os.close(inside)
    assert detect(tmp_path, ours=work).disk > 0
    subprocess.run(["rm", "-rf", work], check=True)  # Python's own way cannot remove it.


def test_options_come_from_the_command_line_or_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MUSTER_AGENT_LABEL", "zone=a,disk=ssd")
    monkeypatch.setenv("MUSTER_AGENT_MEMORY", "1GiB")
    monkeypatch.setenv("MUSTER_AGENT_NAME", "by-env")
    options = parse(["--name", "by-hand", "--state-dir", str(tmp_path), "--server", "http://x/"])
    assert (options.name, options.memory, options.server) == ("by-hand", 1 << 30, "http://x")
    assert options.labels == {"zone": "a", "disk": "ssd"}


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (["--label", "zone"], "write it as key=value"),
        (["--memory", "much"], "is not an amount"),
        (["--memory", "9" * 400], "is more than any node may offer"),
        (["--disk", "9999999TiB"], "is more than any node may offer"),
        (["--cpu", "-1"], "is not an amount; write a whole number"),
        (["--cpu", "9" * 19], "is more than any node may offer"),
        (["--gpu", "1.5"], "is not an amount; write a whole number"),
        (["--server", "x:8000"], "write it as http://"),
    ],
)
def test_a_wrong_option_is_named_with_its_cure(option, complaint, capsys):
    with pytest.raises(SystemExit):
        parse(option)
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("LOG_LEVEL", "verbose", "LOG_LEVEL is 'verbose'; say debug or info or warning"),
        ("SERVR", "http://x", "MUSTER_AGENT_SERVR in the environment is no option"),
        ("LOGS", "lots", "'lots' is not an amount"),
    ],
)
def test_a_wrong_variable_is_named_with_its_cure(monkeypatch, capsys, name, value, complaint):
    monkeypatch.setenv(f"MUSTER_AGENT_{name}", value)
    with pytest.raises(SystemExit):
        parse([])
    assert complaint in capsys.readouterr().err


def test_a_token_file_that_holds_no_text_is_named(tmp_path, caplog):
    (file := tmp_path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(SystemExit) as end:
        main(["--state-dir", str(tmp_path / "state"), "--join-token-file", str(file)])
    assert end.value.code == 2
    assert f"the join token in {file} cannot be read" in caplog.text


def test_the_websocket_is_where_the_server_is():
    assert websocket_url("https://muster.example") == "wss://muster.example/ws/nodes/"
    assert websocket_url("http://127.0.0.1:8000") == "ws://127.0.0.1:8000/ws/nodes/"


def test_pauses_are_short_after_a_cut_and_long_after_a_refusal():
    assert pause(Ended(0, ""), failures=0, chance=1.0) == 0.5
    assert pause(Ended(1006, ""), failures=3, chance=0.5) == 2.0
    assert pause(Ended(0, ""), failures=99, chance=1.0) == 30.0
    assert pause(Ended(Close.FENCED, ""), failures=1, chance=0.0) == 10.0
    assert pause(Ended(Close.REFUSED, ""), failures=1, chance=0.5) == 90.0
    assert pause(Ended(403, ""), failures=1, chance=0.0) == 60.0


# --- whom it trusts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "warned"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://[::1]:8000", False),
        ("http://localhost", False),
        ("https://muster.example", False),
        ("http://muster.example", True),
        ("http://10.0.0.5:8000", True),
    ],
)
def test_an_orchestrator_that_is_not_here_and_not_https_is_warned_of(server, warned):
    assert is_in_the_clear(server) is warned


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_another_user_is_refused_with_the_cure(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(enrolment.Damaged, match=r"belongs to user 12345.*chown"):
        enrolment.claim(tmp_path)


def test_an_identity_that_others_may_write_is_refused_with_the_cure(tmp_path):
    enrolment.remember(tmp_path, Identity("n1", "nt_x"))
    (tmp_path / "identity.json").chmod(0o622)
    with pytest.raises(enrolment.Damaged, match=r"can be written by other users.*chmod 600"):
        enrolment.claim(tmp_path)
