import re
from copy import copy
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard import rendering
from nodes.models import NodeHeartbeat
from orchestrator.explain.formatting import clock
from orchestrator.models import (
    ClusterSetting,
    Evaluation,
    Execution,
    Job,
    RemovedHistory,
    WorkerProcess,
    journal,
    periods,
)
from tests import rows

pytestmark = pytest.mark.django_db

MOST_QUERIES = 12
NASTY = "<script>alert('x')</script>"


def addresses(scene):
    execution = Execution.objects.filter(observed="running").first()
    ended = Execution.objects.filter(job=scene["running"], observed="completed").first()
    return [
        "/",
        "/jobs/",
        "/jobs/?state=failed",
        "/jobs/?text=etl&state=completed",
        *(f"/jobs/{scene[name].pk}/" for name in ("running", "failed", "blocked", "large")),
        f"/jobs/{scene['running'].name}/definition/",
        f"/executions/{execution.pk}/",
        f"/executions/{ended.pk}/",
        "/nodes/",
        "/nodes/?text=edge",
        f"/nodes/{scene['nodes'][0].pk}/",
        "/nodes/edge-3/",
        "/secrets/",
        "/queue/",
        *(f"/queue/?state={name}" for name in ("ready", "leased", "waiting", "blocked", "dead")),
        f"/evaluations/{Evaluation.objects.filter(record__isnull=False).first().pk}/",
        f"/evaluations/{Evaluation.objects.filter(record__isnull=True).first().pk}/",
    ]


def test_every_page_is_drawn_with_few_queries_and_no_inline_style(
    scene, operator, django_assert_max_num_queries
):
    for address in addresses(scene):
        with django_assert_max_num_queries(MOST_QUERIES):
            answer = operator.get(address)
        assert answer.status_code == 200, address
        text = answer.content.decode()
        assert not re.search(r"<[^>]+\sstyle=|<style|<script(?![^>]*\ssrc=)|\son\w+=", text), (
            address
        )


def test_pages_of_an_empty_cluster_say_what_will_appear(operator):
    for address, said in (
        ("/", "No job is stuck, none failed in the last hour."),
        ("/", "There is no node."),
        ("/jobs/", "No job has been submitted yet"),
        ("/jobs/?text=nothing", "No job matches this filter"),
        ("/nodes/", "There is no node."),
        ("/queue/", "No worker has been seen"),
    ):
        assert said in operator.get(address).content.decode(), address


def test_nobody_looks_without_signing_in(scene, client):
    for address in addresses(scene):
        answer = client.get(address)
        assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/accounts/login/")


def test_a_region_asked_for_after_signing_out_says_so_in_a_word(client):
    assert client.get("/jobs/?regions=table").status_code == 401


@pytest.mark.parametrize(
    "address",
    [
        "/jobs/nothing/",
        "/jobs/00000000-0000-0000-0000-000000000000/",
        "/executions/00000000-0000-0000-0000-000000000000/",
        "/nodes/nothing/",
        "/evaluations/999999/",
        "/jobs/nothing/?regions=header",
    ],
)
def test_what_is_not_there_is_a_404_with_a_sentence(operator, address):
    answer = operator.get(address)
    assert answer.status_code == 404
    if "regions" not in address:
        assert "There is no" in answer.content.decode()


def test_a_job_is_found_by_its_name_too(scene, operator):
    assert operator.get("/jobs/word-count/").context["page"].job == scene["running"]


def test_what_users_wrote_is_text(operator):
    job = Job.objects.create(name=NASTY, type="batch", reason=NASTY)
    rows.version(job, {"name": NASTY, NASTY: [NASTY]}, actor=NASTY)
    node = rows.node(name=f"n{NASTY}", labels={NASTY: NASTY}, attributes={NASTY: NASTY})
    made = rows.execution(job, node, observed="running")
    Execution.objects.filter(pk=made.pk).update(message=NASTY, hint=NASTY)
    Evaluation.objects.create(
        job=job, type="batch", priority=1, outcome=NASTY, triggers={NASTY: 1},
        record={"known": 1, "nearest": [{"name": NASTY, "refusals": [NASTY]}],
                "unready": {NASTY: 1}, "ready": {"pass": 0}},
    )  # fmt: skip
    for address in (
        *("/", "/jobs/", f"/jobs/{job.pk}/", f"/jobs/{job.pk}/definition/"),
        *(f"/executions/{made.pk}/", "/nodes/", f"/nodes/{node.pk}/", "/queue/"),
        f"/evaluations/{Evaluation.objects.first().pk}/",
    ):
        text = operator.get(address).content.decode()
        assert NASTY not in text, address
        assert "&lt;script&gt;" in text, address


