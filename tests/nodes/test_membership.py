"""Joining, approval and credentials, on a real database with real concurrency."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connections
from django.db.models.functions import Now

from nodes import membership
from nodes.errors import (
    InvalidLabels,
    InvalidName,
    JoinRefused,
    NameTaken,
    Quarantined,
    Rejected,
    Removed,
    ReservedLabel,
    Revoked,
    TooManyCredentials,
    UnknownNode,
)
from nodes.membership.joining import Clock
from nodes.models import JoinToken, Node, NodeCredential, NodeSession

pytestmark = pytest.mark.django_db


def token(**changes):
    return membership.create_join_token(created_by=None, **{"uses": 5, **changes})


def test_a_node_joins_with_a_token_and_signs_in_with_a_credential_of_its_own():
    node, credential = membership.enrol(token(), "  Web-1.example\n", {"zone": "a"}, address="::1")
    assert (node.name, node.approval, node.labels) == ("web-1.example", "pending", {})
    assert node.attributes == {"node.zone": "a"}
    assert membership.authenticate(credential) == node
    assert not NodeCredential.objects.filter(digest__contains=credential).exists()


def test_the_labels_of_a_node_are_those_of_its_token_whatever_it_says_of_itself():
    node, _ = membership.enrol(token(labels={"pool": "dev"}), "n", {"pool": "prod", "x": "1"})
    assert node.labels == {"pool": "dev"}
    assert node.attributes == {"node.pool": "prod", "node.x": "1"}


def test_an_operator_gives_a_node_labels_and_takes_them_away():
    node, _ = membership.enrol(token(labels={"pool": "dev", "zone": "a"}), "n")
    membership.set_labels(node.pk, {"pool": "prod", "zone": None}, actor="ada")
    membership.approve(node.pk, actor="ada", labels={"rack": "7"})
    node.refresh_from_db()
    assert (node.labels, node.approval) == ({"pool": "prod", "rack": "7"}, "approved")


@pytest.mark.parametrize("key", ["name", "node.arch", "node."])
def test_nobody_gives_a_label_that_is_the_registered_name_or_the_nodes_own_word(key):
    node, _ = membership.enrol(token(), "n")
    for give in (
        lambda: token(labels={key: "x"}),
        lambda: membership.set_labels(node.pk, {key: "x"}, actor="ada"),
        lambda: membership.approve(node.pk, actor="ada", labels={key: "x"}),
    ):
        with pytest.raises((ReservedLabel, InvalidLabels)):
            give()
    node.refresh_from_db()
    assert (node.labels, node.approval) == ({}, "pending")


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


def test_who_asks_again_with_the_same_token_and_key_is_the_same_node():
    once = token(uses=1)
    node, lost = membership.enrol(once, "n", key="mine")
    again, credential = membership.enrol(once, "N ", key="mine")
    assert again == node
    assert JoinToken.objects.get().uses_left == 0
    assert membership.authenticate(credential) == node
    assert membership.authenticate(lost) is None, "its answer reached nobody"


def test_of_answers_under_way_any_may_be_the_one_that_arrives():
    several = token(uses=2)
    node, first = membership.enrol(several, "n", key="mine")
    _, second = membership.enrol(several, "n", key="mine")
    assert membership.authenticate(first) == node
    assert membership.authenticate(second) is None
    assert JoinToken.objects.get().uses_left == 1


def test_answers_that_reached_nobody_do_not_pile_up():
    several = token()
    node, lost = membership.enrol(several, "n", key="mine")
    NodeCredential.objects.update(created_at=Now() - timedelta(minutes=2))
    _, credential = membership.enrol(several, "n", key="mine")
    assert membership.authenticate(lost) is None
    assert membership.authenticate(credential) == node
    assert NodeCredential.objects.count() == 1


def test_a_repeat_is_good_for_a_while_after_the_token_has_ended_but_not_when_it_is_revoked():
    several = token()
    node, _ = membership.enrol(several, "n", key="mine")
    JoinToken.objects.update(expires_at=Now() - timedelta(hours=1))
    assert membership.enrol(several, "n", key="mine")[0] == node
    JoinToken.objects.update(expires_at=Now() - timedelta(hours=25))
    with pytest.raises(JoinRefused):
        membership.enrol(several, "n", key="mine")
    JoinToken.objects.update(expires_at=Now() + timedelta(hours=1), revoked_at=Now())
    with pytest.raises(JoinRefused):
        membership.enrol(several, "n", key="mine")


@pytest.mark.parametrize("key", ["", "another"])
def test_a_name_is_taken_for_who_has_another_key_with_the_cure_that_helps(key):
    several = token()
    node, credential = membership.enrol(several, "n", key="mine" if key else "")
    with pytest.raises(NameTaken) as refused:
        membership.enrol(several, "n", key=key)
    assert "`muster node remove n`" in refused.value.hint
    assert membership.authenticate(credential) == node
    assert JoinToken.objects.get().uses_left == 4


def test_a_late_repeat_harms_no_node_that_has_its_credential():
    several = token()
    node, credential = membership.enrol(several, "n", key="mine")
    assert membership.authenticate(credential) == node
    with pytest.raises(NameTaken):
        membership.enrol(several, "n", key="mine")
    assert membership.authenticate(credential) == node


@pytest.mark.django_db(transaction=True)
def test_an_enrolment_that_is_asked_many_times_at_once_makes_one_node():
    once = token(uses=1)

    def join(_):
        try:
            return membership.enrol(once, "n", key="mine")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(join, range(8)))
    node = Node.objects.get()
    assert {found for found, _ in answers} == {node}
    assert membership.authenticate(answers[3][1]) == node


@pytest.mark.parametrize(
    "labels",
    [{"": "x"}, {"a b": "x"}, {"a": "x" * 257}, {"a": "\0"}, {f"k{i}": "" for i in range(257)}],
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


def test_a_credential_that_has_not_taken_over_within_a_day_never_does():
    node, old = membership.enrol(token(), "n")
    new = membership.rotate(old)
    unused = NodeCredential.objects.filter(last_used_at__isnull=True)
    unused.update(created_at=Clock() - timedelta(days=1, minutes=1))
    assert membership.authenticate(new) is None
    assert membership.authenticate(old) == node


def test_a_node_that_was_away_for_a_day_after_it_joined_signs_in():
    node, credential = membership.enrol(token(), "n")
    NodeCredential.objects.update(created_at=Clock() - timedelta(days=2))
    assert membership.authenticate(credential) == node


def test_a_node_has_no_more_than_a_few_credentials_however_often_it_asks():
    _, credential = membership.enrol(token(), "n")
    for _ in range(5):
        membership.rotate(credential)
    with pytest.raises(TooManyCredentials):
        membership.rotate(credential)


@pytest.mark.parametrize("arrives", [0, 1])
def test_of_two_rotations_either_answer_may_be_the_one_that_arrives(arrives):
    node, old = membership.enrol(token(), "n")
    answers = [membership.rotate(old), membership.rotate(old)]
    assert membership.authenticate(answers[arrives]) == node
    assert membership.authenticate(answers[1 - arrives]) is None
    assert membership.authenticate(answers[arrives]) == node


def test_a_revoked_credential_is_good_for_nothing_and_fences_the_session():
    node, credential = membership.enrol(token(), "n")
    assert membership.revoke(node.pk) == 1
    assert membership.authenticate(credential) is None
    assert NodeSession.objects.get().epoch == 1


def test_a_removed_node_frees_its_name_and_its_credential_is_told_so():
    several = token()
    node, credential = membership.enrol(several, "n", key="mine")
    removed = membership.remove(node.pk, actor="ada")
    assert removed.removed_at is not None
    assert (Node.objects.count(), Node.every.get()) == (0, node)
    for ask in (membership.authenticate, membership.rotate):
        with pytest.raises(Removed, match="n was removed"):
            ask(credential)
    with pytest.raises(UnknownNode):
        membership.approve(node.pk, actor="ada")
    successor, its_own = membership.enrol(several, "n", key="mine")
    assert successor != node
    assert membership.authenticate(its_own) == successor


def test_a_quarantined_node_is_released_not_approved():
    node, _ = membership.enrol(token(), "n")
    Node.objects.update(quarantined="two agents")
    with pytest.raises(Quarantined) as refused:
        membership.approve(node.pk, actor="ada")
    assert "`muster node release n`" in refused.value.hint
    released = membership.release(node.pk, actor="ada")
    assert (released.quarantined, released.approval) == ("", "pending")


def test_releasing_a_node_that_is_not_quarantined_leaves_its_session_alone():
    node, _ = membership.enrol(token(), "n")
    NodeSession.objects.update(ledger="l1", instance="i1", run=3)
    membership.release(node.pk, actor="ada")
    assert NodeSession.objects.values_list("ledger", "instance", "run").get() == ("l1", "i1", 3)


@pytest.mark.parametrize("credential", ["", "nt_", "nt_x\0", "jt_something", "ü" * 10_000])
def test_what_is_no_credential_signs_nobody_in(credential):
    assert membership.authenticate(credential) is None


def test_a_join_token_signs_nobody_in():
    assert membership.authenticate(token()) is None


def test_approval_is_given_and_taken_away_for_good():
    node, credential = membership.enrol(token(), "n")
    assert membership.approve(node.pk, actor="ada").approval == "approved"
    assert membership.approve(node.pk, actor="ada").approval == "approved"
    assert membership.reject(node.pk, actor="ada").approval == "rejected"
    assert membership.authenticate(credential) is None
    with pytest.raises(Rejected, match="its credentials ended") as refused:
        membership.approve(node.pk, actor="ada")
    assert "`muster node remove n`" in refused.value.hint


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
