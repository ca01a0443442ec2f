"""Pages and the administration: addresses, forms and filters that nobody of ours would send."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from django.contrib.admin.sites import site
from django.contrib.auth.models import User
from django.test import Client

from orchestrator.models import Execution
from tests import rows
from tests.bad_inputs.table import case, tries

pytestmark = pytest.mark.django_db

BAD = {
    "nul": "%00",
    "number": "99999999999999999999",
    "negative": "-1",
    "word": "nonsense",
    "surrogate": "%ED%A0%80",
    "quotes": "'%22;--",
    "markup": "<script>alert(1)</script>",
    "long": "x" * 5000,
    "pattern": "%25_%25",
    "wide": "%D9%A3",
}


@pytest.fixture
def place(db) -> SimpleNamespace:
    """A cluster of one of each, and somebody who may do everything and looks at it."""
    browser = Client(headers={"host": "localhost"}, raise_request_exception=False)
    browser.force_login(User.objects.create_superuser("ana"))
    node, job = rows.node(name="a-node"), rows.job(name="a-job")
    execution = rows.execution(job, node, observed="running")
    return SimpleNamespace(browser=browser, node=node, job=job, execution=execution)


def shown(answer, *statuses: int) -> str:
    """The page, which is no failure of ours and shows nothing of what it was asked as markup."""
    assert answer.status_code in statuses, answer.status_code
    text = answer.content.decode()
    assert "Traceback" not in text
    assert "<script>alert" not in text
    return text


# --- pages -------------------------------------------------------------------------------------

PAGES = {
    "/": (),
    "/jobs/": ("state", "text", "before"),
    "/jobs/a-job/": ("before", "slot"),
    "/jobs/a-job/definition/": ("version",),
    "/nodes/": ("before", "text"),
    "/nodes/a-node/": ("before",),
    "/queue/": ("before",),
    "/executions/{execution}/": (),
}
EVERYWHERE = ("namespace", "regions", "at", "nonsense")


@pytest.mark.parametrize("value", [case(116, what, value) for what, value in BAD.items()])
def test_no_parameter_of_a_page_is_a_mistake_of_ours(place, harmless, value):
    with harmless() as each:
        for page, names in PAGES.items():
            for name in (*names, *EVERYWHERE):
                with each(f"{page}?{name}"):
                    page_at = page.format(execution=place.execution.pk)
                    text = shown(place.browser.get(f"{page_at}?{name}={value}"), 200, 404)
                    assert name != "nonsense" or "nonsense" in text or value == "%00"


@pytest.mark.parametrize("value", [case(58, what, value) for what, value in BAD.items()])
def test_what_is_not_there_is_404_in_a_sentence(place, harmless, value):
    addresses = (
        "jobs/{}/",
        "jobs/{}/definition/",
        "nodes/{}/",
        "executions/{}/",
        "evaluations/{}/",
    )
    with harmless() as each:
        for address in addresses:
            with each(address):
                text = shown(place.browser.get("/" + address.format(value)), 404)
                assert "Resolver404" not in text
                assert "urls.py" not in text


@tries(116)
def test_a_state_that_no_job_has_is_said(place, harmless):
    with harmless():
        text = shown(place.browser.get("/jobs/?state=runing"), 200)
    assert "No job is ever" in text
    assert "a-job" not in re.sub(r"<nav.*?</nav>", "", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("form", "status"),
    [
        case(112, "nul", {"reason": "a\0b"}, 400),
        case(112, "long", {"reason": "x" * 501}, 400),
        case(112, "2 MB", {"reason": "x" * 2_000_000}, 413),
        case(112, "many fields", {f"f{n}": "x" for n in range(2000)}, 413),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused_in_a_sentence(place, harmless, form, status):
    job, node = f"/jobs/{place.job.pk}", f"/nodes/{place.node.pk}"
    with harmless() as each:
        for address in (f"{job}/stop", f"{node}/ineligible", "/queue/pause"):
            with each(address):
                asked = {"X-Requested-With": "muster"}
                answer = place.browser.post(address, form, headers=asked)
                assert answer.status_code == status, answer.content[:200]
                assert answer.json()["message"].endswith((".", "it.", "it."))


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        case(112, "no reason", "/queue/pause", {}, 400),
        case(112, "empty reason", "/queue/pause", {"reason": "  "}, 400),
        case(112, "no label", "/nodes/{node}/label", {"labels": "pool"}, 400),
        case(112, "no labels", "/nodes/{node}/label", {}, 400),
        case(112, "label's name", "/nodes/{node}/label", {"labels": "a\x01b=c"}, 400),
        case(112, "reserved label", "/nodes/{node}/label", {"labels": "node.pool=prod"}, 400),
        case(112, "node with work", "/nodes/{node}/remove", {}, 409),
        case(58, "no job", "/jobs/{node}/stop", {}, 404),
        case(58, "no node", "/nodes/{job}/drain", {}, 404),
        case(58, "no verb", "/nodes/{node}/explode", {}, 404),
        case(55, "GET", None, None, 405),
    ],
)
def test_a_verb_that_makes_no_sense_is_refused(place, harmless, path, form, status):
    asked = {"X-Requested-With": "muster"}
    with harmless():
        if path is None:
            answer = place.browser.get(f"/jobs/{place.job.pk}/stop")
        else:
            address = path.format(node=place.node.pk, job=place.job.pk)
            answer = place.browser.post(address, form, headers=asked)
    shown(answer, status)


@tries(54)
@pytest.mark.parametrize("path", ["/queue/pause", "/accounts/login/", "/admin/orchestrator/job/"])
def test_a_form_without_its_token_is_refused_on_a_page_of_ours(place, harmless, path):
    browser = Client(headers={"host": "localhost"}, enforce_csrf_checks=True)
    browser.force_login(User.objects.get(username="ana"))
    with harmless():
        text = shown(browser.post(path, {"reason": "x", "username": "x"}), 403)
    assert "Muster" in text
    assert "again" in text


@pytest.mark.parametrize(
    ("form", "status"),
    [
        case(118, "nothing", {}, 200),
        case(118, "nul", {"username": "a\0", "password": "x"}, 200),
        case(118, "1 MB", {"username": "x" * 1_000_000, "password": "x"}, 200),
        case(118, "2 MB", {"username": "x" * 2_000_000, "password": "x"}, 413),
        case(118, "password", {"username": "ana", "password": "\0"}, 200),
    ],
)
def test_a_sign_in_that_is_none_is_refused(place, harmless, form, status):
    browser = Client(headers={"host": "localhost"}, raise_request_exception=False)
    with harmless():
        shown(browser.post("/accounts/login/", form), status)
    assert "_auth_user_id" not in browser.session


@tries(118)
@pytest.mark.parametrize("there", ["//evil.example", "https://evil.example", "javascript:alert(1)"])
def test_a_sign_in_leads_nowhere_else(place, there):
    User.objects.create_user("bob", password="correct-horse")
    browser = Client(headers={"host": "localhost"})
    form = {"username": "bob", "password": "correct-horse", "next": there}
    answer = browser.post("/accounts/login/", form)
    assert (answer.status_code, answer["Location"]) == (302, "/")


@tries(55)
@pytest.mark.parametrize("host", ["evil.example", "a b", "[::1"])
def test_a_page_has_no_other_host(place, harmless, host):
    with harmless():
        text = shown(place.browser.get("/jobs/", headers={"host": host}), 400)
    assert "MUSTER_HOSTS" in text


@tries(16)
def test_what_users_wrote_is_text_on_every_page(place):
    """Also where it is a label's value, an argument of a command, or a reason."""
    evil = '"><img src=x onerror=alert(1)>'
    job = rows.job(name="evil", labels={"a": evil}, task={"command": ["sh", evil]})
    addresses = (
        "/jobs/evil/",
        "/jobs/evil/definition/",
        "/jobs/",
        f"/admin/orchestrator/job/{job.pk}/change/",
    )
    for address in addresses:
        assert "<img src=x" not in shown(place.browser.get(address), 200)


