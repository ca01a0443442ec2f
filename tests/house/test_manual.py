"""Whatever README and manual name is there: addresses, commands, targets, files."""

import re
from pathlib import Path

import pytest
import typer
from django.contrib.auth.models import User
from django.core.management import get_commands, load_command_class
from django.test import Client

from orchestrator.cli.main import app

HOME = Path(__file__).resolve().parents[2]
PAGES = [HOME / "README.md", *sorted((HOME / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.findall(r"`([^`\n]+)`", BLOCK.sub("", TEXT))
CODE += [line for block in BLOCK.findall(TEXT) for line in block.splitlines()]


def named(pattern: str) -> list[str]:
    return sorted({found for text in CODE for found in re.findall(pattern, text)})


ADDRESSES = named(r"^(/(?:api|admin|healthz|readyz|accounts)[\w./-]*)$")
MUSTER = named(r"(?:^|[\s/])muster ((?:job|node|queue|events|status|login|logout|execution)\b.*)")
MANAGE = named(r"manage\.py ([a-z_]+\b.*)")
TARGETS = named(r"^make ([a-z]+)")
FILES = named(
    r"^((?:orchestrator|nodes|dashboard|tests|docs|benchmarks|static|templates)/[\w./-]+)$"
)


def test_each_kind_is_found():
    assert all(len(found) > 2 for found in (ADDRESSES, MUSTER, MANAGE, TARGETS, FILES))


@pytest.mark.django_db
@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_answers(address):
    visitor = Client()
    visitor.force_login(User.objects.create_superuser("root"))
    answer = visitor.get(address, follow=True)
    assert answer.status_code in {200, 405, 503}, answer.content


@pytest.mark.parametrize("line", MUSTER)
def test_a_command_of_muster_is_there_with_its_options(line):
    command = typer.main.get_command(app)
    words = line.split()
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    known = {option for it in command.params for option in (*it.opts, *it.secondary_opts)}
    assert options(words) <= known | {"--help"}, line


@pytest.mark.parametrize("line", MANAGE)
def test_a_command_of_manage_is_there_with_its_options(line):
    name, *words = line.split()
    assert name in get_commands(), line
    command = load_command_class(get_commands()[name], name)
    parser = command.create_parser("manage.py", name)
    helps = parser.format_help()
    for word in words[:1]:
        for action in parser._actions:
            if isinstance(action.choices, dict) and word in action.choices:
                helps += action.choices[word].format_help()
    assert {it for it in options(words) if it not in helps} == set(), line


def options(words: list[str]) -> set[str]:
    """The long options among *words* until the command ends."""
    ended = re.split(r"[;|>#`)]", " ".join(words))[0]
    return set(re.findall(r"(?<!\S)--[a-z][a-z-]*", ended))


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_of_make_is_there(target):
    assert re.search(rf"^{target}:", (HOME / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_there(file):
    assert (HOME / file).exists()
