"""Who does what only one should do."""

import pytest

from orchestrator.server.cluster.periodic import Leader

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def leader():
    made = []

    def make(**arguments):
        made.append(Leader(**arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_one_of_many_leads_until_it_goes(leader, eventually):
    first, second = leader(), leader()
    assert first.leads()
    assert not second.leads()
    assert first.leads()
    first.close()
    assert eventually(second.leads), "the server has noticed that the first is gone"


def test_a_leader_that_is_stopped_is_followed_by_another(leader, eventually):
    """Its connection lives on, and nothing on it tells that nobody is behind."""
    stopped, other = leader(silence=0.2), leader()
    assert stopped.leads()
    assert eventually(other.leads)
    assert not stopped.leads(), "it finds that out when it goes on"
