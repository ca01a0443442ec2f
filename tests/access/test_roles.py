"""The table of verbs: for every role, of one's own and of others, here and in another namespace."""

import itertools
from dataclasses import dataclass

import pytest

from orchestrator.access import VERBS, Rights, Role, may, require
from orchestrator.explain.errors import Forbidden

ME, SOMEBODY = 1, 2


@dataclass(frozen=True)
class Job:
    namespace_id: str = "here"
    created_by_id: int | None = ME


def rights(role, *, everywhere=False, **token):
    if everywhere:
        return Rights(ME, "me", everywhere=role, **token)
    return Rights(ME, "me", roles=(("here", role),), **token)


@pytest.mark.parametrize(("verb", "role"), [*itertools.product(VERBS, Role)])
def test_a_role_may_what_it_is_worth_and_only_where_it_holds(verb, role):
    rule, here = VERBS[verb], rights(role)
    if rule.in_namespace:
        assert may(here, verb, Job()) == (role >= rule.least)
        assert may(here, verb, Job(created_by_id=SOMEBODY)) == (role >= rule.others)
        assert may(here, verb, Job(created_by_id=None)) == (role >= rule.others)
        assert not may(here, verb, Job(namespace_id="there"))
    else:
        assert not may(here, verb)
    for on in (None, "there", Job("there")) if rule.in_namespace else (None,):
        assert may(rights(role, everywhere=True), verb, on) == (role >= rule.least)


@pytest.mark.parametrize(("verb", "scope"), [*itertools.product(VERBS, Role)])
def test_a_token_is_worth_no_more_than_its_scope_and_holds_in_no_other_namespace(verb, scope):
    on = Job(created_by_id=SOMEBODY) if VERBS[verb].in_namespace else None
    admin = rights(Role.ADMIN, everywhere=True, scope=scope)
    assert may(admin, verb, on) == (scope >= VERBS[verb].others)
    limited = rights(Role.ADMIN, everywhere=True, only=frozenset({"there"}))
    assert not may(limited, verb, on)
    assert may(limited, verb, Job("there")) == VERBS[verb].in_namespace


def test_a_token_gives_nothing_that_its_user_has_not():
    submitter = rights(Role.SUBMITTER, scope=Role.ADMIN, only=frozenset({"here", "there"}))
    assert submitter.namespaces == {"here"}
    assert not may(submitter, "stop", Job(created_by_id=SOMEBODY))


def test_who_has_no_role_is_nobody_and_who_has_one_anywhere_is_somebody():
    assert not Rights(ME, "me").is_anybody
    assert not rights(Role.ADMIN, only=frozenset({"there"})).is_anybody
    assert rights(Role.VIEWER).is_anybody
    assert rights(Role.VIEWER, everywhere=True).namespaces is None


def test_a_refusal_names_the_role_that_is_needed_or_what_limits_the_token():
    with pytest.raises(Forbidden) as refused:
        require(rights(Role.VIEWER), "stop", Job(created_by_id=SOMEBODY))
    assert str(refused.value) == (
        "me may not stop this job: that takes the role operator in the namespace here."
    )
    with pytest.raises(Forbidden) as refused:
        require(rights(Role.ADMIN, scope=Role.SUBMITTER), "stop", Job(created_by_id=SOMEBODY))
    assert str(refused.value) == (
        "me may not stop this job: the token is limited to the scope submit."
    )
