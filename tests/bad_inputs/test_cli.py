"""The command line: files, addresses, tokens and answers that are none; a sentence and a code."""

from __future__ import annotations

import gzip
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.cli.main import run
from tests.bad_inputs.harm import each
from tests.bad_inputs.table import case, tries

USAGE, NOT_REACHED, NOT_FOUND = 2, 3, 6
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What the first command imports is not the work that its input makes."""
    file = tmp_path_factory.mktemp("first") / "first.yaml"
    for text in ("name: a\n\ttask: {}", "name: \0"):
        file.write_text(text)
        assert run(["job", "validate", str(file)]) == USAGE


@pytest.fixture
def muster(imported, monkeypatch, tmp_path, capsys):
    """Run a command in an environment of its own: its exit code, and what it said."""
    for name in [
        it for it in os.environ if it.startswith("MUSTER_") or it.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "XDG_CONFIG_HOME": tmp_path,
        "MUSTER_VAR": tmp_path / "var",
        "MUSTER_SERVER": NOBODY,
        "MUSTER_TOKEN": "at_x",
    }.items():
        monkeypatch.setenv(name, str(value))

    def call(*words: str, **environ: str) -> tuple[int, str]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        with each(" ".join(words)[:80]):
            code = run(words)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert "something unexpected" not in said.err, said.err
        assert "\x1b" not in said.err + said.out
        return code, said.err + said.out

    return call


@pytest.fixture
def files(tmp_path):
    """Files that are no job files."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "large.yaml").write_bytes(b"a: " + b"x" * 1_100_000)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "nul.yaml").write_bytes(b"name: a\0b")
    (tmp_path / "tab.yaml").write_text("name: a\n\ttask: {}")
    (tmp_path / "link.yaml").symlink_to("nowhere")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "anchors.yaml").write_text("a: &a [x]\nb: [*a, *a]")
    (tmp_path / "tag.yaml").write_text('a: !!python/object/apply:os.system ["true"]')
    (tmp_path / "merge.yaml").write_text("<<: {name: a}\nname: b")
    (tmp_path / "twice.yaml").write_text("name: a\nname: b")
    (tmp_path / "words.yaml").write_text("name: no\ncount: 017\ntask: {command: [1:30]}")
    (tmp_path / "deep.yaml").write_text("[" * 100_000)
    os.mkfifo(tmp_path / "pipe.yaml")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        case(69, "missing", "missing.yaml", "cannot be read"),
        case(69, "directory", "directory", "directory"),
        case(69, "empty", "empty.yaml", "empty"),
        case(69, "large", "large.yaml", "larger than"),
        case(69, "bytes", "bytes.yaml", "byte order mark"),
        case(69, "nul", "nul.yaml", "nul.yaml"),
        case(69, "link", "link.yaml", "cannot be read"),
        case(69, "loop", "loop.yaml", "cannot be read"),
        case(69, "device", "/dev/zero", "cannot be read"),
        case(69, "no name", "", "cannot be read"),
        case(69, "long", "x" * 5000, "cannot be read"),
        case(66, "anchors", "anchors.yaml", "anchor"),
        case(67, "tag", "tag.yaml", "tag"),
        case(68, "tab", "tab.yaml", "tab"),
        case(68, "merge", "merge.yaml", "merging"),
        case(68, "twice", "twice.yaml", "twice"),
        case(68, "words", "words.yaml", "line"),
        case(68, "deep", "deep.yaml", "nested deeper"),
    ],
)
def test_a_file_that_is_no_job_file_is_one_of_usage(muster, files, name, says):
    for verb in ("run", "validate"):
        code, said = muster("job", verb, name)
        assert code == USAGE, said
        assert says in said


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        case(70, "no scheme", "127.0.0.1:8000", USAGE, "begins with http"),
        case(70, "ftp", "ftp://x", USAGE, "begins with http"),
        case(70, "bracket", "http://[::1", USAGE, "begins with http"),
        case(70, "port", "http://x:999999", USAGE, "begins with http"),
        case(70, "nothing", "http://", USAGE, "begins with http"),
        case(70, "API", "http://x:1/api/v1", USAGE, "Write http://x:1"),
        case(70, "query", "http://x:1/?a=b", USAGE, "Write http://x:1"),
        case(70, "password", "http://ana:hunter2@x", USAGE, "a token says who asks"),
        case(70, "broken, with password", "http://ana:hunter2@x:port", USAGE, "a token says who"),
        case(70, "space", "http://a b", USAGE, ""),
        case(70, "control", "http://a\x1b[2J", USAGE, ""),
        case(70, "nobody", NOBODY, NOT_REACHED, "nothing listens there"),
    ],
)
def test_an_address_that_is_none_is_named_without_its_password(muster, address, code, says):
    found, said = muster("status", MUSTER_SERVER=address)
    assert found == code, said
    assert says in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("proxy", "code"),
    [
        case(70, "dead proxy", "http://127.0.0.1:1", NOT_REACHED),
        case(70, "unknown proxy", "socks9://ana:hunter2@127.0.0.1:1", USAGE),
        case(70, "broken proxy", "http://[::1", USAGE),
    ],
)
def test_a_proxy_that_is_none_is_named_without_its_password(muster, proxy, code):
    found, said = muster("status", MUSTER_SERVER="http://muster.invalid", HTTP_PROXY=proxy)
    assert found == code, said
    assert "proxy" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("token", "says"),
    [
        case(71, "device", "/dev/zero", "holds no token"),
        case(71, "missing", "nowhere", "cannot be read"),
        case(71, "directory", ".", "cannot be read"),
        case(71, "empty", "/dev/null", "holds no token"),
        case(71, "binary", "bytes.yaml", "cannot be read"),
        case(71, "large", "large.yaml", "holds no token"),
    ],
)
def test_a_token_file_that_is_none_is_usage(muster, files, token, says):
    code, said = muster("--token-file", token, "status")
    assert code == USAGE, said
    assert says in said


