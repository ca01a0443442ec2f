"""Every message of the conversation, as types.

The websocket subprotocol is ``muster.node.v1``: JSON text frames, one message each, tagged by
``type``; log chunks travel as binary frames (see ``codec``).  Frames are at most MAX_FRAME bytes.
Both ends decode into these types or refuse the frame.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from .resources import Resources

SUBPROTOCOL = "muster.node.v1"
VERSION = 1
#: How far tasks are walled off, as a node says in its attribute ``isolation``: each level has the
#: walls of those before it, as far as the machine has them.
ISOLATION = ("none", "user", "cgroup", "sandbox")
MAX_FRAME = 256 * 1024
#: Messages that may be sent and not yet acknowledged, in each direction.
WINDOW = 64
#: Reports or orders in one message, at most.
BATCH = 256
#: Bytes of each output stream that go with the final report.
TAIL = 8 * 1024

Count = Annotated[int, Meta(ge=0, le=2**53)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=4096)]


class Want(StrEnum):
    """What the orchestrator wants a node to do about one execution."""

    BID = "bid"  # say whether you would run it, and hold the resources if so
    RUN = "run"  # run it
    REJECT = "reject"  # your bid is not needed: let the resources go
    STOP = "stop"  # end it, or never begin it


class Close:
    """Close codes of the websocket; the reason is a sentence."""

    MALFORMED = 4400
    REFUSED = 4403
    NO_HELLO = 4408
    FENCED = 4409
    REMOVED = 4410
    TOO_LARGE = 4413
    OUT_OF_SEQUENCE = 4416
    UNSUPPORTED = 4426
    TOO_FAST = 4429
    SHUTTING_DOWN = 4503


# --- said by the node ------------------------------------------------------------------------


class Task(Struct, frozen=True, omit_defaults=True):
    """What to run: the driver's name and what that driver needs to know.

    ``run_as`` names a user of the node, who is a user of the task's own otherwise; ``network`` is
    ``none``, or empty for that of the node.
    """

    driver: Name
    command: tuple[str, ...]
    env: dict[str, str] = {}
    config: dict[str, str] = {}
    run_as: Annotated[str, Meta(max_length=64)] = ""
    network: Annotated[str, Meta(max_length=16)] = ""


class SecretValues(Struct, frozen=True):
    """What the variables hold that name a secret, as ``secret://NAME`` in the task's ``env``.

    Who prints it, or a message that has it, sees the variables and none of the values.
    """

    values: dict[str, str]

    def __repr__(self) -> str:
        return f"SecretValues(of {', '.join(self.values)})"


class Order(Struct, frozen=True, omit_defaults=True):
    """What the node must do about one execution.  *task* comes with BID and RUN.

    ``timeout`` is the longest the task may run, ``grace`` the time from TERM to KILL, in seconds.
    ``secrets`` come with RUN alone, and only until the node has taken it.
    """

    execution: Name
    want: Want
    rev: Count
    task: Task | None = None
    resources: Resources = Resources()
    timeout: float | None = None
    grace: float = 10.0
    reason: Text = ""
    secrets: SecretValues | None = None


class Happened(StrEnum):
    """What a node can say has happened to an execution; the names are lifecycle events."""

    BID = "bid"
    DECLINE = "decline"
    PREPARE = "prepare"
    START = "start"
    PUBLISH = "publish"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"


#: The task began, or may have, and its node cannot say how it ended: it was restarted, perhaps.
UNKNOWN_OUTCOME = "unknown-outcome"


class Report(Struct, frozen=True, omit_defaults=True):
    """One fact about one execution.

    ``ran`` is seconds on a monotonic clock.  ``stdout`` and ``stderr`` are the last TAIL bytes,
    ``?`` for each that is no text; the sizes are of the whole streams.  ``code`` is one of a small
    set of words (``exit-code``, ``signal``, ``timeout``, ``not-started``, `UNKNOWN_OUTCOME`,
    ``no-capacity``, ``no-driver``, ``degraded``, ``stopped``,
    ``out-of-memory``, ``out-of-disk``).
    """

    execution: Name
    happened: Happened
    exit_code: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | None = None
    code: Annotated[str, Meta(max_length=64)] = ""
    message: Text = ""
    hint: Text = ""
    retryable: bool = True
    ran: float | None = None
    stdout: Annotated[str, Meta(max_length=4 * TAIL)] = ""
    stderr: Annotated[str, Meta(max_length=4 * TAIL)] = ""
    stdout_size: Count = 0
    stderr_size: Count = 0


class Holding(StrEnum):
    """How far an execution has come on the node that holds it."""

    BID = "bid"
    PREPARING = "preparing"
    RUNNING = "running"
    ENDED = "ended"  # its final report is not acknowledged yet


class Held(Struct, frozen=True):
    execution: Name
    state: Holding


class Hello(Struct, frozen=True, tag="hello", omit_defaults=True):
    """The first message on every link: who I am, what I offer, what I hold.

    ``instance`` is new with every start of the agent, ``run`` counts its starts, ``ledger`` names
    the database of the state directory, ``boot`` the boot of the machine.  When ``partial``, more
    is held than ``holds`` names: what is not named may be held all the same.  ``fenced``: the last
    link was closed in favour of another one, and this agent is alive all the same.  ``degraded``
    says why the node takes no new work though it is there; it is empty when it does.
    """

    version: int
    instance: Name
    run: Count
    ledger: Name
    boot: Name
    resources: Resources
    attributes: Annotated[dict[str, str], Meta(max_length=256)]
    order_rev: Count = 0
    holds: tuple[Held, ...] = ()
    partial: bool = False
    agent_version: str = ""
    fenced: bool = False
    degraded: Text = ""


class Reports(Struct, frozen=True, tag="reports", omit_defaults=True):
    """Facts, and how far orders have been durably taken.  Consecutive ``seq`` within an epoch."""

    epoch: Count
    seq: Count
    order_rev: Count
    items: Annotated[tuple[Report, ...], Meta(max_length=BATCH)] = ()


class Heartbeat(Struct, frozen=True, tag="heartbeat", omit_defaults=True):
    """I am here.  ``digest`` covers the live executions held (see ``session.digest``).

    ``degraded`` is as in the hello; one is sent soon after that changes.
    """

    epoch: Count
    order_rev: Count
    digest: str
    running: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    load: float = 0.0
    degraded: Text = ""


class LogEnd(Struct, frozen=True, tag="log_end", omit_defaults=True):
    """No more will come for this watch: the stream has ended, or cannot be read."""

    epoch: Count
    watch: Name
    reason: Text = ""


class Goodbye(Struct, frozen=True, tag="goodbye", omit_defaults=True):
    """I leave on purpose; tasks go on and I will be back, unless *reason* says otherwise."""

    epoch: Count
    reason: Text = ""


# --- said by the orchestrator ----------------------------------------------------------------


class Welcome(Struct, frozen=True, tag="welcome"):
    """The session begins: a new epoch, and the full desired set as of ``order_rev``.

    Every execution that should exist on this node is in ``desired``; one that the node holds and
    must give up comes with STOP.  What is held and not named at all is kept and reported.
    When the set does not fit one frame, ``more`` is true and ``Desired`` frames follow.
    """

    epoch: Count
    node: Name
    order_rev: Count
    desired: tuple[Order, ...]
    heartbeat: float
    approved: bool
    more: bool = False


class Desired(Struct, frozen=True, tag="desired"):
    """(More of) the full desired set, as of ``order_rev``; the set is whole when not ``more``."""

    epoch: Count
    order_rev: Count
    items: tuple[Order, ...]
    more: bool = False


class Orders(Struct, frozen=True, tag="orders"):
    """Changes since order revision ``after``, up to and including ``order_rev``."""

    epoch: Count
    after: Count
    order_rev: Count
    items: tuple[Order, ...]


class Ack(Struct, frozen=True, tag="ack"):
    """The effects of every Reports up to ``seq`` of this epoch are committed."""

    epoch: Count
    seq: Count


class Pulse(Struct, frozen=True, tag="pulse", omit_defaults=True):
    """Answer to a heartbeat.  When ``resync``, the full desired set follows as Desired."""

    epoch: Count
    resync: bool = False


class Watch(Struct, frozen=True, tag="watch", omit_defaults=True):
    """Send the named stream (stdout or stderr) as log chunks, from byte ``offset``.

    A negative offset counts from the end.  At most ``credit`` bytes are sent until more is
    granted; repeating the message grants more.
    """

    epoch: Count
    watch: Name
    execution: Name
    stream: str
    offset: int = 0
    credit: Count = 1024 * 1024
    follow: bool = True


class Unwatch(Struct, frozen=True, tag="unwatch"):
    epoch: Count
    watch: Name


FromNode = Hello | Reports | Heartbeat | LogEnd | Goodbye
FromServer = Welcome | Desired | Orders | Ack | Pulse | Watch | Unwatch


class LogChunk(msgspec.Struct, frozen=True):
    """Bytes of one watched stream, starting at byte ``offset`` of it; a binary frame."""

    epoch: Count
    watch: str
    offset: Count
    data: bytes
