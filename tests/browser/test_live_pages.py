"""Real pages in a real browser, served by a real Daphne, while the database changes beneath."""

import re

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from nodes import hints
from nodes.models import Node
from orchestrator.lifecycle import Observed
from orchestrator.models import Job
from tests import rows

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]


def pill(page, state):
    expect(page.locator("#pill")).to_have_attribute("data-state", state, timeout=15_000)


def test_what_changes_is_seen_without_a_reload(page, running):
    job, execution = running
    page.goto(f"/jobs/{job.pk}/")
    pill(page, "live")
    page.evaluate("window.stayed = true")
    rows.move(execution, Observed.COMPLETED)
    Job.objects.filter(pk=job.pk).update(tally={"completed": 1}, reason="1 of 2 completed")
    hints.after_commit(hints.Hint.VIEW)
    row = page.locator(f"#x-{execution.pk}")
    expect(row.locator(".badge")).to_have_text("completed")
    expect(page.locator(".head-sentence")).to_contain_text("1 of 2 completed")
    assert page.evaluate("window.stayed") is True


def test_what_somebody_is_doing_is_not_disturbed(page, running):
    job, _ = running
    page.goto(f"/jobs/{job.pk}/")
    pill(page, "live")
    page.locator(".head-acts summary").click()
    reason = page.locator("[name=reason]")
    expect(reason).to_be_focused()
    reason.press_sequentially("because it")
    Job.objects.filter(pk=job.pk).update(reason="something else")
    hints.after_commit(hints.Hint.VIEW)
    expect(page.locator(".head-sentence")).to_contain_text("something else")
    reason.press_sequentially(" loops")
    expect(reason).to_have_value("because it loops")
    reason.press("Enter")
    expect(page.locator(".toast")).to_have_text("Stop of word-count requested.")
    expect(page.locator(".head-sentence")).to_contain_text("because it loops")


def test_without_a_socket_the_page_polls_says_so_and_comes_back(page, running):
    job, _ = running
    cut = {"now": False}

    def route(ws):
        if cut["now"]:
            ws.close()
            return
        server = ws.connect_to_server()
        cut["link"] = ws
        server.on_message(ws.send)

    page.route_web_socket(re.compile("/ws/live/"), route)
    page.goto(f"/jobs/{job.pk}/")
    pill(page, "live")
    cut["now"] = True
    cut["link"].close()
    pill(page, "polling")
    expect(page.locator("#pill")).to_have_text("polling 10 s")
    Job.objects.filter(pk=job.pk).update(reason="seen by polling")
    expect(page.locator(".head-sentence")).to_contain_text("seen by polling", timeout=20_000)
    cut["now"] = False
    page.locator("#pill").click()
    pill(page, "live")


def test_who_cannot_reach_the_server_is_told_since_when(page, running):
    page.clock.install()
    page.goto("/")
    pill(page, "live")
    page.context.set_offline(True)
    page.clock.fast_forward(60_000)
    page.clock.run_for(3_000)
    pill(page, "stale")
    expect(page.locator("#pill")).to_contain_text("stale since")
    page.complaints.clear()  # It complained of the network, and rightly.


def test_who_signs_out_elsewhere_is_told(page, running):
    page.goto("/")
    pill(page, "live")
    User.objects.update(is_active=False)
    page.locator("#pill").click()
    expect(page.locator("#pill")).to_have_text("signed out: reload to sign in")
    page.complaints.clear()


def test_nothing_on_the_overview_leaves_its_card_at_a_common_width(page):
    for number in range(2):
        rows.job(name=f"nightly-{number}", count=2)
    reason = "waiting for capacity: 2 of 2 slots; short of 10m cpu on the best of 2 nodes"
    Job.objects.update(state="queued", reason=reason)
    rows.node(name="c-01", memory=2**40 - 1)
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto("/")
    pill(page, "live")
    said = page.locator("main .card :is(.capacity-say, .c-when)").all()
    edges = [
        it.evaluate("it => [it, it.closest('.card')].map(e => e.getBoundingClientRect().right)")
        for it in said
    ]
    assert len(edges) == 5
    assert [edge for edge in edges if edge[0] > edge[1]] == []


def test_a_filter_is_the_address_and_needs_no_reload(page):
    for name in ("etl", "render"):
        rows.job(name=name)
    page.goto("/jobs/")
    pill(page, "live")
    page.keyboard.press("/")
    page.keyboard.type("etl")
    expect(page.locator("tbody th")).to_have_text(["etl"])
    assert page.url.endswith("/jobs/?text=etl")
    page.reload()
    expect(page.locator("[name=text]")).to_have_value("etl")


def test_keys_lead_to_the_sections_and_to_help(page):
    page.goto("/")
    page.keyboard.press("g")
    page.keyboard.press("n")
    page.wait_for_url("**/nodes/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_escape_gives_the_focus_back_to_what_opened_the_sheet(page, running):
    job, _ = running
    page.goto(f"/jobs/{job.pk}/")
    pill(page, "live")
    opener = page.locator(".head-acts summary")
    opener.click()
    expect(page.locator("[name=reason]")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("[name=reason]")).to_be_hidden()
    expect(opener).to_be_focused()


def test_a_long_name_leaves_room_for_what_happens(page):
    name = "a-name-that-" + "goes-on-" * 6 + "xyz"
    job, node = rows.job(name=name), rows.node(name="n" * 60)
    rows.execution(job, node, observed=Observed.RUNNING)
    page.set_viewport_size({"width": 1440, "height": 900})
    for address, selector in (("/jobs/", "tbody th a"), (f"/nodes/{node.pk}/", "tbody td a")):
        page.goto(address)
        pill(page, "live")
        link = page.locator(selector).first
        expect(link).to_have_attribute("title", name)
        assert link.bounding_box()["width"] < 300
        hidden = "e => e.scrollWidth - e.clientWidth"
        assert page.locator(".scroll").first.evaluate(hidden) == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_node_is_approved_on_a_phone(browser, page):
    node = rows.node(name="gpu-01", approval="pending")
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto("/")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator(".toast")).to_have_text("gpu-01 is approved.")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    assert Node.objects.get(pk=node.pk).approval == "approved"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_every_page_keeps_the_content_policy_in_both_themes(page, running):
    job, execution = running
    for path in (
        *("/", "/jobs/", f"/jobs/{job.pk}/", f"/jobs/{job.pk}/definition/"),
        *(f"/executions/{execution.pk}/", "/nodes/", "/nodes/c-01/", "/queue/?state=ready"),
    ):
        page.goto(path)
        pill(page, "live")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_signing_in_leads_to_the_overview(browser, address):
    User.objects.create_superuser("ana", password="muster-ana-1")
    context = browser.new_context(base_url=address)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Name").fill("ana")
    page.get_by_label("Password").fill("muster-ana-1")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/")
    pill(page, "live")
    context.close()
