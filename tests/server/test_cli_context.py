"""The commands that `make up` prints: they come to its cluster, whatever else is named."""

import shlex

import pytest

from orchestrator.access import tokens
from orchestrator.cli import config
from orchestrator.models import ApiToken
from orchestrator.server import cli_context
from orchestrator.server.local_cluster import _fresh_token

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


def test_each_directory_has_a_token_of_its_own(db, settings, tmp_path, django_user_model):
    django_user_model.objects.create_superuser("admin")
    made = {}
    for name in ("one", "other", "other"):
        settings.VAR = tmp_path / ("long" * 40) / name
        made[name] = _fresh_token("command line", "admin", expires_in=None)
    assert all(tokens.authenticate(secret) for secret in made.values())
    assert ApiToken.objects.count() == 2
