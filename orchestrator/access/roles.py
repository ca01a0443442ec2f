"""The verbs, the least role that each needs, and whether somebody has it.  Asks nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from orchestrator.explain.errors import Forbidden, ForbiddenToToken


class Role(IntEnum):
    """Each may do what those before it may."""

    NONE = -1
    VIEWER = 0
    SUBMITTER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Rule:
    """*least* is the role for what is one's own, *others* that for what is somebody else's.

    Without *in_namespace* it concerns the whole cluster.
    """

    what: str
    least: Role
    others: Role
    in_namespace: bool = True


def _any(what: str, role: Role, *, in_namespace: bool = True) -> Rule:
    return Rule(what, role, role, in_namespace)


#: Every verb that somebody may or may not do, at whatever door.
VERBS: Mapping[str, Rule] = {
    "see": _any("see jobs", Role.VIEWER),
    "submit": _any("submit jobs", Role.SUBMITTER),
    "replace": Rule("submit a new version of this job", Role.SUBMITTER, Role.OPERATOR),
    "stop": Rule("stop this job", Role.SUBMITTER, Role.OPERATOR),
    "rerun": Rule("run this job again", Role.SUBMITTER, Role.OPERATOR),
    "evaluate": _any("have this job evaluated", Role.OPERATOR),
    "secrets": _any("put and delete secrets", Role.OPERATOR),
    "nodes": _any("change nodes", Role.OPERATOR, in_namespace=False),
    "queue": _any("pause the queue", Role.OPERATOR, in_namespace=False),
    "placement": _any("set how jobs are placed", Role.OPERATOR, in_namespace=False),
    "join-tokens": _any("make join tokens", Role.ADMIN, in_namespace=False),
    "namespaces": _any("make or remove namespaces", Role.ADMIN, in_namespace=False),
    "roles": _any("give roles", Role.ADMIN),
    "tokens": _any("make API tokens for others", Role.ADMIN, in_namespace=False),
}


class Owned(Protocol):
    """A job, as far as rights go."""

    @property
    def namespace_id(self) -> str | None: ...
    @property
    def created_by_id(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Rights:
    """Somebody, with the roles that they have: *everywhere*, and beside it in some namespaces.

    A token takes away and gives nothing: no role is higher than its *scope*, and with *only* it
    is good in those namespaces alone.
    """

    user_id: int | None = None
    name: str = ""
    everywhere: Role = Role.NONE
    roles: tuple[tuple[str, Role], ...] = ()
    scope: Role = Role.ADMIN
    only: frozenset[str] = frozenset()

    @property
    def is_anybody(self) -> bool:
        """Whether there is a role at all: then nodes and the numbers of the cluster are seen."""
        return self.namespaces is None or bool(self.namespaces)

    @property
    def namespaces(self) -> frozenset[str] | None:
        """Those whose jobs may be seen; None for all."""
        if self.everywhere > Role.NONE:
            return self.only or None
        named = frozenset(name for name, _ in self.roles)
        return named & self.only if self.only else named

    @property
    def alike(self) -> tuple[object, ...]:
        """Equal for all who see the same and may do the same: who has no jobs of their own."""
        roles = {self.everywhere, *(role for _, role in self.roles)}
        owner = self.user_id if Role.SUBMITTER in roles else None
        return owner, self.everywhere, self.roles, self.scope, self.only

    def held(self, namespace: str | None) -> Role:
        """The user's own role in *namespace*, or, with None, in the whole cluster."""
        return max([self.everywhere, *(role for name, role in self.roles if name == namespace)])

    def role(self, namespace: str | None) -> Role:
        """What is left of it here, with this token."""
        if self.only and namespace not in self.only:
            return Role.NONE
        return min(self.held(namespace), self.scope)


def may(rights: Rights, verb: str, on: Owned | str | None = None) -> bool:
    """Whether somebody with *rights* may do *verb*: to a job, in a namespace, or to the cluster."""
    rule = VERBS[verb]
    return rights.role(_namespace(rule, on)) >= _needed(rights, rule, on)


def require(rights: Rights, verb: str, on: Owned | str | None = None) -> None:
    """Raise Forbidden, with what is lacking, unless `may`.  Ask it of what may be seen."""
    if not may(rights, verb, on):
        error = ForbiddenToToken if _is_held_back(rights, verb, on) else Forbidden
        what = VERBS[verb].what
        raise error(name=rights.name, what=what, lacks=lacks(rights, verb, on))


def lacks(rights: Rights, verb: str, on: Owned | str | None = None) -> str:
    """What somebody with *rights* lacks for *verb*: a role, or a token that is worth it."""
    rule = VERBS[verb]
    namespace = _namespace(rule, on)
    if _is_held_back(rights, verb, on):
        return f"the token is limited to {_limit(rights, namespace)}"
    place = "for all namespaces" if namespace is None else f"in the namespace {namespace}"
    return f"that takes the role {_needed(rights, rule, on).word} {place}"


def _is_held_back(rights: Rights, verb: str, on: Owned | str | None) -> bool:
    """Whether it is only the token that stands in the way."""
    rule = VERBS[verb]
    return rights.held(_namespace(rule, on)) >= _needed(rights, rule, on)


def require_any(rights: Rights) -> None:
    """Raise Forbidden for somebody who has no role at all."""
    if not rights.is_anybody:
        lacks = f"that takes a role, at least {Role.VIEWER.word}, in some namespace"
        raise Forbidden(name=rights.name, what="look at anything", lacks=lacks)


#: The role that each scope of a token leaves.
SCOPES = {
    "read": Role.VIEWER,
    "submit": Role.SUBMITTER,
    "operate": Role.OPERATOR,
    "admin": Role.ADMIN,
}


def _limit(rights: Rights, namespace: str | None) -> str:
    if rights.only and namespace not in rights.only:
        return f"the namespaces {', '.join(sorted(rights.only))}"
    return f"the scope {next((it for it, role in SCOPES.items() if role == rights.scope), 'none')}"


def _needed(rights: Rights, rule: Rule, on: Owned | str | None) -> Role:
    if on is None or isinstance(on, str):
        return rule.least
    is_own = on.created_by_id is not None and on.created_by_id == rights.user_id
    return rule.least if is_own else rule.others


def _namespace(rule: Rule, on: Owned | str | None) -> str | None:
    if not rule.in_namespace:
        return None
    return on if on is None or isinstance(on, str) else on.namespace_id
