"""The agent as a program: its command line, its start and its end."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import random
import shutil
import signal
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from ..protocol.resources import DIMENSIONS
from . import __version__, enrolment, machine, rotation, walls
from .drivers.process import ProcessDriver
from .drivers.spawner_link import NoSpawner, SpawnerStopped
from .enrolment import Identity
from .ledger import Ledger, LedgerUnusable, NoRoom
from .ledger import executions as ledger_executions
from .link import Link
from .options import parse
from .records import Machine
from .room import FULL, Room
from .runner import Runner

log = logging.getLogger("muster.agent")

#: Exit codes: 2 for what the operator must change, 3 when another agent has the directory, 4 for
#: what may be over when it is started again.
_WRONG, _IN_USE, _BROKEN = 2, 3, 4
_LONGEST_TOKEN = 1000
#: Seconds between attempts to open the ledger on a full disk.
_FULL = 2.0
#: The node was removed: starting again would not help.
REMOVED = 5


def main(arguments: list[str] | None = None) -> None:
    """Run the agent until it is told to end; the process's exit code says how it went."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=options.log_level.upper(),
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)-7s agent={options.name} %(message)s",
    )
    try:
        asyncio.run(_run(options))
    except KeyboardInterrupt:
        pass
    except Exception as error:
        if (why := _why(error, options.state_dir)) is None:
            raise
        log.error("%s", why.sentence)
        sys.exit(why.code)


@dataclass(frozen=True)
class _Why:
    """Why the agent ends: a sentence and an exit code."""

    sentence: str
    code: int


def _why(error: BaseException, state: Path) -> _Why | None:
    """What an operator has to know of *error*; None when it is a surprise."""
    match error:
        case enrolment.InUse():
            return _Why(str(error), _IN_USE)
        case enrolment.Removed():
            cure = "to let this machine join again, start the agent with a new join token and"
            return _Why(f"{error}; {cure} another --state-dir than {state}", REMOVED)
        case (
            enrolment.Refused()
            | enrolment.Damaged()
            | LedgerUnusable()
            | SpawnerStopped()
            | walls.Unavailable()
        ):
            return _Why(str(error), _WRONG)
        case NoSpawner():
            is_full = shutil.disk_usage(state).free < FULL
            return _Why(f"{error}; the disk is full" if is_full else str(error), _BROKEN)
        case NoRoom():
            return _Why(str(error), _BROKEN)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return _Why(f"there is no room left on the disk of {state}: {error}", _BROKEN)
        case OSError(filename=str() | bytes() | os.PathLike()) if _is_in(state, error.filename):
            cure = f"user {os.geteuid()}, who runs the agent, must be able to write files there"
            return _Why(
                f"the state directory {state} cannot be used: {error.strerror}: {error.filename}; "
                f"{cure}",
                _WRONG,
            )
    return None


def _is_in(state: Path, file: str | bytes | os.PathLike[str]) -> bool:
    """Whether *file* is the state directory, below it, or on the way to it."""
    path = Path(os.fsdecode(file))
    return path.is_relative_to(state) or state.is_relative_to(path)


async def _run(options: argparse.Namespace) -> None:
    ending = _on_signal()
    if is_in_the_clear(options.server):
        log.warning(
            "%s is not https: whoever is on the way reads and changes what is said, the node's "
            "credential and the secrets of jobs too",
            options.server,
        )
    with enrolment.claim(options.state_dir):
        # What cannot be used is told before a join token is spent.
        enrolment.recall(options.state_dir)
        room = Room(options.state_dir, options.logs)
        if (ledger := await _open_ledger(options.state_dir, room, ending)) is None:
            return
        built = walls.build(_wanted(options), options.state_dir, os.cpu_count() or 1)
        enrolling = asyncio.ensure_future(_identify(options))
        await asyncio.wait((enrolling, ending), return_when=asyncio.FIRST_COMPLETED)
        if not enrolling.done():
            enrolling.cancel()
            await asyncio.wait((enrolling,))
            ledger.close()
            return
        identity = enrolling.result()
        runner = Runner(
            _machine(options, ledger, built),
            ledger,
            lambda tell: {"process": ProcessDriver(options.state_dir, tell, built)},
            options.state_dir / "logs",
            room,
        )
        runner.on_failure = lambda error: _fail(error, options.state_dir)
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: _on_exception(loop, context, options.state_dir)
        )
        runner.start()
        log.log(built.severity, "%s", built.sentence())
        log.info("started as node %s, run %d, for %s", identity.node, ledger.run, options.server)
        link = Link(websocket_url(options.server), identity.credential, runner)
        keeping = asyncio.ensure_future(link.keep())
        rotating = asyncio.ensure_future(
            rotation.keep(options.server, options.state_dir, identity, link.use)
        )
        await asyncio.wait((keeping, ending), return_when=asyncio.FIRST_COMPLETED)
        rotating.cancel()
        if keeping.done():
            runner.close()
            keeping.result()
            return
        log.info("leaving; tasks go on")
        await link.leave("the agent was told to end")
        keeping.cancel()
        runner.close()
        await asyncio.wait((rotating,))


