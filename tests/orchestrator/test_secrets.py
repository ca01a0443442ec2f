"""Secrets as they are kept, and as they are told to the node that needs them."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models.signals import post_save

from nodes.protocol.messages import Want
from orchestrator import endpoint
from orchestrator.explain.errors import InvalidSecret, NoSecretsKey, NotFound
from orchestrator.lifecycle import Observed
from orchestrator.models import Event, Namespace, Secret, sealing
from orchestrator.planners import compute_forwarder
from orchestrator.planners.unsendable_orders import cannot_send
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)

VALUE, OTHER = "canary-hunter2", "canary-of-another"
KNOWS = {"node.driver.process": "true", "node.secrets": "true"}
NAMES = {"TOKEN": "secret://token"}


@pytest.fixture(autouse=True)
def keys(settings, tmp_path):
    """The file of keys, which is not there yet."""
    settings.SECRETS_KEY_FILE = tmp_path / "secrets_key"
    return settings.SECRETS_KEY_FILE


def put(value=VALUE, name="token", namespace="default"):
    Namespace.objects.get_or_create(pk=namespace)
    return endpoint.put_secret(namespace, name, value, actor="user:ana")


def waiting(node=None, **job):
    """An execution that has been approved, and whose node has not taken that yet."""
    it = rows.execution(
        rows.job(task={"env": NAMES}, **job),
        node or rows.node(attributes=KNOWS),
        observed="ask_for_bid_accepted",
    )
    rows.wish(it, "running")
    return it


def told(execution):
    """What its node is told next: the order, or why there is none."""
    [found] = compute_forwarder.orders({execution.node_id: 0})
    [it] = [*found.orders, *found.unsendable]
    return it


# --- kept ------------------------------------------------------------------------------------


def test_a_value_is_sealed_with_a_key_that_only_its_owner_may_read(keys):
    kept = put()
    assert (kept.created, kept.changed, kept.secret.version) == (True, True, 1)
    assert VALUE not in json.dumps(list(Secret.objects.values()), default=str)
    assert keys.stat().st_mode & 0o777 == 0o600
    [event] = Event.objects.filter(what="secret-put")
    assert (event.message, event.namespace) == ("ana puts the secret token, version 1", "default")


def test_another_value_is_another_version_and_the_same_one_is_none():
    put()
    again, other = put(), put(OTHER)
    assert (again.created, again.changed, again.secret.version) == (False, False, 1)
    assert (other.created, other.changed, other.secret.version) == (False, True, 2)
    assert Event.objects.filter(what="secret-put").count() == 2


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("Token", VALUE, "The secret Token cannot be the name of a secret."),
        ("token", "12345", "The secret token has 5 characters, and may have 6 to 16384."),
        ("token", "x" * 16385, "The secret token has 16385 characters, and may have 6 to 16384."),
        ("token", "a\0" * 6, "The secret token contains the unsupported character U+0000."),
    ],
)
def test_what_cannot_be_a_secret_is_refused_and_not_shown(name, value, said):
    with pytest.raises(InvalidSecret) as refused:
        put(value, name)
    assert str(refused.value) == said
    assert value not in str(refused.value) + refused.value.hint
    assert not Secret.objects.exists()


def test_a_deleted_secret_is_gone_and_says_who_still_names_it():
    put()
    rows.job(name="a", task={"env": NAMES})
    rows.job(name="done", task={"env": NAMES}, state="completed")
    rows.job(name="there", namespace="there", task={"env": NAMES})
    gone = endpoint.delete_secret("default", "token", actor="user:ana")
    assert gone.used_by == ["a"]
    with pytest.raises(NotFound, match="There is no secret 'token'"):
        endpoint.delete_secret("default", "token", actor="user:ana")


def test_the_users_of_secrets_are_found_by_an_index_of_the_jobs_that_name_any():
    put()
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
    plan = endpoint.with_users(Secret.objects.all()).explain()
    with connection.cursor() as cursor:
        cursor.execute("RESET enable_seqscan")
    assert "version_names_secrets" in plan


def test_what_is_put_while_its_namespace_is_removed_goes_with_it(eventually):
    Namespace.objects.create(pk="there")

    def remove():
        try:
            return endpoint.delete_namespace("there", actor="user:ana")
        finally:
            connection.close()

    def waits():
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return cursor.fetchone()[0]

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            put(namespace="there")
            removing = pool.submit(remove)
            eventually(waits)
        assert removing.result(timeout=30).pk == "there"
    assert not Secret.objects.exists()
    with pytest.raises(NotFound, match="There is no namespace 'there'"):
        endpoint.put_secret("there", "token", VALUE, actor="user:ana")


# --- keys ------------------------------------------------------------------------------------


def test_a_new_key_seals_and_the_old_one_opens_until_it_is_forgotten(keys):
    put()
    first = keys.read_text()
    sealing.new_first_key()
    assert keys.read_text().endswith(first)
    assert keys.read_text() != first
    row = Secret.objects.get()
    assert sealing.opened("default", "token", row.sealed) == VALUE


def test_a_rotation_seals_everything_anew_and_forgets_the_old_keys(keys, capsys):
    put()
    put(OTHER, "other")
    first = keys.read_text().strip()
    call_command("rotate_secrets")
    assert len(keys.read_text().split()) == 1
    assert first not in keys.read_text()
    opened = [sealing.opened(it.namespace_id, it.name, it.sealed) for it in Secret.objects.all()]
    assert sorted(opened) == sorted([VALUE, OTHER])
    assert "2 secrets are sealed with a new key" in capsys.readouterr().out


def test_a_rotation_that_another_one_overtakes_and_does_not_finish_loses_no_value(keys):
    put()

    def overtaken(**_):
        """Another one begins as soon as the first has sealed all, and is killed."""
        transaction.on_commit(sealing.new_first_key)

    post_save.connect(overtaken, sender=Secret)
    try:
        call_command("rotate_secrets")
    finally:
        post_save.disconnect(overtaken, sender=Secret)
    assert sealing.opened("default", "token", Secret.objects.get().sealed) == VALUE
    call_command("rotate_secrets")
    assert len(keys.read_text().split()) == 1
    assert sealing.opened("default", "token", Secret.objects.get().sealed) == VALUE


def test_several_hosts_rotate_by_a_file_that_is_left_as_it_is(keys):
    put()
    first, second = keys.read_text().strip(), Fernet.generate_key().decode()
    keys.write_text(f"{second}\n{first}\n")
    call_command("rotate_secrets", "--keep-file")
    assert keys.read_text() == f"{second}\n{first}\n"
    keys.write_text(second)
    assert sealing.opened("default", "token", Secret.objects.get().sealed) == VALUE


def test_a_value_is_of_its_own_secret_whatever_row_it_is_moved_to():
    put()
    put(OTHER, namespace="there")
    stolen = Secret.objects.get(namespace="there").sealed
    Secret.objects.filter(namespace="default").update(sealed=stolen)
    assert "cannot be read" in told(waiting()).lacks


def test_a_file_of_keys_that_others_may_read_is_refused(keys):
    put()
    keys.chmod(0o644)
    with pytest.raises(NoSecretsKey, match="others than its owner may read it"):
        put(OTHER)


def test_a_file_of_keys_that_was_named_is_not_made(keys, settings):
    settings.SECRETS_KEY_FILE_IS_GIVEN = True
    with pytest.raises(NoSecretsKey, match="it is not there") as refused:
        put()
    assert "docs/secrets.md" in refused.value.hint
    assert not keys.exists()
    keys.write_text("no key")
    keys.chmod(0o600)
    with pytest.raises(NoSecretsKey, match="it has no key, or one that is none"):
        put()


# --- told ------------------------------------------------------------------------------------


def test_the_value_goes_with_the_order_to_run_and_the_reference_beside_it():
    put()
    order = told(waiting())
    assert (order.want, order.secrets.values) == (Want.RUN, {"TOKEN": VALUE})
    assert order.task.env["TOKEN"] == "secret://token"
    assert VALUE not in repr(order)


def test_nothing_goes_with_a_bid_or_once_the_node_has_taken_the_order():
    put()
    node = rows.node(attributes=KNOWS)
    asked = rows.execution(rows.job(task={"env": NAMES}), node)
    assert (told(asked).want, told(asked).secrets) == (Want.BID, None)
    rows.move(asked, Observed.ASK_FOR_BID_ACCEPTED)
    rows.move(asked, Observed.BID_ACCEPTED)
    assert (told(asked).want, told(asked).secrets) == (Want.RUN, None)


def test_a_change_while_it_waits_is_told_as_it_is_then():
    put()
    it = waiting()
    put(OTHER)
    assert told(it).secrets.values == {"TOKEN": OTHER}


def test_a_secret_of_another_namespace_is_not_told():
    put(OTHER, namespace="there")
    assert told(waiting()).lacks == "the secret token, which TOKEN names, is not there any more"


def test_a_secret_that_was_deleted_ends_what_waits_for_it_with_a_sentence():
    put()
    it = waiting()
    endpoint.delete_secret("default", "token", actor="user:ana")
    [found] = compute_forwarder.orders({it.node_id: 0})
    assert (found.orders, found.order_rev) == ((), it.order_rev)
    cannot_send(it.node_id, found.unsendable)
    it.refresh_from_db()
    assert (it.observed, it.code, it.retryable) == ("cancelled", "secret-missing", False)
    assert it.message == "the secret token, which TOKEN names, is not there any more"
    assert it.hint == "`muster secret put token -n default`, then run the job again."


def test_an_agent_that_knows_no_secrets_is_sent_none_and_another_node_may_be():
    put()
    it = told(waiting(rows.node()))
    assert (it.lacks, it.elsewhere) == ("its node's agent knows no secrets", True)


def test_a_node_that_was_rejected_is_sent_none():
    put()
    it = waiting()
    it.node.approval = "rejected"
    it.node.save(update_fields=["approval"])
    assert compute_forwarder.orders({it.node_id: 0}) == []


def test_without_its_keys_the_server_says_so_to_whom_it_concerns(keys, tmp_path):
    put()
    it = waiting()
    shutil.move(keys, tmp_path / "elsewhere")
    assert told(it).lacks == "the server cannot use the keys of its secrets"
    keys.write_text(Fernet.generate_key().decode())
    keys.chmod(0o600)
    assert told(it).lacks == (
        "The secret token cannot be read: it was sealed with a key that the server has no longer"
    )
