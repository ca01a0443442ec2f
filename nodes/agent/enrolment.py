"""Who this node is: a join token is traded, once, for a credential of the node's own."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    """What the orchestrator calls us, and the secret that proves it.  Never logged.

    ``issued`` is when we got the credential, by our clock; ``previous`` is the one before, which
    is good until this one has been used.
    """

    node: str
    credential: str
    issued: float = field(default=0.0, compare=False)
    previous: str = ""

    def __repr__(self) -> str:
        return f"Identity({self.node})"


class Refused(Exception):
    """The orchestrator does not take us in: {detail}."""


class Unreachable(Exception):
    """The orchestrator does not answer; it may later."""


class Removed(Exception):
    """Our node was removed: nothing that we could do here brings it back."""


class Damaged(Exception):
    """A file of the state directory is not as we wrote it: {detail}."""


class InUse(Exception):
    """Another agent uses this state directory."""


def claim(state: Path) -> IO[str]:
    """Make the state directory ours alone while the returned file is open.

    Raises InUse, and Damaged for one that another user could have written what is in it.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (state, state / "identity.json"):
        if path.exists():
            _refuse_foreign(path)
    state.chmod(0o700)
    lock = (state / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise InUse(f"another agent uses the state directory {state}") from None
    return lock


def _refuse_foreign(path: Path) -> None:
    """Raise Damaged when *path* is another user's, or a file that others may write."""
    found, ours = path.stat(), os.geteuid()
    if found.st_uid != ours:
        raise Damaged(
            f"{path} belongs to user {found.st_uid}, and the agent runs as user {ours}: run it as "
            f"that user, or give it the whole directory (`chown -R`) if you trust what is in it"
        )
    if path.is_file() and found.st_mode & 0o022:
        raise Damaged(
            f"{path} can be written by other users: if you trust what is in it, `chmod 600 {path}`"
        )


def recall(state: Path) -> Identity | None:
    """The identity of an earlier enrolment.  Raises Damaged."""
    file = state / "identity.json"
    try:
        said = json.loads(file.read_bytes())
        identity = Identity(**said)
        words = (identity.node, identity.credential, identity.previous or "none")
        if not all(isinstance(word, str) and word for word in words):
            raise ValueError("node and credential are not words")
        if not isinstance(identity.issued, int | float):
            raise ValueError("issued is not a time")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise Damaged(
            f"{file} is damaged ({error}): put a copy of it back; without one, have the node "
            f"removed (`muster node remove`), move {file.name} away and start with a new join token"
        ) from None
    return identity


def own_key(state: Path) -> str:
    """A secret of ours, made before we first ask: with it the question may be repeated."""
    file = state / "enrolment.key"
    if not file.exists() or not file.read_bytes():
        _write(file, secrets.token_urlsafe(32))
    return file.read_text()


def enrol(server: str, token: str, name: str, key: str = "") -> Identity:
    """Ask the orchestrator at *server* for an identity; raises Refused or Unreachable.

    Asked again with the same *key*, after an answer that was lost, it is the same node.
    """
    asked = {"token": token, "name": name, "key": key}
    return _post(
        server,
        "enrol",
        lambda it: Identity(str(it["node"]), str(it["credential"]), time.time()),
        asked,
    )


def new_credential(server: str, credential: str) -> str:
    """A credential to take over from *credential* at its first use; raises as ``enrol`` does."""
    return _post(server, "credentials", lambda it: str(it["credential"]), credential=credential)


def use_credential(server: str, credential: str) -> None:
    """Show *credential*: all others of our node end; raises as ``enrol`` does."""
    _post(server, "credentials/use", lambda it: str(it["node"]), credential=credential)


def _post(
    server: str,
    path: str,
    read: Callable[[dict[str, object]], T],
    asked: dict[str, str] | None = None,
    *,
    credential: str = "",
) -> T:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if credential:
        headers["Authorization"] = f"Node {credential}"
    request = urllib.request.Request(  # noqa: S310  The operator names the server.
        f"{server}/api/v1/nodes/{path}", data=json.dumps(asked or {}).encode(), headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310
            return read(json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            sentence = _sentence(error.read(), error.code)
        if error.code >= 500 or error.code == 429:
            raise Unreachable(sentence) from None
        raise Refused(sentence) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{server}: {getattr(error, 'reason', error)}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{server} does not speak like Muster: {error!r}") from None


def remember(state: Path, identity: Identity) -> None:
    """Keep *identity* for the next start, readable by nobody else."""
    _write(state / "identity.json", json.dumps(asdict(identity)))
    (state / "enrolment.key").unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """Write all of *text* or nothing, durably, for nobody else to read."""
    written = path.with_name(f"{path.name}.new")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    written.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # Else the name may be gone after a loss of power.
    finally:
        os.close(directory)


def _sentence(body: bytes, status: int) -> str:
    try:
        problem = json.loads(body)
        parts = [problem.get(part) for part in ("title", "detail", "hint")]
    except (ValueError, AttributeError):
        parts = []
    return ": ".join(str(part).rstrip(".:") for part in parts if part) or f"HTTP {status}"