def test_lists_go_on_where_the_page_before_ended(operator):
    for number in range(53):
        rows.job(name=f"job.{number:02d}")
    first = operator.get("/jobs/").content.decode()
    older = re.search(r'rel="next" href="([^"]+)"', first)[1].replace("&amp;", "&")
    rows.job(name="newcomer")
    second = operator.get(older).content.decode()
    names = [re.findall(r">(job\.\d\d|newcomer)</a>", text) for text in (first, second)]
    assert [len(page) for page in names] == [50, 3]
    assert sorted(names[0] + names[1]) == [f"job.{n:02d}" for n in range(53)]


@pytest.mark.parametrize("before", ["x", "2026-01-01", "2026-01-01T00:00:00+00:00~x", "~"])
def test_a_broken_place_in_a_list_is_its_beginning(scene, operator, before):
    assert "word-count" in operator.get("/jobs/", {"before": before}).content.decode()


def test_regions_come_alone_and_a_repeat_costs_nothing(scene, operator):
    address = f"/jobs/{scene['running'].pk}/?regions=header,slots,nonsense"
    first = operator.get(address)
    text = first.content.decode()
    assert re.findall(r'<template data-for="(\w+)">', text) == ["header", "slots"]
    for condition in (first["ETag"], f"W/{first['ETag']}", f'"other", {first["ETag"]}', "*"):
        again = operator.get(address, headers={"If-None-Match": condition})
        assert (again.status_code, again.content) == (304, b""), condition


def test_a_page_is_kept_by_nobody_and_a_region_by_nobody_but_its_viewer(scene, operator):
    for address, how in (("/", "no-store"), ("/?regions=tiles", "no-cache")):
        assert set(operator.get(address)["Cache-Control"].split(", ")) == {"private", how}


def test_no_proxy_holds_a_log_back(scene, operator):
    execution = Execution.objects.filter(observed="running").first()
    assert operator.get(f"/api/v1/executions/{execution.pk}/logs")["X-Accel-Buffering"] == "no"


def test_a_change_gives_a_region_another_tag(scene, operator):
    address = "/jobs/?regions=table"
    first = operator.get(address)
    Job.objects.filter(pk=scene["blocked"].pk).update(reason="short of patience")
    rendering.render_cache = rendering.RenderCache()
    again = operator.get(address, headers={"If-None-Match": first["ETag"]})
    assert again.status_code == 200
    assert "Short of patience" in again.content.decode()


def test_fifty_viewers_cost_what_one_does(scene, operator, viewer):
    others = [operator, *(_copy(operator) for _ in range(3))]
    address = "/?regions=tiles,attention,jobs"
    operator.get(address)
    for other in others:
        with CaptureQueriesContext(connection) as queries:
            assert other.get(address).status_code == 200
        assert len(queries) <= 2  # The session and its user.


def test_shared_regions_carry_each_viewers_own_token(scene):
    one, other = (_signed_in(name) for name in ("eva", "tom"))
    texts = [client.get("/nodes/?regions=table").content.decode() for client in (one, other)]
    tokens = [re.search(r'csrfmiddlewaretoken" value="([^"]+)"', text)[1] for text in texts]
    assert rendering.ANYBODY not in texts[0] + texts[1]
    assert tokens[0] != tokens[1]


def test_whoever_may_only_look_sees_why_the_buttons_are_dead(scene, viewer, keeper):
    sight = viewer.get("/nodes/").content.decode()
    assert 'disabled title="You may not: that takes the role operator for all namespaces"' in sight
    assert "You may not" not in keeper.get("/nodes/").content.decode()


def test_a_button_has_one_title_and_no_sheet_opens_for_who_may_only_look(scene, viewer, operator):
    job, node = scene["running"], scene["nodes"][0]
    for address in (f"/jobs/{job.pk}/", f"/nodes/{node.pk}/", "/queue/", "/nodes/", "/secrets/"):
        sight = viewer.get(address).content.decode()
        assert not re.search(r'<button[^>]*title="[^"]*"[^>]* title=', sight), address
        assert 'class="ask"' not in sight, address
        assert "You may not: " in sight, address
    assert 'class="ask"' in operator.get(f"/jobs/{job.pk}/").content.decode()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/jobs/?state=bogus", "No job is ever &#x27;bogus&#x27;: the states are pending, queued,"),
        ("/jobs/?stat=failed", "This page knows no parameter &#x27;stat&#x27;."),
        ("/queue/?state=bogus", "The queue has no state &#x27;bogus&#x27;: they are ready,"),
        ("/jobs/word-count/?slot=first", "slot is a number, not &#x27;first&#x27;."),
        ("/jobs/word-count/definition/?version=x", "version is a number, not &#x27;x&#x27;."),
        ("/?pages=2", "This page knows no parameter &#x27;pages&#x27;."),
    ],
)
def test_what_an_address_asks_for_in_vain_is_said(scene, operator, address, said):
    assert said in operator.get(address).content.decode()
    assert said in operator.get(f"{address}&regions=banner").content.decode()


