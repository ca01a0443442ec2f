"""`make mutants`: plant small bugs, one at a time, and list those that no test notices.

mutmut plants them in a copy of the repository, below `var/`, and asks of each only the tests that
reach it. What is computed while a module is imported it cannot change: that is not tried.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from orchestrator.server import postgres
from orchestrator.server.environment import HOME


@dataclass(frozen=True)
class Part:
    """Some modules, and the tests that should notice a bug in them."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    has_database: bool = False


ABOUT_ENDPOINT = ("asked_for", "endpoint", "removal", "reports", "resources", "unsendable", "walk")
DECIDE = ("core", "bidding", "outbox", "outcomes")

PARTS = {
    "agent": Part(
        tuple(f"nodes/agent/{it}.py" for it in DECIDE),
        tuple(f"tests/agent/test_{it}.py" for it in (*DECIDE, "orders", "late_messages")),
    ),
    "protocol": Part(
        ("nodes/protocol/*.py",), ("tests/protocol", "tests/agent/test_bidding.py", "tests/spec")
    ),
    "lifecycle": Part(
        ("orchestrator/lifecycle.py", "nodes/protocol/lifecycle.py"),
        ("tests/orchestrator/test_lifecycle.py", "tests/scheduling/test_properties.py"),
    ),
    "spec": Part(("orchestrator/spec/*.py",), ("tests/spec",)),
    "scheduling": Part(("orchestrator/scheduling/*.py",), ("tests/scheduling",)),
    "session": Part(
        ("nodes/session_protocol.py", "nodes/orders.py"),
        ("tests/nodes/test_orders.py", "tests/nodes/test_sessions.py"),
        has_database=True,
    ),
    "endpoint": Part(
        ("orchestrator/endpoint/*.py", "orchestrator/planners/transitions/*.py"),
        tuple(f"tests/orchestrator/test_{it}.py" for it in ABOUT_ENDPOINT),
        has_database=True,
    ),
}

KILLED, SURVIVED, NOT_TRIED = (1, 3), 0, (None, 2, 5, 33)
"""What pytest left with, or mutmut in its place."""


def main() -> None:
    """Try the parts that are asked for, for as long as is allowed, and say what came of it."""
    parser = argparse.ArgumentParser(prog="make mutants ARGS=…", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=60, help="for each part (default: 60)")
    parser.add_argument("--only", help="one module, as orchestrator/spec/parsing.py")
    parser.add_argument("--children", type=int, default=os.cpu_count())
    given = parser.parse_args()
    if unknown := set(given.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}, only {', '.join(PARTS)}")
    for name in given.parts or PARTS:
        part, copy = PARTS[name], HOME / "var" / "mutants" / name
        _copy(copy, part, given.only)
        with ExitStack() as until_the_end:
            environ = dict(os.environ, DATABASE_URL="postgres://nobody@127.0.0.1:1/none")
            if part.has_database:
                environ["DATABASE_URL"] = _database(until_the_end)
            children = 1 if part.has_database else given.children
            _plant(copy, environ, children, given.minutes)
        sys.stdout.writelines(f"{line}\n" for line in ("", name, *_results(copy)))


def _copy(to: Path, part: Part, only: str | None) -> None:
    """Copy what git knows of the repository, and tell mutmut what to do there."""
    shutil.rmtree(to, ignore_errors=True)
    files = subprocess.check_output(["git", "ls-files"], cwd=HOME, text=True).splitlines()
    for file in filter(os.path.isfile, files):
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOME / file, to / file)
    settings = {
        "source_paths": ["nodes", "orchestrator", "dashboard"],
        "only_mutate": [only] if only else list(part.modules),
        "also_copy": ["manage.py", "docs", "templates", "static", "README.md", "CHANGELOG.md"],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", *["--reuse-db"] * part.has_database],
        "pytest_add_cli_args_test_selection": list(part.tests),
        # A connection to the database must not be inherited.
        "process_isolation": "forkserver" if part.has_database else "fork",
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    with (to / "pyproject.toml").open("a") as file:
        file.write("\n".join(["", "[tool.mutmut]", *lines, ""]))


def _database(until_the_end: ExitStack) -> str:
    directory = Path(until_the_end.enter_context(tempfile.TemporaryDirectory()))
    directory.chmod(0o755)  # The server may run as another user.
    server = until_the_end.enter_context(postgres.running(directory / "postgres", durable=False))
    of_ours = (server.place.sockets, server.place.passwords)
    sockets, passfile = (quote(str(it), safe="") for it in of_ours)
    return f"postgres://{postgres.SUPERUSER}@{sockets}/{postgres.DATABASE}?passfile={passfile}"


def _plant(copy: Path, environ: dict[str, str], children: int, minutes: float) -> None:
    command = [Path(sys.executable).with_name("mutmut"), "run", "--max-children", str(children)]
    running = subprocess.Popen(command, cwd=copy, env=environ, start_new_session=True)
    try:
        running.wait(60 * minutes)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def _results(copy: Path) -> Iterator[str]:
    os.chdir(copy)  # mutmut looks for everything where it is.
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    for meta in sorted(Path("mutants").rglob("*.py.meta")):
        codes = json.loads(meta.read_text())["exit_code_by_key"]
        if not codes:
            continue
        survivors = [name for name, code in codes.items() if code == SURVIVED]
        diffs = {name: _changed(get_diff_for_mutant(name)) for name in survivors}
        told = {name: lines for name, lines in diffs.items() if not _is_wording(lines)}
        count = Counter(
            "noticed" if code in KILLED else "not tried" if code in NOT_TRIED else "stuck"
            for code in codes.values()
            if code != SURVIVED
        )
        counted = "".join(f", {number} {what}" for what, number in sorted(count.items()))
        wording = len(diffs) - len(told)
        yield (
            f"  {str(meta)[8:-5]}: of {len(codes)} bugs {len(told)} not noticed{counted}, "
            f"{wording} of wording"
        )
        for name, lines in told.items():
            yield f"    {name.rpartition('.')[2]}"
            yield from (f"      {line}" for line in lines)


def _changed(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if re.match(r"[-+](?![-+])", line)]


def _is_wording(lines: list[str]) -> bool:
    """Whether only the text of a sentence differs, or what `zip` would do with unequal lengths."""

    def plain(sign: str) -> list[str]:
        mine = (line[1:].lower().replace("xx", "") for line in lines if line[0] == sign)
        return [re.sub(r",?\s*(strict=\w+)?\s*\)", ")", line) for line in mine]

    return plain("-") == plain("+")


if __name__ == "__main__":
    main()
