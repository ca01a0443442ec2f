"""A credential is replaced, and whoever dies in between still has one that is good."""

from contextlib import suppress
from dataclasses import replace

import pytest

from nodes import membership
from nodes.agent import enrolment, rotation
from nodes.agent.enrolment import Identity, Refused
from nodes.membership.joining import _UNUSED_FOR, Clock
from nodes.models import NodeCredential
from tests.api.conftest import Api
from tests.nodes.links import joined

pytestmark = pytest.mark.django_db
DAY = 86400.0


class Killed(BaseException):
    """kill -9, here."""


def use(credential):
    if membership.authenticate(credential) is None:
        raise Refused("an unknown or revoked credential")


@pytest.fixture
def identity(tmp_path):
    node, credential = joined()
    use(credential)
    it = Identity(str(node.pk), credential)
    enrolment.remember(tmp_path, it)
    return it


def killed_at(step):
    """What the orchestrator is asked, and the kill before or after one of both steps."""

    def dying(call, name):
        def called(credential):
            if step == f"before {name}":
                raise Killed
            answer = call(credential)
            if step == f"after {name}":
                raise Killed
            return answer

        return called

    return {"ask": dying(membership.rotate, "ask"), "use": dying(use, "use"), "now": 1.0}


STEPS = ["before ask", "after ask", "before use", "after use"]


@pytest.mark.parametrize("first", STEPS)
@pytest.mark.parametrize("then", [*STEPS, "never"])
def test_an_agent_killed_anywhere_begins_again_with_a_credential_that_is_good(
    identity, tmp_path, first, then
):
    for step in (first, then):
        recalled = enrolment.recall(tmp_path)
        with suppress(Killed):
            rotation.rotate(tmp_path, recalled, **killed_at(step))
    recalled = enrolment.recall(tmp_path)
    done = rotation.rotate(tmp_path, recalled, **killed_at("never"))
    assert enrolment.recall(tmp_path) == done
    assert membership.authenticate(done.credential)
    assert membership.authenticate(identity.credential) is None


def test_an_agent_that_was_away_until_its_new_credential_was_void_goes_on_with_the_one_before(
    identity, tmp_path
):
    with pytest.raises(Killed):
        rotation.rotate(tmp_path, identity, **killed_at("before use"))
    NodeCredential.objects.filter(last_used_at__isnull=True).update(
        created_at=Clock() - _UNUSED_FOR * 2
    )
    with pytest.raises(Refused):
        rotation.rotate(tmp_path, enrolment.recall(tmp_path), **killed_at("never"))
    recalled = enrolment.recall(tmp_path)
    assert (recalled.credential, recalled.previous) == (identity.credential, "")
    assert membership.authenticate(recalled.credential)
    rotation.rotate(tmp_path, recalled, **killed_at("never"))


def test_a_credential_is_due_after_twenty_days_and_when_nobody_knows_its_age():
    it = Identity("n", "nt_x", issued=100 * DAY)
    assert [rotation.is_due(it, day * DAY) for day in (100, 119, 121)] == [False, False, True]
    assert rotation.is_due(it, 99 * DAY), "the clock was set back: its age is unknown"
    assert rotation.is_due(replace(it, issued=0.0), 100 * DAY)
    assert rotation.is_due(replace(it, previous="nt_w"), 101 * DAY)


def test_a_credential_is_replaced_over_http(identity):
    anybody = Api()
    sign = {"Authorization": f"Node {identity.credential}"}
    new = anybody.post("nodes/credentials", **sign).json()["credential"]
    for code in (200, 200):
        used = anybody.post("nodes/credentials/use", Authorization=f"Node {new}")
        assert (used.status_code, used.json()["node"]) == (code, identity.node)
    for path in ("nodes/credentials", "nodes/credentials/use"):
        refused = anybody.post(path, **sign)
        assert (refused.status_code, refused.json()["code"]) == (403, "revoked")
        assert anybody.post(path).status_code == 401
