"""What is done to nodes over the API."""

import pytest

from tests import rows

pytestmark = pytest.mark.django_db


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
