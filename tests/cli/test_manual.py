"""The manual says what there is, and nothing else."""

import re

import typer

from orchestrator.cli.failures import Code
from orchestrator.cli.main import app
from orchestrator.server.environment import HOME

MANUAL = (HOME / "docs" / "cli.md").read_text()


def commands(command, words=("muster",)):
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(words)
        return
    for name, it in inner.items():
        yield from commands(it, (*words, name))


def test_the_manual_lists_every_command_and_no_other():
    told = set(re.findall(r"^\| `(muster [a-z ]+?)(?: [A-Z]+)?`", MANUAL, re.MULTILINE))
    assert told == set(commands(typer.main.get_command(app)))


def test_the_manual_lists_every_exit_code_and_no_other():
    told = set(re.findall(r"^\| (\d+) \|", MANUAL.split("## Exit codes")[1], re.MULTILINE))
    assert told == {str(int(code)) for code in Code}
