"""The manual says what there is, and nothing else."""

import re

from orchestrator.access import tokens
from orchestrator.api import api
from orchestrator.server.environment import HOME

MANUAL = (HOME / "docs" / "api.md").read_text()


def test_the_manual_lists_every_address_and_no_other():
    document = api.get_openapi_schema(path_prefix="")
    there = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    told = set(re.findall(r"^\| (GET|POST|PUT|DELETE) \| `([^`]+)`", MANUAL, re.MULTILINE))
    assert told == {(method, f"/{path.lstrip('/')}") for method, path in there}


def test_the_manual_lists_the_scopes_in_their_order():
    table = MANUAL.split("## Who may what")[1].split("## Addresses")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(tokens.SCOPES)


def test_the_manual_explains_every_problem():
    told = set(re.findall(r"`([a-z-]+)`", MANUAL.split("## Problems")[1]))
    sources = [*(HOME / "orchestrator" / "api").glob("*.py"), HOME / "nodes" / "errors.py"]
    raised = {
        code
        for source in sources
        for code in re.findall(r"Problem[,(]\s*\d{3},\s*\"([a-z-]+)\"", source.read_text())
    }
    assert raised <= told
