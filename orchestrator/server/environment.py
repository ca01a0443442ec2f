"""What Muster reads from the environment: every name, its meaning, and all mistakes at once."""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import filterfalse
from pathlib import Path

from nodes.protocol.messages import ISOLATION
from orchestrator.lifecycle import JobType

EX_CONFIG = 78
"""Exit code of a process whose configuration is wrong, as in sysexits.h."""

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine that nobody else can reach it by."""

SHORTEST_KEY = 50
FEWEST_CHARACTERS = 10
PLACEHOLDER = re.compile(
    r"(?i)change.?me|insecure|secret.?key|example|placeholder|your.?(secret|key)"
)
"""What keys say that were copied from some page."""
REPEATED = re.compile(r"(.{2,12})\1{3}")
MAKE_ONE = ", as from: openssl rand -base64 48"

HOME = Path(__file__).resolve().parent.parent.parent


MOST_WORKERS = 256
"""Worker processes of one `manage.py worker`; each has a connection to the database."""


class Role(StrEnum):
    """What a process is there for; its time limits and connections follow from it."""

    WEB = "web"
    WORKER = "worker"
    COMMAND = "command"


KEEP_DAYS = {kind: f"MUSTER_KEEP_DAYS_{kind.upper()}" for kind in JobType}
"""By the type of jobs the name of how long theirs are kept."""

FEWEST_DAYS, MOST_DAYS = 7, 36_500
"""The schema's owner lets nothing of the journal or the history be dropped that is younger."""