def test_addresses_that_pages_link_to_ask_for_nothing_in_vain(scene, operator):
    for address in addresses(scene):
        text = operator.get(address).content.decode()
        assert "knows no parameter" not in text, address
        for link in set(re.findall(r'href="(\?[^"]+|/jobs/[^"]*\?[^"]+)"', text)):
            found = operator.get(address.split("?")[0] + link if link[0] == "?" else link)
            assert "knows no parameter" not in found.content.decode(), link


def test_the_beginning_of_an_id_finds_what_has_it(scene, operator):
    job, node = scene["running"], scene["nodes"][0]
    execution = Execution.objects.filter(observed="running").first()
    for kind, it in (("jobs", job), ("nodes", node), ("executions", execution)):
        assert operator.get(f"/{kind}/{str(it.pk)[:13]}/").status_code == 200, kind
    for kind, it in (("jobs", job), ("nodes", node)):
        assert it.name in operator.get(f"/{kind}/?text={str(it.pk)[:8]}").content.decode(), kind


def test_a_beginning_that_two_ids_have_finds_neither(operator):
    for last in "12":
        Job.objects.create(
            id=f"abcdef00-0000-4000-8000-00000000000{last}", name=f"j{last}", type="batch"
        )
    assert operator.get("/jobs/abcdef00/").status_code == 404
    assert operator.get("/jobs/abcdef00-0000-4000-8000-000000000001/").status_code == 200


def test_what_a_silent_node_holds_is_not_said_to_run(scene, operator):
    node, job = scene["nodes"][0], scene["running"]
    seen = timezone.now() - timedelta(seconds=53)
    NodeHeartbeat.objects.filter(node=node).update(seen_at=seen)
    page = operator.get(f"/jobs/{job.pk}/").content.decode()
    assert f"Nothing is heard of {node.name}, which holds 2 executions of this job" in page
    assert f'the last word came <time datetime="{seen.isoformat()}"' in page
    assert "<b>Node silent.</b>" in page
    held = Execution.objects.filter(node=node, job=job, observed="running").first()
    head = operator.get(f"/executions/{held.pk}/?regions=header").content.decode()
    assert f"So it was when {node.name} was last heard of, <time" in head


def test_a_job_that_was_run_again_says_when_it_was_submitted_too(operator):
    job = rows.job()
    Job.objects.filter(pk=job.pk).update(round=2)
    head = operator.get(f"/jobs/{job.pk}/?regions=header").content.decode()
    assert re.search(r"<span>submitted <time[^>]*>[^<]*</time></span><span>run again <time", head)


def test_a_node_that_drains_says_that_what_runs_there_goes_on(scene, operator):
    text = operator.get("/nodes/c-06/").content.decode()
    assert "it gets no new work; what runs there goes on to its end" in text
    assert "moves away" not in text


def test_slots_of_a_stopped_job_were_stopped_and_lead_to_what_ran(scene, operator):
    slots = operator.get(f"/jobs/{scene['stopped'].pk}/?regions=slots").content.decode()
    assert "slot 0: cancelled" in slots
    assert "not run" not in slots


def test_capacity_is_over_the_nodes_that_it_counts(operator):
    rows.node(name="here")
    rows.lose(rows.node(name="gone"))
    rows.node(name="new", approval="pending")
    text = operator.get("/?regions=capacity").content.decode()
    assert "allocated, over 1 node<" in text
    assert "of 4 cores" in text


def test_every_page_says_that_scheduling_is_paused(scene, operator):
    ClusterSetting.objects.update_or_create(
        pk=1,
        defaults={
            "scheduling_paused": True, "paused_by": "user:ben", "paused_reason": "db move",
        },
    )  # fmt: skip
    for address in ("/", "/jobs/", "/nodes/", "/queue/"):
        text = operator.get(address).content.decode()
        assert "Scheduling is paused" in text
        assert "by ben" in text
        assert "db move" in text


def test_the_theme_is_there_from_the_first_byte(operator):
    operator.cookies["theme"] = "dark"
    assert '<html lang="en" data-theme="dark">' in operator.get("/").content.decode()
    operator.cookies["theme"] = '"><script>'
    assert "data-theme" not in operator.get("/").content.decode().split("<head>")[0]


def test_signing_in_has_a_page_of_its_own(client, db):
    assert "Sign in" in client.get("/accounts/login/").content.decode()
    wrong = client.post("/accounts/login/", {"username": "ana", "password": "no"})
    assert "do not belong together" in wrong.content.decode()


