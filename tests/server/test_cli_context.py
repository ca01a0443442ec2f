"""The commands that `make up` prints: they come to its cluster, whatever else is named."""

import shlex

import pytest

from orchestrator.cli import config
from orchestrator.server import cli_context

HERE = "http://127.0.0.1:8021"


@pytest.fixture(autouse=True)
def nothing_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("MUSTER_SERVER", "MUSTER_TOKEN", "MUSTER_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


def words(var):
    cli_context.write_config(var, HERE, "at_local")
    return shlex.split(next(cli_context.commands(var, HERE)))


def test_where_nothing_else_is_named_the_directory_is_enough(tmp_path):
    var = tmp_path / "with a blank"
    assert words(var)[::2] == [f"MUSTER_VAR={var}", "status"]


@pytest.mark.parametrize("named", ["MUSTER_SERVER", "MUSTER_TOKEN", "login"])
def test_what_is_named_otherwise_is_overruled(tmp_path, monkeypatch, named):
    if named == "login":
        config.keep("http://elsewhere", "at_other", config.config_file())
    else:
        monkeypatch.setenv(named, "http://elsewhere" if named == "MUSTER_SERVER" else "at_other")
    token = str(tmp_path / "cli" / "token")
    assert words(tmp_path)[-5:] == ["--server", HERE, "--token-file", token, "status"]
