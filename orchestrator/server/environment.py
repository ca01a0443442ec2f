"""What Muster reads from the environment: every name, its meaning, and all mistakes at once."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nodes.protocol.messages import ISOLATION

EX_CONFIG = 78
"""Exit code of a process whose configuration is wrong, as in sysexits.h."""

HOME = Path(__file__).resolve().parent.parent.parent


MOST_WORKERS = 256
"""Worker processes of one `manage.py worker`; each has a connection to the database."""


class Role(StrEnum):
    """What a process is there for; its time limits and connections follow from it."""

    WEB = "web"
    WORKER = "worker"
    COMMAND = "command"


NAMES: dict[str, str] = {
    "MUSTER_VAR": "directory of everything that is written (default: var, beside manage.py)",
    "MUSTER_ROLE": "what this process is for: " + ", ".join(Role),
    "MUSTER_SECRET_KEY": "signing key (default: made once, kept in var/secret_key)",
    "MUSTER_SECRETS_KEY_FILE": "file with the keys that seal secrets "
    "(default: made once, var/secrets_key)",
    "MUSTER_HOSTS": "host names to answer to, beside localhost, separated by commas",
    "MUSTER_ORIGINS": "origins that browsers come from, as https://muster.example.org",
    "MUSTER_INTERNAL_URL": "where other web processes reach this one, as http://10.0.0.5:8000 "
    "(default: where its nodes reach it)",
    "MUSTER_MINIMUM_ISOLATION": "how far nodes must wall off their tasks to be let in: "
    + ", ".join(ISOLATION),
    "MUSTER_HTTPS": "1 where browsers reach Muster by https only: cookies become secure",
    "MUSTER_DEBUG": "1 for Django's debug pages; never where others can reach it",
    "MUSTER_LOG_LEVEL": "debug, info, warning or error (default: info)",
    "MUSTER_LOG_FORMAT": "text or json (default: text)",
    "MUSTER_WORKERS": "worker processes of one `manage.py worker` (default: one a core, 2 to 8)",
}
"""Every name that the server understands, with what it says."""

OF_THE_COMMAND_LINE = ("MUSTER_SERVER", "MUSTER_TOKEN", "MUSTER_TOKEN_FILE", "MUSTER_NAMESPACE")
"""Names that `muster`, a client, reads beside some of ours."""

FOREIGN = re.compile(
    r"MUSTER_("
    r"AGENT_\w+"  # read by the agent
    r"|JOB_(ID|NAME)|EXECUTION_ID|SLOT|COUNT|ATTEMPT|NODE_ID|PORT\w*"  # given to tasks
    r"|(INPUTS?|RESULTS?)\w*|BENCH_\w+|TEST_\w+"
    r")"
)
"""Names that our agents and tasks have, and that may be around without meaning anything here."""


@dataclass(frozen=True)
class Environment:
    """The environment, parsed: what settings may rely on."""

    var: Path
    role: Role
    database_url: str | None
    secret_key: str | None
    secrets_key_file: Path | None
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    internal_url: str
    minimum_isolation: str
    https: bool
    debug: bool
    log_level: str
    log_format: str
    workers: int


class Misconfigured(Exception):
    """The environment has mistakes; each is a sentence in `mistakes`."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def parse(environ: Mapping[str, str]) -> Environment:
    """Read *environ*, or raise `Misconfigured` with every mistake in it."""
    mistakes = [_unknown(name) for name in sorted(environ) if not _is_known(name)]
    mistakes += _misspelt_database(environ)

    def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = environ.get(name) or default
        if value not in allowed:
            mistakes.append(f"{name} is {value!r}; say one of: {', '.join(allowed)}.")
            return default
        return value

    def yes(name: str) -> bool:
        return choice(name, "0", ("0", "1")) == "1"

    def whole(name: str, default: int, lowest: int, highest: int) -> int:
        value = environ.get(name) or str(default)
        if not re.fullmatch("[0-9]{1,9}", value) or not lowest <= int(value) <= highest:
            mistakes.append(
                f"{name} is {value[:40]!r}; say a whole number from {lowest} to {highest}."
            )
            return default
        return int(value)

    origins = _words(environ.get("MUSTER_ORIGINS", ""))
    mistakes += [
        f"MUSTER_ORIGINS has {origin!r}; an origin is a scheme and a host, "
        "as https://muster.example.org, without a path."
        for origin in origins
        if not re.fullmatch(r"https?://[^/\s]+", origin)
    ]
    internal_url = environ.get("MUSTER_INTERNAL_URL", "").rstrip("/")
    if internal_url and not re.fullmatch(r"http://[^/\s]+", internal_url):
        mistakes.append(
            f"MUSTER_INTERNAL_URL is {internal_url!r}; say http, host and port, "
            "as http://10.0.0.5:8000, without a path."
        )
    secret_key = environ.get("MUSTER_SECRET_KEY") or None
    if secret_key is not None and len(secret_key) < 32:
        mistakes.append(f"MUSTER_SECRET_KEY has {len(secret_key)} characters; use 32 or more.")

    read = Environment(
        var=Path(environ.get("MUSTER_VAR") or HOME / "var").absolute(),
        role=Role(choice("MUSTER_ROLE", Role.COMMAND, tuple(Role))),
        database_url=environ.get("DATABASE_URL") or None,
        secret_key=secret_key,
        secrets_key_file=_path(environ.get("MUSTER_SECRETS_KEY_FILE", "")),
        hosts=_words(environ.get("MUSTER_HOSTS", "")),
        origins=origins,
        internal_url=internal_url,
        minimum_isolation=choice("MUSTER_MINIMUM_ISOLATION", ISOLATION[0], ISOLATION),
        https=yes("MUSTER_HTTPS"),
        debug=yes("MUSTER_DEBUG"),
        log_level=choice("MUSTER_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
        log_format=choice("MUSTER_LOG_FORMAT", "text", ("text", "json")),
        workers=whole("MUSTER_WORKERS", min(8, max(2, os.cpu_count() or 2)), 1, MOST_WORKERS),
    )
    if mistakes:
        raise Misconfigured(tuple(mistakes))
    return read


def _is_known(name: str) -> bool:
    known = name in NAMES or name in OF_THE_COMMAND_LINE or FOREIGN.fullmatch(name)
    return not name.startswith("MUSTER_") or bool(known)


def _misspelt_database(environ: Mapping[str, str]) -> Iterator[str]:
    """What nearly says `DATABASE_URL`, where that is not set: without it we would run our own."""
    if not environ.get("DATABASE_URL"):
        names = sorted(it for it in environ if it.startswith("DATABASE"))
        for name in difflib.get_close_matches("DATABASE_URL", names, cutoff=0.85):
            if name != "DATABASE_URL":
                yield f"{name} means nothing to Muster. Did you mean DATABASE_URL?"


def _unknown(name: str) -> str:
    # Long names of one beginning are alike by that alone.
    nearest = difflib.get_close_matches(name, (*NAMES, *OF_THE_COMMAND_LINE), n=1, cutoff=0.75)
    cure = f" Did you mean {nearest[0]}?" if nearest else f" Known: {', '.join(NAMES)}."
    return f"{name} means nothing to Muster.{cure}"


def _path(text: str) -> Path | None:
    return Path(text).absolute() if text else None


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