def is_in_the_clear(server: str) -> bool:
    """Whether what is said to *server* leaves this machine without encryption."""
    host = urlsplit(server).hostname or ""
    with suppress(ValueError):
        return server.startswith("http://") and not ip_address(host).is_loopback
    return server.startswith("http://") and host != "localhost"


async def _open_ledger(state: Path, room: Room, ending: asyncio.Future[None]) -> Ledger | None:
    """The ledger, as soon as there is room for it on the disk; None when told to end before."""
    path, said = state / "ledger.db", False
    while True:
        kept = ledger_executions(path)
        room.look(kept)
        room.tidy(kept)
        try:
            return Ledger(path, asyncio.get_running_loop().time())
        except NoRoom as error:
            if not said:
                log.warning("%s; trying on until there is", error)
            said = True
            room.give(kept)
        await asyncio.wait((ending,), timeout=_FULL)
        if ending.done():
            return None


def websocket_url(server: str) -> str:
    """Where the nodes' websocket of *server* is."""
    return "ws" + server.removeprefix("http") + "/ws/nodes/"


def _wanted(options: argparse.Namespace) -> walls.Wanted:
    return walls.Wanted(
        options.isolation,
        options.users,
        tuple(options.run_as),
        options.processes,
        options.scratch,
        tuple(options.share),
        tuple(options.hide),
    )


def _machine(options: argparse.Namespace, ledger: Ledger, built: walls.Walls) -> Machine:
    found = machine.detect(options.state_dir, ours=options.state_dir / "work")
    wanted = {it: getattr(options, it) for it in DIMENSIONS}
    given = {it: amount for it, amount in wanted.items() if amount is not None}
    offered = msgspec.structs.replace(found, **given)
    return Machine(
        instance=str(uuid.uuid4()),
        run=ledger.run,
        ledger=ledger.id,
        boot=machine.boot_id(),
        capacity=offered,
        attributes={**machine.attributes(offered), **built.attributes(), **options.labels},
        drivers=frozenset({"process"}),
        agent_version=__version__,
    )


async def _identify(options: argparse.Namespace) -> Identity:
    """Our identity: the one we have, or a new one for the join token."""
    if (identity := enrolment.recall(options.state_dir)) is not None:
        return identity
    failures, said = 0, ""
    while True:
        try:
            token, key = _join_token(options), enrolment.own_key(options.state_dir)
            asking = asyncio.ensure_future(
                asyncio.to_thread(enrolment.enrol, options.server, token, options.name, key)
            )
            identity = await _answer(asking, options)
        except enrolment.Unreachable as error:
            if str(error) != said:
                log.warning("cannot enrol yet: %s; trying on", error)
                said = str(error)
            await asyncio.sleep(random.uniform(0.1, min(15.0, 0.5 * 2**failures)))  # noqa: S311
            failures = min(failures + 1, 10)
        else:
            return identity


async def _answer(asking: asyncio.Future[Identity], options: argparse.Namespace) -> Identity:
    """The identity that was asked for, remembered: also when we are told to end meanwhile."""
    try:
        await asyncio.wait((asking,))
    except asyncio.CancelledError:
        log.info("told to end; an answer to the enrolment may still come, waiting for it")
        await asyncio.wait((asking,))
        if asking.exception() is None:
            _remember(options, asking.result())
        raise
    return _remember(options, asking.result())


def _remember(options: argparse.Namespace, identity: Identity) -> Identity:
    enrolment.remember(options.state_dir, identity)
    log.info("enrolled as node %s", identity.node)
    return identity


def _join_token(options: argparse.Namespace) -> str:
    if options.join_token_file is not None:
        try:
            with Path(options.join_token_file).open(
                "rb"
            ) as opened:  # Of a device there may be no end.
                token = opened.read(_LONGEST_TOKEN).decode().strip()
        except (OSError, ValueError) as error:
            file = options.join_token_file
            raise enrolment.Refused(f"the join token in {file} cannot be read: {error}") from None
        if not token.isprintable():
            raise enrolment.Refused(f"{options.join_token_file} holds no join token")
        return token
    if token := os.environ.get("MUSTER_AGENT_JOIN_TOKEN", "").strip():
        return token
    raise enrolment.Refused(
        "this state directory belongs to no node yet: give a join token with --join-token-file "
        "or MUSTER_AGENT_JOIN_TOKEN"
    )


def _on_signal() -> asyncio.Future[None]:
    """Done when the process is told to end."""
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ending.done():
            ending.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    return ending


def _on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object], state: Path) -> None:
    """A callback that failed has left something undone: a restart does it."""
    error = context.get("exception")
    if isinstance(error, Exception) and "handle" in context:
        _fail(error, state)
    loop.default_exception_handler(context)


def _fail(error: BaseException, state: Path) -> None:
    """Going on would promise what cannot be kept; a restart starts from what was saved."""
    if (why := _why(error, state)) is not None:
        log.critical("cannot go on: %s", why.sentence)
    else:
        log.critical("cannot go on: %r", error, exc_info=error)
    logging.shutdown()
    os._exit(_BROKEN if why is None else why.code)
