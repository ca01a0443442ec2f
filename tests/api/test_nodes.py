"""What is done to nodes over the API."""

import pytest

from nodes.models import NodeHeartbeat
from tests import rows

pytestmark = pytest.mark.django_db


def test_what_runs_on_a_node_is_what_is_known_of_its_executions(api):
    busy, idle = rows.node(name="busy"), rows.node(name="idle")
    for slot, state in enumerate(("running", "running", "completed", "preparing")):
        rows.execution(rows.job(), busy, slot=slot, observed=state)
    NodeHeartbeat.objects.filter(node=idle).update(running=7)
    listed = {it["name"]: it["running"] for it in api.get("nodes").json()["items"]}
    assert listed == {"busy": 2, "idle": 0}
    assert api.get("nodes/busy").json()["running"] == 2


@pytest.mark.parametrize("length", [4, 8, 31])
def test_a_node_is_not_removed_by_the_beginning_of_its_id(api, length):
    node = rows.node(name="machine")
    answer = api.post(f"nodes/{node.pk.hex[:length]}", method="DELETE")
    assert (answer.status_code, answer.json()["code"]) == (409, "not-named-in-full")
    assert "machine" in answer.json()["hint"]
    assert api.get("nodes/machine").status_code == 200


@pytest.mark.parametrize("named", ["name", "id", "hexadecimal"])
def test_a_node_is_removed_by_its_name_or_its_whole_id(api, named):
    node = rows.node(name="machine")
    ref = {"name": "machine", "id": str(node.pk), "hexadecimal": node.pk.hex.upper()}[named]
    assert api.post(f"nodes/{ref}", method="DELETE").status_code == 200
    assert api.get("nodes/machine").status_code == 404


def test_a_node_whose_name_begins_like_an_id_is_removed_by_it(api):
    rows.node(name="beef")
    assert api.post("nodes/beef", method="DELETE").status_code == 200
