"""What the command line gets of a local cluster: its address, a token, and commands to try."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orchestrator.cli import config
from orchestrator.cli.failures import Failure

from .environment import HOME


def write_config(var: Path, here: str, token: str) -> None:
    """Write the address *here* and *token* where the command line of this tree finds them."""
    config.keep(here, token, _file(var))


def commands(var: Path, here: str) -> Iterator[str]:
    """Three commands to try, which work as they are printed."""
    muster = Path(sys.executable).with_name("muster")
    words: list[str | Path] = [muster] if muster.exists() else [Path(sys.executable)]
    words += [] if muster.exists() else ["-m", "orchestrator.cli"]
    before = "" if var == HOME / "var" else f"MUSTER_VAR={shlex.quote(str(var))} "
    if not _is_found(var, here):
        words += ["--server", here, "--token-file", _token(var)]
    for command in (
        ("status",),
        ("job", "run", HOME / "docs" / "hello.yaml"),
        ("job", "logs", "hello"),
    ):
        yield before + " ".join(shlex.quote(_from_here(word)) for word in (*words, *command))


def _is_found(var: Path, here: str) -> bool:
    """Whether the command line comes *here* by itself: nothing else is named to it."""
    with suppress(Failure):
        found = config.resolve(None, None, {**os.environ, "MUSTER_VAR": str(var)})
        return (found.server, found.token_from) == (here, str(_token(var)))
    return False


def _from_here(word: str | Path) -> str:
    """*word*, as a path below the working directory when it is one."""
    if isinstance(word, Path) and word.is_relative_to(Path.cwd()):
        return str(word.relative_to(Path.cwd()))
    return str(word)


def _token(var: Path) -> Path:
    return _file(var).with_name("token")


def _file(var: Path) -> Path:
    return config.local_file({"MUSTER_VAR": str(var)})
