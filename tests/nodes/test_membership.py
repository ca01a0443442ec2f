"""Joining, approval and credentials, on a real database with real concurrency."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connections

from nodes import membership
from nodes.errors import InvalidLabels, InvalidName, JoinRefused, NameTaken, Revoked, UnknownNode
from nodes.models import JoinToken, Node, NodeCredential, NodeSession

pytestmark = pytest.mark.django_db


def token(**changes):
    return membership.create_join_token(created_by=None, **{"uses": 5, **changes})


def test_a_node_joins_with_a_token_and_signs_in_with_a_credential_of_its_own():
    node, credential = membership.enrol(token(), "  Web-1.example\n", {"zone": "a"}, address="::1")
    assert (node.name, node.approval, node.labels) == ("web-1.example", "pending", {"zone": "a"})
    assert membership.authenticate(credential) == node
    assert not NodeCredential.objects.filter(digest__contains=credential).exists()


def test_the_labels_of_a_token_win_over_what_the_node_says_of_itself():
    node, _ = membership.enrol(token(labels={"pool": "dev"}), "n", {"pool": "prod", "x": "1"})
    assert node.labels == {"pool": "dev", "x": "1"}


def test_a_token_may_approve_what_joins_with_it():
    node, _ = membership.enrol(token(auto_approve=True), "n")
    assert node.approval == "approved"


def test_a_token_with_a_line_break_around_it_is_good():
    assert membership.enrol(f" {token()}\n", "n")


def test_unknown_expired_used_up_and_revoked_tokens_get_one_answer():
    used, revoked = token(uses=1), token()
    membership.enrol(used, "first")
    membership.revoke_join_token(JoinToken.objects.get(uses_left=5).pk)
    expired = token(expires_in=timedelta(seconds=-1))
    for bad in (used, revoked, expired, "jt_unknown", "", "\0", "ü" * 5000, used[:-1]):
        with pytest.raises(JoinRefused, match="not valid"):
            membership.enrol(bad, "second")
    assert [node.name for node in Node.objects.all()] == ["first"]


@pytest.mark.parametrize("name", ["", "-a", "a-", "a" * 64, "<b>", "a_b", "a b", "ä", "a\0b", "."])
def test_a_name_that_no_node_can_have_uses_nothing_up(name):
    with pytest.raises(InvalidName) as refused:
        membership.enrol(token(), name)
    assert "small letters" in refused.value.hint
    assert JoinToken.objects.get().uses_left == 5


def test_a_name_that_is_taken_is_refused_and_uses_nothing_up():
    first, _ = membership.enrol(token(), "n")
    with pytest.raises(NameTaken, match="'n'"):
        membership.enrol(token(), "N")
    assert Node.objects.get() == first
    assert sorted(JoinToken.objects.values_list("uses_left", flat=True)) == [4, 5]


@pytest.mark.parametrize(
    "labels",
    [{"": "x"}, {"a b": "x"}, {"a": "x" * 1025}, {"a": "\0"}, {f"k{i}": "" for i in range(257)}],
)
def test_labels_that_cannot_be_stored_are_refused(labels):
    with pytest.raises(InvalidLabels):
        membership.enrol(token(), "n", labels)


@pytest.mark.django_db(transaction=True)
def test_of_fifty_that_join_at_once_with_one_use_exactly_one_does():
    once = token(uses=1)

    def join(number):
        try:
            return membership.enrol(once, f"n{number}")
        except JoinRefused:
            return None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(50) as threads:
        joined = [it for it in threads.map(join, range(50)) if it]
    assert len(joined) == 1
    assert Node.objects.get() == joined[0][0]


def test_a_rotated_credential_ends_the_old_one_when_it_is_first_used():
    node, old = membership.enrol(token(), "n")
    new = membership.rotate(old)
    assert membership.authenticate(old) == node, "the answer with the new one may be lost"
    assert membership.authenticate(new) == node
    assert membership.authenticate(old) is None
    with pytest.raises(Revoked):
        membership.rotate(old)


def test_a_revoked_credential_is_good_for_nothing_and_fences_the_session():
    node, credential = membership.enrol(token(), "n")
    assert membership.revoke(node.pk) == 1
    assert membership.authenticate(credential) is None
    assert NodeSession.objects.get().epoch == 1


@pytest.mark.parametrize("credential", ["", "nt_", "nt_x\0", "jt_something", "ü" * 10_000])
def test_what_is_no_credential_signs_nobody_in(credential):
    assert membership.authenticate(credential) is None


def test_a_join_token_signs_nobody_in():
    assert membership.authenticate(token()) is None


def test_approval_is_given_taken_away_and_given_again():
    node, credential = membership.enrol(token(), "n")
    assert membership.approve(node.pk, actor="ada").approval == "approved"
    assert membership.approve(node.pk, actor="ada").approval == "approved"
    assert membership.reject(node.pk, actor="ada").approval == "rejected"
    assert membership.authenticate(credential) is None
    assert membership.approve(node.pk, actor="ada").approval == "approved"
    assert membership.authenticate(credential) == node


def test_what_operators_say_twice_changes_the_node_once():
    node, _ = membership.enrol(token(), "n")
    once = membership.set_draining(node.pk, True, actor="ada")
    assert (once.draining, once.rev) == (True, node.rev + 1)
    assert membership.set_draining(node.pk, True, actor="ada").rev == once.rev
    assert not membership.set_eligible(node.pk, False, actor="ada").eligible


def test_an_unknown_node_is_named_in_the_answer():
    unknown = uuid4()
    with pytest.raises(UnknownNode, match=str(unknown)):
        membership.approve(unknown, actor="ada")
