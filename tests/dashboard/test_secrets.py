"""The page of secrets: names, never values; and the form that puts one."""

import pytest

from orchestrator import endpoint
from orchestrator.models import Namespace, Secret
from tests import rows
from tests.dashboard.test_actions import ASKED

pytestmark = pytest.mark.django_db

VALUE = "canary-hunter2"


@pytest.fixture(autouse=True)
def keys(settings, tmp_path):
    settings.SECRETS_KEY_FILE = tmp_path / "secrets_key"


def put(browser, value=VALUE, name="token", namespace="default", verb="put"):
    said = {"namespace": namespace, "name": name, "value": value}
    return browser.post(f"/secrets/{verb}", said, headers=ASKED)


def test_a_secret_is_put_and_shown_without_its_value(operator):
    assert put(operator, VALUE + "\r\n").json() == {
        "message": "The secret token is kept, version 1."
    }
    assert put(operator).json() == {"message": "The secret token has that value already."}
    rows.job(name="uses-it", task={"env": {"T": "secret://token"}})
    page = operator.get("/secrets/").content.decode()
    assert all(it in page for it in ("token", "uses-it", "ana"))
    assert VALUE not in page
    assert put(operator, verb="delete").json() == {"message": "The secret token is deleted."}
    assert "There is no secret" in operator.get("/secrets/?regions=table").content.decode()


def test_what_is_refused_is_not_shown_and_comes_back_in_no_field(operator):
    said = {"namespace": "default", "name": "Bad", "value": VALUE}
    back = {"referer": "http://localhost/secrets/"}
    answer = operator.post("/secrets/put", said, headers=back, follow=True)
    page = answer.content.decode()
    assert "The secret Bad cannot be the name of a secret." in page
    assert VALUE not in page


def test_who_may_not_put_secrets_sees_the_names_and_what_they_lack(client):
    client.force_login(rows.user("eve", "viewer", "here"))
    for namespace in ("here", "there"):
        Namespace.objects.get_or_create(pk=namespace)
        endpoint.put_secret(namespace, f"token-{namespace}", VALUE, actor="user:ana")
    page = client.get("/secrets/", headers={"host": "localhost"}).content.decode()
    assert "token-here" in page
    assert "token-there" not in page
    assert "that takes the role operator" in page
    assert 'name="value"' not in page
    for namespace, status in (("here", 403), ("there", 404)):
        for verb in ("put", "delete"):
            answer = client.post(
                f"/secrets/{verb}",
                {"namespace": namespace, "name": f"token-{namespace}", "value": "another one"},
                headers={**ASKED, "host": "localhost"},
            )
            assert answer.status_code == status
    assert set(Secret.objects.values_list("version", flat=True)) == {1}
