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
        yield " ".join(words), command
        return
    for name, it in inner.items():
        yield from commands(it, (*words, name))


def test_the_manual_lists_every_command_and_no_other():
    told = set(re.findall(r"^\| `(muster [a-z ]+?)(?: [A-Z]+)?`", MANUAL, re.MULTILINE))
    assert told == {name for name, _ in commands(typer.main.get_command(app))}


def test_every_command_but_logs_and_login_prints_objects_for_programs():
    lacking = {
        name
        for name, command in commands(typer.main.get_command(app))
        if not any("-o" in it.opts for it in command.params)
    }
    assert lacking == {"muster job logs", "muster execution logs", "muster login"}


def test_the_manual_lists_every_exit_code_and_no_other():
    told = set(re.findall(r"^\| (\d+) \|", MANUAL.split("## Exit codes")[1], re.MULTILINE))
    assert told == {str(int(code)) for code in Code}
