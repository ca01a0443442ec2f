"""Where the server is, and with which token: flags, then the environment, then a file."""

from __future__ import annotations

import os
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .failures import Code, Failure

DEFAULT_SERVER = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Settings:
    server: str
    token: str | None


def resolve(
    server: str | None, token_file: Path | None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """The settings of this call; each from the first place that says something."""
    kept = _kept(config_file(environ))
    address = server or environ.get("MUSTER_SERVER") or kept.get("server") or DEFAULT_SERVER
    if not address.startswith(("http://", "https://")):
        raise Failure(
            f"{address!r} is not the address of a server.",
            code=Code.USAGE,
            hint="It begins with http:// or https://.",
        )
    return Settings(address.rstrip("/"), _token(token_file, environ, kept))


def keep(server: str, token: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Write *server* to the configuration, and *token* to a file that only its owner reads."""
    file = config_file(environ)
    file.parent.mkdir(parents=True, exist_ok=True)
    secret = file.with_name("token")
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        os.fchmod(descriptor, 0o600)
        opened.write(token + "\n")
    file.write_text(f"server = {_quoted(server)}\ntoken_file = {_quoted(str(secret))}\n")
    return file


def config_file(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config"
    return Path(home) / "muster" / "config.toml"


def _kept(file: Path) -> dict[str, str]:
    try:
        found = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Failure(f"{file} cannot be read: {error}", code=Code.USAGE) from None
    unknown = sorted(set(found) - {"server", "token_file"})
    if unknown or not all(isinstance(value, str) for value in found.values()):
        wrong = ", ".join(unknown) or "a value that is not text"
        raise Failure(
            f"{file} has {wrong}.", code=Code.USAGE, hint="It knows server and token_file."
        )
    return found


def _token(flag: Path | None, environ: Mapping[str, str], kept: Mapping[str, str]) -> str | None:
    if flag is not None:
        return _read(flag)
    if environ.get("MUSTER_TOKEN"):
        return _checked(environ["MUSTER_TOKEN"], "MUSTER_TOKEN")
    file = environ.get("MUSTER_TOKEN_FILE") or kept.get("token_file")
    return _read(Path(file).expanduser()) if file else None


def _read(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        text = file.read_text()[:1000]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise Failure(f"The token file {file} cannot be read: {why}.", code=Code.USAGE) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        print(f"muster: others can read the token in {file}: chmod 600 {file}", file=sys.stderr)
    return _checked(text, str(file))


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Failure(f"{where} holds no token.", code=Code.USAGE)
    return token


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
