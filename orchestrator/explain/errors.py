"""What can go wrong, as sentences.  The docstring of each error is its message.

The shape is that of ``nodes.errors``: ``{name}`` in a docstring is filled from the keyword
arguments of the constructor.
"""

from __future__ import annotations

from nodes.errors import MusterError


class OrchestratorError(MusterError):
    """Something went wrong in the orchestrator."""


class NotFound(OrchestratorError):
    """There is no {kind} {name!r}."""

    code, status = "not-found", 404
    hint = "List what there is, or check the spelling."


class Ambiguous(OrchestratorError):
    """{name!r} matches more than one {kind}."""

    code, status = "ambiguous", 409
    hint = "Give more characters of the id, or name the namespace."


class AlreadyThere(OrchestratorError):
    """There is a job {name} already."""

    code, status = "precondition-failed", 412
    hint = "Choose another name, or update the job that is there."


class SecretThere(AlreadyThere):
    """There is a secret {name} already."""

    hint = "Choose another name, or put it without the condition."


class NotNamedInFull(OrchestratorError):
    """{name!r} is only the beginning of the id of the {kind} {found}, which is not enough here."""

    code, status = "not-named-in-full", 409
    hint = "This cannot be taken back: give the name, {found}, or the whole id."


class Conflict(OrchestratorError):
    """{detail}."""

    code, status = "conflict", 409


class InvalidCursor(Conflict):
    """{cursor!r} is not a cursor of this feed."""

    code, status = "invalid-cursor", 400
    hint = "Take the cursor of the last answer as it is, or none to begin anew."


class NodeInUse(OrchestratorError):
    """{name} cannot be removed: it still holds {what}."""

    code, status = "node-in-use", 409
    hint = (
        "Stop these jobs, or drain the node (`muster node drain {name}`) and wait. If the machine"
        " is gone for good, try again when the node is lost, after 90 seconds of silence."
    )


class Refused(OrchestratorError):
    """{detail}."""

    code, status = "refused", 403


class Forbidden(OrchestratorError):
    """{name} may not {what}: {lacks}."""

    code, status = "forbidden", 403
    hint = "An admin for all namespaces gives roles, in /admin/."


class ForbiddenToToken(Forbidden):
    """{name} may not {what}: {lacks}."""

    hint = "Use a token of theirs with a higher scope, or one that is good there."


class InvalidSecret(OrchestratorError):
    """The secret {name} {what}."""

    code, status = "invalid-secret", 400
    hint = "{do}."


class NoSecretsKey(OrchestratorError):
    """Secrets can be neither kept nor used: {file}, which has the keys, cannot be used: {why}."""

    code, status = "no-secrets-key", 409
    hint = "On the server: {do}."


class SecretUnreadable(OrchestratorError):
    """The secret {name} cannot be read: it was sealed with a key that the server has no longer."""

    code, status = "secret-unreadable", 409
    hint = "Put it again, or bring back the key that it was sealed with."


class LeaseLost(OrchestratorError):
    """The evaluation of job {job} was leased to somebody else while this worker worked on it."""

    code, status = "lease-lost", 409
