"""Environment, files and options: wrong ones are all named, before anything starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nodes.agent import options
from orchestrator.server.environment import EX_CONFIG, HOME, Misconfigured, parse
from tests.bad_inputs.table import case, tries


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        case(125, "0", {"MUSTER_WORKERS": "0"}, "from 1 to"),
        case(125, "negative", {"MUSTER_WORKERS": "-1"}, "from 1 to"),
        case(125, "99999999", {"MUSTER_WORKERS": "99999999"}, "from 1 to 256"),
        case(125, "5,000 digits", {"MUSTER_WORKERS": "9" * 5000}, "from 1 to 256"),
        case(125, "word", {"MUSTER_WORKERS": "many"}, "from 1 to"),
        case(125, "digits of others", {"MUSTER_WORKERS": "\u0663"}, "from 1 to"),
        case(125, "days", {"MUSTER_KEEP_DAYS": "6"}, "days from 7 to 36500, or 0 to keep"),
        case(125, "no days", {"MUSTER_KEEP_DAYS_BATCH": "-1"}, "days from 7 to 36500"),
        case(125, "a typo of days", {"MUSTER_KEEP_DAY": "9"}, "Did you mean MUSTER_KEEP_DAYS?"),
        case(125, "level", {"MUSTER_LOG_LEVEL": "loud"}, "say one of: debug"),
        case(125, "format", {"MUSTER_LOG_FORMAT": "xml"}, "say one of: text"),
        case(125, "yes", {"MUSTER_HTTPS": "yes"}, "say one of: 0, 1"),
        case(125, "role", {"MUSTER_ROLE": "king"}, "say one of: web"),
        case(125, "address", {"MUSTER_INTERNAL_URL": "ftp://x"}, "http, host and port"),
        case(126, "typo", {"MUSTER_WORKER": "1"}, "Did you mean MUSTER_WORKERS?"),
        case(126, "nothing near", {"MUSTER_LEASE_SECOND": "1"}, "Known: MUSTER_"),
        case(126, "database", {"DATABASE_URI": "postgres://x"}, "Did you mean DATABASE_URL?"),
        case(126, "databases", {"DATABASE_URLS": "postgres://x"}, "Did you mean DATABASE_URL?"),
        case(126, "host", {"MUSTER_HOST": "x"}, "Did you mean MUSTER_HOSTS?"),
    ],
)
def test_a_wrong_variable_is_named_with_its_cure(environ, says):
    with pytest.raises(Misconfigured) as wrong:
        parse(environ)
    assert says in str(wrong.value)
    assert next(iter(environ)) in str(wrong.value)


@tries(126)
def test_what_other_programs_call_their_database_is_no_mistake_beside_ours():
    parse({"DATABASE_URL": "postgres://x/y", "DATABASE_URI": "mysql://z"})
    parse({"DATABASE_HOST": "x", "DATABASE_NAME": "y"})


@tries(125)
def test_all_mistakes_are_told_at_once():
    with pytest.raises(Misconfigured) as wrong:
        parse(
            {"MUSTER_WORKERS": "0", "MUSTER_LOG_LEVEL": "x", "MUSTER_X": "1", "DATABASE_URI": "x"}
        )
    assert len(wrong.value.mistakes) == 4


def started(*words: str, **environ: object) -> subprocess.CompletedProcess[str]:
    """How a program of ours ends that starts with nothing of our environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, *words],
        cwd=HOME,
        env=kept | {name: str(value) for name, value in environ.items()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@tries(125, 126)
@pytest.mark.processes
def test_a_wrong_environment_ends_every_command_at_once(tmp_path):
    done = started("manage.py", "web", MUSTER_VAR=tmp_path, MUSTER_WORKERS="0", MUSTER_NONSENSE="1")
    assert done.returncode == EX_CONFIG
    assert "MUSTER_WORKERS is '0'" in done.stderr
    assert "MUSTER_NONSENSE means nothing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.processes
@pytest.mark.parametrize("where", [case(128, it, it) for it in ("file", "file/below", "/dev/full")])
def test_a_directory_that_is_none_is_named(tmp_path, where):
    (tmp_path / "file").write_text("")
    done = started("manage.py", "check", MUSTER_VAR=tmp_path / where)
    assert done.returncode == EX_CONFIG, done.stderr
    assert "MUSTER_VAR" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    ("words", "says"),
    [
        case(128, "port 99999", ["web", "--port", "99999"], "--port is 99999"),
        case(128, "port -1", ["web", "--port", "-1"], "--port is -1"),
        case(128, "host", ["web", "--host", "999.1.1.1"], "--host is '999.1.1.1'"),
        case(128, "agents -1", ["up", "--agents", "-1"], "--agents is -1"),
        case(128, "workers 0", ["worker", "--workers", "0"], "--workers is 0"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(tmp_path, words, says):
    known = {"MUSTER_VAR": tmp_path, "DATABASE_URL": "postgres://nobody@127.0.0.1:1/x"}
    done = started("manage.py", *words, **known)
    assert done.returncode != 0
    assert says in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


# --- agents ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "environ", "says"),
    [
        case(129, "cpu -1", ["--cpu=-1"], {}, "is not an amount"),
        case(129, "cpu word", ["--cpu=many"], {}, "is not an amount"),
        case(129, "cpu digits", ["--cpu=" + "9" * 19], {}, ""),
        case(129, "memory", ["--memory=1,5G"], {}, "is not an amount"),
        case(129, "server", ["--server=ftp://x"], {}, "http://"),
        case(129, "label", ["--label=pool"], {}, "key=value"),
        case(129, "users", ["--users=0-9"], {}, "is no range of users"),
        case(129, "processes", ["--processes=-5"], {}, "is not an amount"),
        case(129, "isolation", ["--isolation=much"], {}, "invalid choice"),
        case(129, "level", [], {"MUSTER_AGENT_LOG_LEVEL": "loud"}, "LOG_LEVEL is 'loud'"),
        case(126, "agent's typo", [], {"MUSTER_AGENT_SEVRER": "x"}, "did you mean MUSTER_AGENT_SERVER?"),
        case(126, "agent's name", [], {"MUSTER_AGENT_X": "x"}, "is no option of the agent"),
    ],
)  # fmt: skip
def test_a_wrong_option_of_an_agent_is_named(monkeypatch, capsys, words, environ, says):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        options.parse(words)
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def _newer_ledger(directory):
    import sqlite3

    ledger = sqlite3.connect(directory / "ledger.db")
    ledger.execute("CREATE TABLE fact (name TEXT, value TEXT)")
    ledger.execute("INSERT INTO fact VALUES ('shape', '99')")
    ledger.commit()
    ledger.close()


STATES = {
    "identity empty": lambda at: (at / "identity.json").write_text(""),
    "identity of a number": lambda at: (at / "identity.json").write_text(json.dumps({"node": 5})),
    "identity of a list": lambda at: (at / "identity.json").write_text("[]"),
    "ledger of noise": lambda at: (at / "ledger.db").write_bytes(b"noise" * 1000),
    "newer ledger": _newer_ledger,
    "directory as a ledger": lambda at: (at / "ledger.db").mkdir(),
    "file below": lambda at: (at / "logs").write_text(""),
}


@pytest.mark.processes
@pytest.mark.parametrize("spoil", [case(129, what, it) for what, it in STATES.items()])
def test_a_state_that_cannot_be_used_is_told_before_a_token_is_spent(tmp_path, spoil):
    """Nobody listens at the server's address: who spent the token would wait there."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    spoil(state)
    done = started(
        *("-m", "nodes.agent", "--server", "http://127.0.0.1:1", "--state-dir", str(state)),
        MUSTER_AGENT_JOIN_TOKEN="jt_x",
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert str(state) in done.stderr


@pytest.mark.processes
@tries(129)
def test_a_state_directory_that_is_a_file_is_named(tmp_path):
    (tmp_path / "state").write_text("")
    words = ("-m", "nodes.agent", "--server", "http://127.0.0.1:1", "--state-dir")
    done = started(*words, str(tmp_path / "state"), MUSTER_AGENT_JOIN_TOKEN="jt_x")
    assert done.returncode == 2, done.stderr
    assert "cannot be used" in done.stderr


@pytest.mark.processes
@tries(129, 71)
def test_a_join_token_of_a_device_without_end_is_refused(tmp_path):
    words = ("-m", "nodes.agent", "--server", "http://127.0.0.1:1", "--state-dir")
    done = started(*words, str(tmp_path / "state"), "--join-token-file", "/dev/zero")
    assert done.returncode == 2, done.stderr
    assert "/dev/zero" in done.stderr


@pytest.mark.processes
@tries(127)
def test_a_bare_environment_is_enough_and_what_is_secret_stays_so(tmp_path):
    """No HOME, another language and zone, no umask: keys are nobody else's all the same."""
    done = started(
        "-c",
        "import os; os.umask(0); import orchestrator.server.settings",
        MUSTER_VAR=tmp_path / "var",
        HOME="",
        LANG="C",
        LC_ALL="C",
        TZ="Asia/Kathmandu",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "var" / "secret_key").stat().st_mode & 0o777 == 0o600
