"""What `make up` gives to its agents."""

import pytest
from django.db.models.functions import Now

from nodes import membership
from nodes.models import JoinToken
from orchestrator.server.local_cluster import _write_join_token

pytestmark = pytest.mark.django_db


def join(file, name):
    return membership.enrol(file.read_text(), name, key=f"key of {name}")[0]


def test_an_agent_that_was_ended_before_it_heard_that_it_has_joined_joins_at_the_next_start(
    tmp_path,
):
    file = tmp_path / "agents" / "join-token"
    _write_join_token(file, uses=1)
    node = join(file, "local-1")
    _write_join_token(file, uses=2)
    assert join(file, "local-1") == node
    assert join(file, "local-2") != node


def test_a_join_token_that_is_good_for_nothing_is_replaced(tmp_path):
    file = tmp_path / "agents" / "join-token"
    _write_join_token(file, uses=1)
    JoinToken.objects.update(revoked_at=Now())
    _write_join_token(file, uses=1)
    assert join(file, "local-1").approval == "approved"
