"""Where the server is, and with which token: flags, then the environment, then two files."""

from __future__ import annotations

import os
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from .failures import Code, Failure

DEFAULT_SERVER = "http://127.0.0.1:8000"
LONGEST_TOKEN = 1000
NAMES = ("MUSTER_SERVER", "MUSTER_TOKEN", "MUSTER_TOKEN_FILE", "MUSTER_NAMESPACE")
"""What the environment may say."""
TREE = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Settings:
    """A server and a token, and who named them: a flag, a variable, a file, or nobody."""

    server: str
    token: str | None
    server_from: str = ""
    token_from: str = ""
    other: str = ""
    """Another server, for which there is a token that this one does not get."""
    namespace: str = ""
    """Where names are looked up; nothing where nobody has named one."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a file says.  Its token is for its server alone."""

    file: Path
    server: str = ""
    token_file: str = ""
    namespace: str = ""


def resolve(
    server: str | None,
    token_file: Path | None,
    environ: Mapping[str, str] = os.environ,
    namespace: str | None = None,
) -> Settings:
    """The settings of this call; each from the first place that says something."""
    _check_names(environ)
    kept = [_kept(file) for file in (config_file(environ), local_file(environ))]
    places = (
        (server, "--server"),
        (environ.get("MUSTER_SERVER"), "MUSTER_SERVER"),
        *((one.server, str(one.file)) for one in kept),
    )
    said = ((text, place) for text, place in places if text)
    address, server_from = next(said, (DEFAULT_SERVER, ""))
    _check_address(address)
    address = address.rstrip("/")
    token, token_from = _token(token_file, environ)
    mine = [one for one in kept if one.token_file and (one.server or address) == address]
    if token is None and mine:
        token, token_from = _read(Path(mine[0].token_file).expanduser()), mine[0].token_file
    others = [one.server for one in kept if one.token_file and one not in mine]
    theirs = (one.namespace for one in kept if (one.server or address) == address)
    named = (namespace, environ.get("MUSTER_NAMESPACE"), *theirs)
    chosen = next(filter(None, named), "")
    return Settings(address, token, server_from, token_from, next(iter(others), ""), chosen)


def _check_names(environ: Mapping[str, str]) -> None:
    """Raise Failure for a misspelt name: what it says would be left out in silence."""
    for name in sorted(it for it in environ if it.startswith("MUSTER_") and it not in NAMES):
        if nearest := get_close_matches(name, NAMES, n=1, cutoff=0.87):
            raise Failure(f"{name} means nothing. Did you mean {nearest[0]}?", code=Code.USAGE)


def _check_address(text: str) -> None:
    """Raise Failure for what is not the address of a server."""
    shown, hint = repr(text), "It begins with http:// or https://, as http://127.0.0.1:8000."
    try:
        address = urlsplit(text)
        is_one = address.scheme in {"http", "https"} and address.hostname and address.port != 0
    except ValueError:
        is_one = None
    if not text.isprintable() or " " in text:
        is_one = None
    if "@" in text:
        is_one, shown = None, "What names a user, and perhaps a password,"
        hint = "Leave out what stands before @: a token says who asks."
    elif is_one and (address.query or address.fragment or "/api/" in f"{address.path}/"):
        is_one, hint = None, f"Write {address.scheme}://{address.netloc}: the rest is found there."
    if not is_one:
        raise Failure(f"{shown} is not the address of a server.", code=Code.USAGE, hint=hint)


def keep(server: str, token: str, file: Path, namespace: str = "") -> None:
    """Write *server* and *namespace* to *file*, and *token* beside it, for its owner alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    secret = file.with_name("token")
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        os.fchmod(descriptor, 0o600)
        opened.write(token + "\n")
    said = {"server": server, "token_file": str(secret), "namespace": namespace}
    file.write_text("".join(f"{it} = {_quoted(text)}\n" for it, text in said.items() if text))


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `muster login` keeps what it was told."""
    home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config"
    return Path(home) / "muster" / "config.toml"


def local_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `make up` in this tree leaves its address and a token."""
    return Path(environ.get("MUSTER_VAR") or TREE / "var").absolute() / "cli" / "config.toml"


def _kept(file: Path) -> _Kept:
    try:
        found = tomllib.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return _Kept(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Failure(f"{file} cannot be read: {error}", code=Code.USAGE) from None
    unknown = sorted(set(found) - {"server", "token_file", "namespace"})
    if unknown or not all(isinstance(value, str) for value in found.values()):
        wrong = ", ".join(unknown) or "a value that is not text"
        raise Failure(
            f"{file} has {wrong}.",
            code=Code.USAGE,
            hint="It knows server, token_file and namespace.",
        )
    server = found.get("server", "").rstrip("/")
    return _Kept(file, server, found.get("token_file", ""), found.get("namespace", ""))


def _token(flag: Path | None, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """The token that this call is given, and by what."""
    if flag is not None:
        return _read(flag), "--token-file"
    if environ.get("MUSTER_TOKEN"):
        return _checked(environ["MUSTER_TOKEN"], "MUSTER_TOKEN"), "MUSTER_TOKEN"
    if file := environ.get("MUSTER_TOKEN_FILE"):
        return _read(Path(file).expanduser()), "MUSTER_TOKEN_FILE"
    return None, ""


def _read(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        with file.open("rb") as opened:  # Of a device there may be no end.
            text = opened.read(LONGEST_TOKEN + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise Failure(f"The token file {file} cannot be read: {why}.", code=Code.USAGE) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        print(f"muster: others can read the token in {file}: chmod 600 {file}", file=sys.stderr)
    return _checked(text, str(file))


def _checked(text: str, where: str) -> str:
    token = text.strip()
    plain = token.isascii() and token.isprintable() and " " not in token
    if not token or not plain or len(token) > LONGEST_TOKEN:
        raise Failure(f"{where} holds no token.", code=Code.USAGE)
    return token


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