# --- the administration ------------------------------------------------------------------------

OURS = [it for it in site._registry if it._meta.app_label in {"orchestrator", "nodes"}]


def listed(model) -> str:
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


FILTERS = (
    "q",
    "p",
    "o",
    "all",
    "pk",
    "id__exact",
    "nonsense",
    "job__created_by__password__startswith",
)


@pytest.mark.parametrize("value", [case(115, what, value) for what, value in BAD.items()])
def test_no_filter_of_a_list_is_a_mistake_of_ours(place, harmless, value):
    with harmless() as each:
        for model in OURS:
            filters = [
                it if isinstance(it, str) else it[0] for it in site._registry[model].list_filter
            ]
            days = site._registry[model].date_hierarchy
            lookups = [f"{it}__{how}" for it in filters for how in ("exact", "in", "isnull")]
            lookups += (
                [f"{days}__{part}" for part in ("year", "month", "day", "gte")] if days else []
            )
            for name in (*FILTERS, *lookups):
                with each(f"{listed(model)}?{name}"):
                    answer = place.browser.get(f"{listed(model)}?{name}={value}")
                    shown(answer, 200, 302, 400)
                    assert answer.status_code != 302 or "e=1" in answer["Location"]


@pytest.mark.parametrize(
    "value", [case(115, f"{what} as a key", value) for what, value in BAD.items()]
)
def test_no_key_of_a_row_is_a_mistake_of_ours(place, harmless, value):
    with harmless() as each:
        for model in OURS:
            for page in ("change", "history", "delete"):
                with each(f"{listed(model)}{value[:20]}/{page}/"):
                    shown(place.browser.get(f"{listed(model)}{value}/{page}/"), 302, 400, 403, 404)
        for address in (f"/admin/r/1/{value}/", f"/admin/r/{value}/1/", f"/admin/{value}/"):
            with each(address[:40]):
                shown(place.browser.get(address), 400, 404)