def _copy(client: Client) -> Client:
    other = Client(headers={"host": "localhost"})
    other.cookies = client.cookies
    return other


def _signed_in(name: str) -> Client:
    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.create_superuser(name))
    return client


def test_what_is_odd_about_a_specification_is_on_the_page_until_the_job_has_ended(operator):
    job = rows.job(constraints=["zone = a", "zone = b"])
    page = f"/jobs/{job.pk}/"
    assert "exclude each other" in operator.get(page).content.decode()
    Job.objects.update(state="failed")
    assert "exclude each other" not in operator.get(page).content.decode()


def many_evaluations(job, node, n):
    made = Evaluation(job=job, type="batch", priority=50, state="complete")
    Evaluation.objects.bulk_create([copy(made) for _ in range(n)])


def many_events(job, node, n):
    journal.record([journal.fact("job", "x", "it", job=job.pk, node=node.pk) for _ in range(n)])


def many_versions(job, node, n):
    for _ in range(n - 1):
        rows.version(job, {})


def many_in_the_queue(job, node, n):
    for _ in range(n):
        rows.asked(rows.job())


def many_attempts(job, node, n):
    for attempt in range(1, n + 1):
        rows.execution(job, node, attempt=attempt, observed="failed")


def many_workers(job, node, n):
    for number in range(n):
        WorkerProcess.objects.create(name=f"w-{number}", host="h", pid=number + 1)


@pytest.mark.parametrize(
    ("make", "most", "address", "said"),
    [
        (many_evaluations, 20, "/jobs/{job}/", "/api/v1/jobs/{job}/evaluations"),
        (many_evaluations, 25, "/queue/", "/api/v1/evaluations"),
        (many_evaluations, 10, "/evaluations/{evaluation}/", "/api/v1/jobs/{job}/evaluations"),
        (many_events, 25, "/jobs/{job}/", "/admin/orchestrator/event/?job_id={job}"),
        (many_events, 25, "/nodes/{node}/", "/admin/orchestrator/event/?node_id={node}"),
        (many_events, 10, "/", "/admin/orchestrator/event/"),
        (many_versions, 30, "/jobs/{job}/definition/", "/api/v1/jobs/{job}/versions"),
        (many_in_the_queue, 50, "/queue/?state=ready", "/admin/orchestrator/brokerrow/"),
        (many_attempts, 50, "/executions/{execution}/", "/jobs/{job}/?slot=0"),
        (many_workers, 50, "/queue/", "the others work, too"),
    ],
)
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_list_that_is_cut_says_where_all_of_it_is(operator, make, most, address, said, is_cut):
    job, node = rows.job(), rows.node(cpu=64_000)
    make(job, node, most + is_cut)
    known = {"job": job.pk, "node": node.pk}
    known["evaluation"] = getattr(Evaluation.objects.first(), "pk", "")
    known["execution"] = getattr(Execution.objects.order_by("attempt").last(), "pk", "")
    text = operator.get(address.format(**known)).content.decode()
    found = re.search(rf"[Tt]he (newest|first) {most}[;\W].*", text)
    assert bool(found) == is_cut
    if is_cut:
        assert said.format(**known) in text


def test_jobs_that_wait_for_their_moment_say_when_the_next_one_is(operator):
    at = timezone.now() + timedelta(hours=3)
    for later in (0, 1):
        moment = at + timedelta(hours=later)
        rows.due(rows.job(), moment)
    text = operator.get("/queue/").content.decode()
    assert f'next <time datetime="{at.isoformat()}" data-until>' in text


def test_the_page_of_a_job_that_stops_explains_no_wait(scene, operator):
    """It does not start by itself when a node has room."""
    page = f"/jobs/{scene['blocked'].pk}/"
    assert "Why it waits" in operator.get(page).content.decode()
    Job.objects.filter(pk=scene["blocked"].pk).update(stop_requested=True)
    rendering.render_cache = rendering.RenderCache()
    assert "Why it waits" not in operator.get(page).content.decode()


def test_a_jobs_page_says_what_of_it_is_no_longer_kept(operator):
    job, ended = rows.job(name="old"), timezone.now() - timedelta(days=90)
    RemovedHistory.objects.create(job=job, executions=12, evaluations=1, ended_before=ended)
    rows.made(job, ended)
    text = operator.get("/jobs/old/").content.decode()
    assert f"12 executions that ended before {clock(ended)} are no longer kept." in text
    assert f"1 evaluation that ended before {clock(ended)} is no longer kept." in text
    assert f"Events before {clock(periods.begins())} are no longer kept." in text
    assert "Nothing has been recorded yet" not in text
