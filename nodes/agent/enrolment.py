"""Who this node is: a join token is traded, once, for a credential of the node's own."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import secrets
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Identity:
    """What the orchestrator calls us, and the secret that proves it.  Never logged."""

    node: str
    credential: str

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
    """Make the state directory ours alone while the returned file is open; raises InUse."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    lock = (state / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise InUse(f"another agent uses the state directory {state}") from None
    return lock


def recall(state: Path) -> Identity | None:
    """The identity of an earlier enrolment.  Raises Damaged."""
    file = state / "identity.json"
    try:
        said = json.loads(file.read_bytes())
        identity = Identity(**said)
        if not all(isinstance(word, str) and word for word in said.values()):
            raise ValueError("node and credential are not words")
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
    request = urllib.request.Request(  # noqa: S310  The operator names the server.
        f"{server}/api/v1/nodes/enrol",
        data=json.dumps(asked).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310
            granted = json.load(answer)
            return Identity(str(granted["node"]), str(granted["credential"]))
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