CHOSEN = {
    "nul": "\0",
    "word": "abc",
    "huge": "9" * 40,
    "list": "[1]",
    "surrogate": "\ud7ff",
    "long": "x" * 5000,
}


@pytest.mark.parametrize("chosen", [case(110, what, it) for what, it in CHOSEN.items()])
def test_an_action_on_what_is_no_row_is_a_message(place, harmless, chosen):
    with harmless() as each:
        for model in OURS:
            for action in (*_actions(model), "delete_selected", "nonsense"):
                with each(f"{action} of {listed(model)}"):
                    form = {"action": action, "_selected_action": [chosen], "index": "0"}
                    shown(place.browser.post(listed(model), form), 200, 302, 400, 403)
        with each("index"):
            form = {"action": "stop", "_selected_action": "x", "index": "abc"}
            shown(place.browser.post("/admin/orchestrator/job/", form), 200, 302, 400)


def _actions(model) -> tuple[str, ...]:
    return tuple(it if isinstance(it, str) else it.__name__ for it in site._registry[model].actions)


@tries(110)
@pytest.mark.parametrize("field", ["observed", "rev", "desired", "order_rev", "reserved"])
def test_no_raw_form_changes_what_has_a_lifecycle(place, harmless, field):
    with harmless():
        address = f"{listed(Execution)}{place.execution.pk}/change/"
        shown(place.browser.post(address, {field: "1", "_save": "Save"}), 403)


@tries(112)
def test_nothing_is_deleted_that_others_rest_on(place, harmless):
    with harmless():
        for row in (place.node, place.job, place.execution):
            address = f"{listed(type(row))}{row.pk}/delete/"
            shown(place.browser.post(address, {"post": "yes"}), 403)


@pytest.mark.parametrize(
    "form",
    [
        case(110, "nothing", {}),
        case(110, "nul", {"name": "\0", "user": "1", "scopes": "admin", "days": "1"}),
        case(110, "days", {"name": "x", "user": "{ana}", "scopes": "admin", "days": "9" * 30}),
        case(110, "scope", {"name": "x", "user": "{ana}", "scopes": "root", "days": "1"}),
        case(110, "user", {"name": "x", "user": "9" * 30, "scopes": "admin", "days": "1"}),
        case(110, "long", {"name": "x" * 5000, "user": "{ana}", "scopes": "admin", "days": "1"}),
    ],
)
def test_a_form_of_the_administration_says_what_is_wrong(place, harmless, form):
    ana = str(User.objects.get(username="ana").pk)
    form = {name: value.replace("{ana}", ana) for name, value in form.items()}
    with harmless() as each:
        for page in ("apitoken", "rolebinding"):
            with each(page):
                text = shown(place.browser.post(f"/admin/orchestrator/{page}/add/", form), 200)
                assert "errornote" in text


@tries(113)
def test_django_q_has_no_page_to_add_functions(place):
    shown(place.browser.get("/admin/django_q/schedule/add/"), 404)