NAMES: dict[str, str] = {
    "MUSTER_MIGRATE_URL": "DATABASE_URL as the role that owns the schema, for commands of "
    "operators, `migrate` first of all (default: DATABASE_URL, whose role then does both)",
    "MUSTER_VAR": "directory of everything that is written (default: var, beside manage.py)",
    "MUSTER_ROLE": "what this process is for: " + ", ".join(Role),
    "MUSTER_SECRET_KEY": "signing key (default: made once, kept in var/secret_key)",
    "MUSTER_SECRETS_KEY_FILE": "file with the keys that seal secrets "
    "(default: made once, var/secrets_key)",
    "MUSTER_HOSTS": "host names to answer to, beside localhost, separated by commas",
    "MUSTER_ORIGINS": "origins that browsers come from, as https://muster.example.org",
    "MUSTER_INTERNAL_URL": "where other web processes reach this one, as http://10.0.0.5:8000 "
    "(default: where its nodes reach it)",
    "MUSTER_TRUSTED_PROXIES": "addresses or networks of proxies that are believed whom they speak "
    "for, separated by commas (default: none)",
    "MUSTER_REQUESTS_PER_SECOND": "requests of one user, in one web process (default: 100); 0 for "
    "any number",
    "MUSTER_CONNECTIONS_PER_ADDRESS": "connections of one address, in one web process (default: "
    "512), beside those of nodes; 0 for any number",
    "MUSTER_STREAMS_PER_USER": "logs that one user follows at once, in one web process (default: "
    "32)",
    "MUSTER_SOCKETS_PER_USER": "open pages of one user, in one web process (default: 64)",
    "MUSTER_MINIMUM_ISOLATION": "how far nodes must wall off their tasks to be let in: "
    + ", ".join(ISOLATION),
    "MUSTER_HTTPS": "1 where browsers reach Muster by https only: cookies become secure",
    "MUSTER_DEBUG": "1 for Django's debug pages; never where others can reach it",
    "MUSTER_LOG_LEVEL": "debug, info, warning or error (default: info)",
    "MUSTER_LOG_FORMAT": "text or json (default: text)",
    "MUSTER_WORKERS": "worker processes of one `manage.py worker` (default: one a core, 2 to 8)",
    "MUSTER_KEEP_DAYS": "days for which the journal is kept, and what has ended "
    f"(default: 90), {FEWEST_DAYS} or more; 0 for ever",
    **{
        name: f"the same for {kind} jobs (default: MUSTER_KEEP_DAYS)"
        for kind, name in KEEP_DAYS.items()
    },
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
    migrate_url: str | None
    secret_key: str | None
    secrets_key_file: Path | None
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    internal_url: str
    trusted_proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    requests_per_second: int
    connections_per_address: int
    streams_per_user: int
    sockets_per_user: int
    minimum_isolation: str
    https: bool
    debug: bool
    log_level: str
    log_format: str
    workers: int
    keep_days: int
    keep_days_of: Mapping[JobType, int]


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

    hosts, origins = (_words(environ.get(name, "")) for name in ("MUSTER_HOSTS", "MUSTER_ORIGINS"))
    https, debug = yes("MUSTER_HTTPS"), yes("MUSTER_DEBUG")
    mistakes += _wide_doors(hosts, origins, https=https, debug=debug)
    internal_url = environ.get("MUSTER_INTERNAL_URL", "").rstrip("/")
    if internal_url and not re.fullmatch(r"http://[^/\s]+", internal_url):
        mistakes.append(
            f"MUSTER_INTERNAL_URL is {internal_url!r}; say http, host and port, "
            "as http://10.0.0.5:8000, without a path."
        )
    secret_key = environ.get("MUSTER_SECRET_KEY") or None
    if secret_key is not None and (why := weakness(secret_key)):
        mistakes.append(f"MUSTER_SECRET_KEY {why}.")
    for name in ("DATABASE_URL", "MUSTER_MIGRATE_URL"):
        if not re.match(r"postgres(ql)?://|$", environ.get(name, "")):
            mistakes.append(f"{name} is no address of a PostgreSQL, as postgres://user@host/name.")
    if environ.get("MUSTER_MIGRATE_URL") and not environ.get("DATABASE_URL"):
        mistakes.append(
            "MUSTER_MIGRATE_URL is set without DATABASE_URL: the database of our own has its roles."
        )
    keep_days = _days(environ, "MUSTER_KEEP_DAYS", 90, mistakes)

    read = Environment(
        var=Path(environ.get("MUSTER_VAR") or HOME / "var").absolute(),
        role=Role(choice("MUSTER_ROLE", Role.COMMAND, tuple(Role))),
        database_url=environ.get("DATABASE_URL") or None,
        migrate_url=environ.get("MUSTER_MIGRATE_URL") or None,
        secret_key=secret_key,
        secrets_key_file=_path(environ.get("MUSTER_SECRETS_KEY_FILE", "")),
        hosts=hosts,
        origins=origins,
        internal_url=internal_url,
        trusted_proxies=_networks(environ.get("MUSTER_TRUSTED_PROXIES", ""), mistakes),
        requests_per_second=whole("MUSTER_REQUESTS_PER_SECOND", 100, 0, 1_000_000),
        connections_per_address=whole("MUSTER_CONNECTIONS_PER_ADDRESS", 512, 0, 1_000_000),
        streams_per_user=whole("MUSTER_STREAMS_PER_USER", 32, 1, 10_000),
        sockets_per_user=whole("MUSTER_SOCKETS_PER_USER", 64, 1, 10_000),
        minimum_isolation=choice("MUSTER_MINIMUM_ISOLATION", ISOLATION[0], ISOLATION),
        https=https,
        debug=debug,
        log_level=choice("MUSTER_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
        log_format=choice("MUSTER_LOG_FORMAT", "text", ("text", "json")),
        workers=whole("MUSTER_WORKERS", min(8, max(2, os.cpu_count() or 2)), 1, MOST_WORKERS),
        keep_days=keep_days,
        keep_days_of={
            kind: _days(environ, name, keep_days, mistakes) for kind, name in KEEP_DAYS.items()
        },
    )
    if mistakes:
        raise Misconfigured(tuple(mistakes))
    return read


def weakness(key: str) -> str | None:
    """Why *key* signs nothing that could be relied on, as the end of a sentence, or None."""
    if len(key) < SHORTEST_KEY:
        return f"has {len(key)} characters; use {SHORTEST_KEY} or more{MAKE_ONE}"
    if len(set(key)) < FEWEST_CHARACTERS or REPEATED.search(key):
        return f"repeats a few characters; use a random one{MAKE_ONE}"
    if word := PLACEHOLDER.search(key):
        return f"says {word[0]!r}, as examples do; use a random one{MAKE_ONE}"
    return None


def _wide_doors(
    hosts: tuple[str, ...], origins: tuple[str, ...], *, https: bool, debug: bool
) -> Iterator[str]:
    """What lets in more than whoever set it can have meant."""
    for host in hosts:
        if host == "*":
            yield (
                "MUSTER_HOSTS is '*', so that a page could come by any name of its own: name the "
                "hosts, or a domain with all below it, as .example.org."
            )
        elif not re.fullmatch(r"\.?[\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:.]+\]", host):
            yield f"MUSTER_HOSTS has {host!r}; say a host name, without scheme, port and path."
    for origin in origins:
        if not re.fullmatch(r"https?://[^/\s*]+", origin):
            yield (
                f"MUSTER_ORIGINS has {origin!r}; an origin is a scheme and a host, "
                "as https://muster.example.org, without a path."
            )
        elif https and origin.startswith("http://"):
            yield f"MUSTER_ORIGINS has {origin!r}, but by MUSTER_HTTPS browsers come by https only."
    elsewhere = {*hosts, *filterfalse(_is_here, origins)} - set(LOOPBACK)
    if debug and elsewhere:
        yield (
            "MUSTER_DEBUG shows settings and code to whoever meets an error, and others come by "
            f"{', '.join(sorted(elsewhere))}: debug where nobody else can reach it."
        )


def _is_here(origin: str) -> bool:
    return re.sub(r":\d+$", "", origin.split("://", 1)[-1]) in LOOPBACK


def _days(environ: Mapping[str, str], name: str, default: int, mistakes: list[str]) -> int:
    value = environ.get(name) or str(default)
    if re.fullmatch("[0-9]{1,9}", value) and int(value) in (0, *range(FEWEST_DAYS, MOST_DAYS + 1)):
        return int(value)
    mistakes.append(
        f"{name} is {value[:40]!r}; say a whole number of days from {FEWEST_DAYS} to {MOST_DAYS}, "
        "or 0 to keep everything."
    )
    return default


def _networks(
    text: str, mistakes: list[str]
) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    found = []
    for word in _words(text):
        try:
            found.append(ipaddress.ip_network(word))
        except ValueError:
            mistakes.append(
                f"MUSTER_TRUSTED_PROXIES has {word!r}; an address is as 10.0.0.7, a network as "
                "10.0.0.0/24."
            )
    return tuple(found)


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
