import re

import pytest
from django.contrib.admin.sites import site
from django.contrib.auth.models import User
from django.test import Client

from nodes.models import Node
from orchestrator.access import tokens
from orchestrator.models import (
    ApiToken,
    BrokerRow,
    BrokerTrigger,
    ClusterSetting,
    Event,
    Execution,
    ExecutionHistory,
    Job,
    RoleBinding,
)
from tests import rows

pytestmark = pytest.mark.django_db

OURS = [model for model in site._registry if model._meta.app_label in {"orchestrator", "nodes"}]


@pytest.fixture
def root():
    return User.objects.create_superuser("root")


@pytest.fixture
def browser(root):
    client = Client()
    client.force_login(root)
    return client


def address(model, page="changelist"):
    meta = model._meta
    suffix = "" if page == "changelist" else f"{page}/"
    return f"/admin/{meta.app_label}/{meta.model_name}/{suffix}"


def act(browser, model, action, *chosen):
    return browser.post(
        address(model), {"action": action, "_selected_action": [str(it.pk) for it in chosen]}
    )


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_every_list_opens(browser, model):
    rows.execution(rows.job(), rows.node(), observed="completed")
    assert browser.get(address(model)).status_code == 200


def test_an_execution_shows_its_history(browser):
    execution = rows.execution(rows.job(), rows.node(), observed="running")
    page = browser.get(address(Execution, f"{execution.pk}/change")).content.decode()
    assert "→ running by endpoint" in page


@pytest.mark.parametrize("model", [it for it in OURS if it not in (ApiToken, RoleBinding)], ids=str)
def test_nothing_is_added_by_hand(browser, model):
    assert browser.get(address(model, "add")).status_code == 403
    assert browser.post(address(model, "add"), {"name": "x"}).status_code == 403


@pytest.mark.parametrize(
    "field", ["observed", "desired", "rev", "reserved", "told_rev", "by_writer"]
)
def test_a_raw_change_of_an_execution_is_refused(browser, field):
    execution = rows.execution(rows.job(), rows.node(), observed="running")
    before = Execution.objects.filter(pk=execution.pk).values().get()
    answer = browser.post(
        address(Execution, f"{execution.pk}/change"), {field: "completed", "_save": "Save"}
    )
    assert answer.status_code == 403
    assert Execution.objects.filter(pk=execution.pk).values().get() == before


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (rows.job, {"state": "completed", "priority": "100"}),
        (rows.node, {"approval": "rejected", "allocated_cpu": "0"}),
    ],
)
def test_a_raw_change_of_what_has_a_lifecycle_is_refused(browser, make, change):
    row = make()
    before = type(row).objects.filter(pk=row.pk).values().get()
    assert browser.post(address(type(row), f"{row.pk}/change"), change).status_code == 403
    assert type(row).objects.filter(pk=row.pk).values().get() == before


@pytest.mark.parametrize("model", [Job, Node, Execution])
def test_nothing_is_deleted_by_hand(browser, model):
    rows.execution(rows.job(), rows.node())
    row = model.objects.get()
    assert browser.post(address(model, f"{row.pk}/delete"), {"post": "yes"}).status_code == 403
    act(browser, model, "delete_selected", row)
    assert model.objects.filter(pk=row.pk).exists()


def test_a_job_is_stopped_by_who_is_signed_in(browser):
    job = rows.job()
    act(browser, Job, "stop", job)
    job.refresh_from_db()
    assert job.stop_requested
    assert Event.objects.get(what="stop").actor == "user:root"
    assert BrokerTrigger.objects.filter(job_id=job.pk, trigger="job-stop").exists()


def test_a_job_is_run_again_and_evaluated_now(browser):
    job = rows.job()
    act(browser, Job, "rerun", job)
    act(browser, Job, "evaluate_now", job)
    job.refresh_from_db()
    assert job.round == 2
    assert set(BrokerTrigger.objects.values_list("trigger", flat=True)) == {"job-rerun", "operator"}


def test_a_dead_letter_is_retried_and_one_that_is_none_is_named(browser):
    job, other = rows.job(), rows.job()
    rows.dead_letter(job)
    rows.leased(other)
    page = browser.post(
        address(BrokerRow),
        {"action": "retry_dead", "_selected_action": [str(job.pk), str(other.pk)]},
        follow=True,
    ).content.decode()
    assert "there is no dead letter" in page
    assert "Retried: 1" in page
    assert BrokerTrigger.objects.get().job_id == job.pk


def test_a_node_is_approved_rejected_and_spared(browser):
    node = rows.node(approval="pending", connection="disconnected")
    for action, field, value in (
        ("approve", "approval", "approved"),
        ("make_ineligible", "eligible", False),
        ("make_eligible", "eligible", True),
        ("reject", "approval", "rejected"),
    ):
        act(browser, Node, action, node)
        node.refresh_from_db()
        assert getattr(node, field) == value
    assert set(Event.objects.values_list("actor", flat=True)) == {"user:root"}


def test_who_may_only_look_cannot_act(db):
    looker = rows.user("looker", "viewer", is_staff=True)
    client = Client()
    client.force_login(looker)
    job, node = rows.job(), rows.node(approval="pending", connection="disconnected")
    assert client.get(address(Job)).status_code == 200
    act(client, Job, "stop", job)
    act(client, Node, "approve", node)
    job.refresh_from_db()
    node.refresh_from_db()
    assert not job.stop_requested
    assert node.approval == "pending"


def test_a_token_is_shown_once_and_works_until_it_is_revoked(browser, root):
    made = browser.post(
        address(ApiToken, "add"),
        {"user": root.pk, "name": "for a script", "scopes": ["read", "submit"], "days": "7"},
    )
    assert "no-store" in made["Cache-Control"]
    (secret,) = re.findall(r"at_[0-9a-f]{8}_[\w-]{43}", made.content.decode())
    token = tokens.authenticate(secret)
    assert token is not None
    assert (token.name, token.scopes) == ("for a script", ["read", "submit"])
    assert secret not in browser.get(address(ApiToken)).content.decode()
    assert token.digest not in browser.get(address(ApiToken, f"{token.pk}/change")).content.decode()
    act(browser, ApiToken, "revoke", token)
    assert tokens.authenticate(secret) is None


def test_django_q_has_no_pages_here(browser):
    for name in ("schedule", "ormq", "success", "failure", "task"):
        assert browser.get(f"/admin/django_q/{name}/add/").status_code == 404


def test_lists_do_not_count_everything(browser, django_assert_max_num_queries):
    rows.execution(rows.job(), rows.node(), observed="completed")
    with django_assert_max_num_queries(6) as seen:
        browser.get(address(Execution))
    counts = [it["sql"] for it in seen.captured_queries if "COUNT(*)" in it["sql"]]
    assert counts
    assert all("LIMIT 10000" in sql for sql in counts)
    assert ExecutionHistory.objects.exists()


def test_placement_is_chosen_for_the_whole_cluster(browser):
    settings = ClusterSetting.objects.get(pk=1)
    act(browser, ClusterSetting, "spread_over_nodes", settings)
    settings.refresh_from_db()
    assert settings.algorithm == "spread"
    assert Event.objects.get(what="algorithm").message == "root sets placement to spread"
    act(browser, ClusterSetting, "fill_nodes", settings)
    settings.refresh_from_db()
    assert settings.algorithm == "binpack"


def test_the_quarantine_of_a_node_can_be_ended(browser):
    node = rows.node(quarantined="two agents use its credential")
    act(browser, Node, "release", node)
    node.refresh_from_db()
    assert node.quarantined == ""