@tries(71)
def test_a_token_that_others_can_read_is_warned_of_and_not_shown(muster, tmp_path):
    (tmp_path / "token").write_text("at_secret")
    (tmp_path / "token").chmod(0o644)
    _, said = muster("--token-file", "token", "status")
    assert "chmod 600" in said
    assert "at_secret" not in said


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        case(126, "server", "MUSTER_SERVR", "http://x", "Did you mean MUSTER_SERVER?"),
        case(126, "token", "MUSTER_TOKN", "x", "Did you mean MUSTER_TOKEN?"),
        case(126, "file", "MUSTER_TOKENFILE", "x", "Did you mean MUSTER_TOKEN_FILE?"),
        case(126, "namespace", "MUSTER_NAMESPACES", "x", "Did you mean MUSTER_NAMESPACE?"),
    ],
)
def test_a_misspelt_variable_is_not_left_out_in_silence(muster, name, value, says):
    code, said = muster("status", **{name: value})
    assert (code, says in said) == (USAGE, True), said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        case(126, "key", 'servr = "http://x"', "servr"),
        case(126, "kind", "server = 5", "not text"),
        case(126, "no TOML", "server", "cannot be read"),
        case(126, "binary", "\x00", "cannot be read"),
    ],
)
def test_a_configuration_that_is_none_is_usage(muster, tmp_path, text, says):
    (tmp_path / "muster").mkdir()
    (tmp_path / "muster" / "config.toml").write_text(text)
    code, said = muster("status")
    assert (code, says in said) == (USAGE, True), said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        case(74, "dash", ["job", "show", "-x"], USAGE),
        case(74, "nothing", ["job", "show", ""], NOT_FOUND),
        case(74, "way up", ["job", "show", "a/b/../c"], NOT_FOUND),
        case(74, "dots", ["job", "logs", ".."], NOT_FOUND),
        case(74, "verb", ["job", "shwo", "a"], USAGE),
        case(74, "limit", ["job", "list", "--limit", "0"], USAGE),
        case(74, "tail", ["job", "logs", "a", "--tail", "-1"], USAGE),
        case(74, "timeout", ["job", "run", "x", "--timeout", "soon"], USAGE),
        case(74, "watch", ["job", "list", "--watch=NaN"], USAGE),
        case(74, "label", ["node", "label", "n", "pool"], USAGE),
        case(74, "format", ["job", "list", "-o", "xml"], USAGE),
        case(74, "scopes", ["-n", "a", "-A", "job", "list"], USAGE),
    ],
)
def test_words_that_make_no_sense_are_usage(muster, words, code):
    found, said = muster(*words)
    assert found == code, said
    assert said


# --- who answers is not Muster -----------------------------------------------------------------


class Impostor(BaseHTTPRequestHandler):
    status, kind, body, headers_more = 200, "application/json", b"", {}

    def do_GET(self):
        self.send_response(self.status)
        for name, value in {
            "Content-Type": self.kind,
            "Content-Length": str(len(self.body)),
            **self.headers_more,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815 - what http.server calls

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def impostor():
    """Start a server that answers everything in one way; its address."""
    servers = []

    def start(**answer) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answering", (Impostor,), answer))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for it in servers:
        it.shutdown()
        it.server_close()


PORTAL = b"<html>\x1b[2J<script>alert(1)</script>sign in</html>"
COMMANDS = (
    ["job", "list"],
    ["job", "show", "x"],
    ["job", "logs", "x"],
    ["status"],
    ["node", "list"],
    ["events"],
    ["queue"],
    ["job", "stop", "x"],
)


@pytest.mark.parametrize(
    "answer",
    [
        case(75, "portal", {"kind": "text/html", "body": PORTAL}),
        case(75, "portal that says JSON", {"body": PORTAL}),
        case(75, "portal that refuses", {"kind": "text/html", "body": PORTAL, "status": 403}),
        case(75, "cut", {"body": b'{"items": ['}),
        case(75, "nothing", {"body": b""}),
        case(75, "{}", {"body": b"{}"}),
        case(75, "[]", {"body": b"[]"}),
        case(75, "null", {"body": b"null"}),
        case(75, "text", {"body": b'"x"'}),
        case(75, "deep", {"body": b"[" * 100_000}),
        case(75, "items of another kind", {"body": b'{"items": 5, "next_cursor": null}'}),
        case(75, "rows of another kind", {"body": b'{"items": [{"a": 1}], "next_cursor": null, "events": [], "cursor": "x"}'}),
        case(75, "bad gzip", {"body": b"xxxx", "headers_more": {"Content-Encoding": "gzip"}}),
        case(75, "cut gzip", {"body": gzip.compress(b"{}")[:-9], "headers_more": {"Content-Encoding": "gzip"}}),
        case(75, "problem of another kind", {"kind": "application/problem+json", "body": b"[1]", "status": 400}),
        case(75, "problem without words", {"kind": "application/problem+json", "body": b"{}", "status": 400}),
        case(75, "redirect", {"status": 302, "headers_more": {"Location": "http://evil.example"}}),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_musters_is_said_to_be_none(muster, impostor, answer):
    server = impostor(**answer)
    for words in COMMANDS:
        code, said = muster(*words, MUSTER_SERVER=server)
        assert code not in {0, 130}, (words, said)
        assert "<" not in said, (words, said)
        assert "None" not in said, (words, said)
        assert server in said or code == USAGE, (words, said)
