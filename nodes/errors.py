"""What can be refused to a node or about one, as sentences.  Each error's docstring is its message.

The orchestrator's errors are of the same kind, so that an edge answers both alike.
"""

from __future__ import annotations

from typing import Any


class MusterError(Exception):
    """Something went wrong.

    ``code`` is for programs, ``status`` for HTTP, ``hint`` the cure.  ``{name}`` in the first
    paragraph of a docstring, and in a hint, is filled from the keyword arguments.
    """

    code = "internal"
    status = 500
    hint = ""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        self.hint = self.hint.format(**facts)
        super().__init__((type(self).__doc__ or "").split("\n\n")[0].format(**facts))


class NodesError(MusterError):
    """Something went wrong with the nodes."""


class UnknownNode(NodesError):
    """There is no node {node}."""

    code, status = "not-found", 404
    hint = "List the nodes there are, or check the spelling."


class JoinRefused(NodesError):
    """This join token is not valid.

    One answer for unknown, used up, expired and revoked: whoever guesses learns nothing.
    """

    code, status = "join-refused", 401
    hint = "Ask an operator for a new join token: `muster node token`."


class InvalidName(NodesError):
    """{name!r} cannot be the name of a node."""

    code, status = "invalid-name", 400
    hint = (
        "Use 1 to 63 characters: small letters, digits, dots and dashes, a letter or digit at"
        " both ends."
    )


class NameTaken(NodesError):
    """There is a node named {name!r} already."""

    code, status = "name-taken", 409
    hint = (
        "Give this node another name (`--name`); if it is the same machine, start the agent on the"
        " state directory it had; if that is gone, have an operator remove the old node:"
        " `muster node remove {name}`."
    )


class InvalidLabels(NodesError):
    """The label {label!r} cannot be used: {why}."""

    code, status = "invalid-labels", 400
    hint = (
        "A key has 1 to 128 letters, digits, dots, dashes, slashes and underscores; a value at"
        " most 256 printable characters; at most 256 of them."
    )


class ReservedLabel(NodesError):
    """The label {label!r} cannot be given to a node.

    Its name is registered, and what begins with ``node.`` is what it says of itself.
    """

    code, status = "reserved-label", 400
    hint = (
        "Choose another key: `name` is the node's registered name, and `node.…` is what its agent"
        " says of itself (`--label` there)."
    )


class InvalidOffer(NodesError):
    """The node offers {amount} of {dimension}, which is less than nothing."""

    code, status = "invalid-offer", 400
    hint = "Correct what the agent is configured to offer."


class Quarantined(NodesError):
    """The node {name} is quarantined: {why}."""

    code, status = "quarantined", 409
    hint = "Stop one of the two agents, then release the node: `muster node release {name}`."


class Rejected(NodesError):
    """The node {name} was rejected, and its credentials ended with that."""

    code, status = "rejected", 409
    hint = (
        "Remove it (`muster node remove {name}`), and let the machine join again with a new join"
        " token and an empty state directory."
    )


class TooLittleIsolation(NodesError):
    """The isolation of its tasks is {level}: this cluster takes nodes from {minimum} up."""

    code, status = "too-little-isolation", 403
    hint = "Start the agent where it can do more, or lower MUSTER_MINIMUM_ISOLATION on the server."


class TooManyCredentials(NodesError):
    """The node asks for credentials faster than it uses them."""

    code, status = "too-many-credentials", 429
    hint = "Use one of those that it got, or wait a minute."


class Removed(NodesError):
    """The node {name} was removed by an operator."""

    code, status = "removed", 410
    hint = (
        "To let the machine join again, give the agent an empty state directory and a join token."
    )


class Superseded(NodesError):
    """An agent with a newer state directory holds this node's session."""

    code, status = "superseded", 409
    hint = "This is an older copy of the agent's state: stop it, or enrol it as a node of its own."


class Fenced(NodesError):
    """A newer session of this node exists."""

    code, status = "fenced", 409
    hint = "Nothing to do: the newer session speaks for the node."


class Revoked(NodesError):
    """The credential was revoked, or the node was rejected."""

    code, status = "revoked", 403
    hint = "Have an operator remove the node, and let the machine join again with a new join token."
