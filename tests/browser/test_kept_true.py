"""An open page shows what its address asks for, whatever was asked for before."""

import pytest
from playwright.sync_api import expect

from nodes import hints
from orchestrator.models import Job
from tests import rows
from tests.browser.comparing import shows_what_its_address_gives
from tests.browser.test_live_pages import pill

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]


LOOK = "import('/static/js/live.js').then(({ refresh }) => refresh('another.1'))"


def change(job, reason):
    """Change what the list says of *job*, and tell the pages."""
    Job.objects.filter(pk=job.pk).update(state="queued", reason=reason)
    hints.after_commit(hints.Hint.VIEW)


def test_a_filter_that_is_taken_back_shows_again_what_it_showed(page):
    for name in ("etl", "render"):
        rows.job(name=name)
    page.goto("/jobs/")
    pill(page, "live")
    with page.expect_response("**/jobs/?regions=**"):  # A look of its own without a filter.
        page.locator("#pill").click()
    page.keyboard.press("/")
    page.keyboard.type("etl")
    expect(page.locator("tbody th")).to_have_text(["etl"])
    for _ in "etl":
        page.keyboard.press("Backspace")
    expect(page.locator("tbody th")).to_have_count(2)
    assert page.url.endswith("/jobs/")


def test_a_look_that_a_filter_overtook_does_not_count(page):
    for name in ("etl", "render"):
        rows.job(name=name)
    page.goto("/jobs/")
    pill(page, "live")
    held = []
    page.route("**/jobs/?regions=**", lambda route: held.append(route), times=1)  # noqa: PLW0108 - Playwright marks it.
    with page.expect_request("**/jobs/?regions=**"):
        page.locator("#pill").click()
    page.keyboard.press("/")
    page.keyboard.type("etl")
    page.wait_for_url("**text=etl")
    held[0].continue_()
    expect(page.locator("tbody th")).to_have_text(["etl"])


def test_back_to_before_a_filter_shows_again_what_was_shown_there(page):
    for name in ("etl", "render"):
        rows.job(name=name)
    page.goto("/jobs/?state=pending")
    pill(page, "live")
    page.evaluate("location.hash = 'main'")  # As the link does that skips to the content.
    page.keyboard.press("/")
    page.keyboard.type("etl")
    expect(page.locator("tbody th")).to_have_text(["etl"])
    page.go_back()
    expect(page.locator("[name=text]")).to_have_value("")
    shows_what_its_address_gives(page)
    expect(page.locator("tbody th")).to_have_count(2)


def test_a_filter_that_is_typed_before_the_script_runs_counts(page):
    for name in ("etl", "render"):
        rows.job(name=name)
    held = []
    page.route("**/js/main.js", lambda it: held.append(it), times=1)  # noqa: PLW0108 - as above.
    with page.expect_request("**/js/main.js"):
        page.goto("/jobs/", wait_until="commit")
    page.locator("[name=text]").fill("etl")
    held[0].continue_()
    page.wait_for_url("**/jobs/?text=etl")
    shows_what_its_address_gives(page)
    expect(page.locator("tbody th")).to_have_text(["etl"])


def test_a_page_looks_at_once_when_the_network_is_back(page):
    page.goto("/jobs/")
    pill(page, "live")
    page.context.set_offline(True)
    page.locator("#pill").click()
    pill(page, "stale")
    rows.job(name="unheard")
    page.context.set_offline(False)
    shows_what_its_address_gives(page)
    page.complaints.clear()


def test_a_page_outlives_its_server_and_misses_nothing(page, web):
    job = rows.job(name="etl")
    page.goto("/jobs/")
    pill(page, "live")
    web.stop()
    change(job, "changed while nobody served")
    web.start()
    shows_what_its_address_gives(page, within=20)
    page.complaints.clear()


@pytest.mark.parametrize("typed", ["/jobs/?text=a-b&note=x%20y", "/jobs/?text=a-b&note=*,~"])
def test_an_address_typed_by_hand_is_kept_true(page, typed):
    job = rows.job(name="a-b")
    page.goto(typed)
    pill(page, "live")
    change(job, "seen by who typed it")
    expect(page.locator("tbody tr").first).to_contain_text("seen by who typed it", ignore_case=True)


def test_an_older_page_is_kept_true(page):
    made = [rows.job(name=f"j-{number:02d}") for number in range(55)]
    page.goto("/jobs/")
    pill(page, "live")
    page.locator("a[rel=next]").click()
    page.wait_for_url("**before=**")
    pill(page, "live")
    change(made[0], "seen on the older page")
    shown = page.locator(f"#job-{made[0].pk}")
    expect(shown).to_contain_text("seen on the older page", ignore_case=True)


def test_the_row_chosen_by_keys_stays_chosen(page):
    one, _ = rows.job(name="one"), rows.job(name="two")
    page.goto("/jobs/")
    pill(page, "live")
    page.keyboard.press("j")
    page.keyboard.press("j")
    chosen = page.locator("tr[data-at]")
    expect(chosen).to_have_attribute("id", f"job-{one.pk}")
    change(one, "changed beneath it")
    expect(chosen).to_contain_text("changed beneath it", ignore_case=True)
    rows.job(name="three")
    hints.after_commit(hints.Hint.VIEW)
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(chosen).to_have_attribute("id", f"job-{one.pk}")
    page.keyboard.press("k")
    expect(chosen).to_contain_text("two")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("two")


def test_a_page_that_grows_old_says_so_at_once(page):
    page.goto("/jobs/")
    pill(page, "live")
    sentence = "<template data-for='banner'><p class='banner'>The database is away.</p></template>"
    page.route("**/jobs/?regions=**", lambda it: it.fulfill(status=503, body=sentence), times=1)
    page.locator("#pill").click()
    expect(page.get_by_text("The database is away.")).to_be_visible()
    expect(page.locator("#pill")).to_contain_text("stale since")
    page.locator("#pill").click()
    pill(page, "live")
    expect(page.get_by_text("The database is away.")).to_have_count(0)
    page.complaints.clear()


def test_an_open_page_does_not_grow_with_what_it_has_shown(page, eventually):
    jobs = [rows.job(name=f"j-{number}") for number in range(20)]
    page.goto("/jobs/")
    pill(page, "live")
    browser = page.context.new_cdp_session(page)

    def nodes():
        browser.send("HeapProfiler.collectGarbage")
        return browser.send("Memory.getDOMCounters")["nodes"]

    def show(rounds):
        for number in range(rounds):
            job = jobs[number % 20]
            Job.objects.filter(pk=job.pk).update(state="queued", reason=f"{rounds}.{number}")
            page.evaluate(LOOK)
        expect(page.locator(f"#job-{job.pk}")).to_contain_text(f"{rounds}.{number}")

    show(20)
    before = nodes()
    show(60)
    # What was drawn last may still be in somebody's hands at this moment.
    eventually(lambda: nodes() < before * 1.2)


def test_who_acts_after_signing_out_is_asked_to_sign_in(page):
    rows.node(name="gpu-01", approval="pending")
    page.goto("/nodes/")
    pill(page, "live")
    away = {"status": 302, "headers": {"Location": "/accounts/login/"}}
    page.route("**/approve", lambda it: it.fulfill(**away))
    page.get_by_role("button", name="Approve").first.click()
    expect(page.locator(".toast")).to_have_text("You are signed out: sign in and try again.")
