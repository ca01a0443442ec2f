"""What `make up` says of how far tasks are walled off."""

import pytest

from nodes.models import NodeSession
from orchestrator.server.isolation import NONE, LocalIsolation, sentences
from tests import rows

SANDBOX = {"node.isolation": "sandbox", "node.isolation.sandbox": "true"}
ALL = SANDBOX | {"node.isolation.user": "true", "node.isolation.cgroup": "true"}


def test_every_wall_is_told_and_every_one_that_is_missing():
    (told,) = sentences({"local-1": ALL, "local-2": ALL})
    assert told.startswith(
        "Tasks are walled off (sandbox): each is a user of its own, in a sandbox, "
        "with limits on memory and processes."
    )
    (told,) = sentences({"local-1": SANDBOX})
    assert "all run as the agent's user" in told
    assert "without limits on memory and processes" in told


@pytest.mark.parametrize("said", [{}, {"node.isolation": "none"}])
def test_without_walls_that_is_said_plainly(said):
    assert sentences({"local-1": said}) == [NONE]


def test_nodes_that_differ_are_named():
    told = sentences({"local-1": ALL, "local-2": {}, "local-3": ALL})
    assert told[0].startswith("local-1, local-3: Tasks are walled off")
    assert told[1] == f"local-2: {NONE}"


@pytest.mark.django_db
def test_only_what_is_said_from_now_on_counts():
    node = rows.node(name="local-1", attributes={"node.isolation": "none"})
    session, _ = NodeSession.objects.get_or_create(node=node)
    walls = LocalIsolation(["local-1"])
    assert walls.sentences(now=10.0) is None
    session.epoch += 1
    session.save()
    assert walls.sentences(now=10.5) is None, "it asks once a second"
    assert walls.sentences(now=11.0) == [NONE]
    assert LocalIsolation([]).sentences(now=1.0) == []
