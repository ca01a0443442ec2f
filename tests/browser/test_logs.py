"""Logs of pages in a real browser, printed by a node over a real link."""

import re

import pytest
from playwright.sync_api import expect

from orchestrator.lifecycle import Observed
from orchestrator.models import Job
from tests import rows
from tests.browser.printing import Printing
from tests.nodes.links import joined

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]


@pytest.fixture
def node(address):
    """A node that prints what the test says, and the row of it."""
    row, credential = joined()
    node = Printing(address, credential)
    node.row = row
    yield node
    node.close()


def at_work(node, name="talks", count=1):
    job = rows.job(name=name, count=count)
    Job.objects.filter(pk=job.pk).update(state="running", tally={"running": count})
    return [
        rows.execution(job, node.row, slot=slot, observed=Observed.RUNNING, cpu=0, memory=0).pk
        for slot in range(count)
    ]


def of_stdout(node):
    return [it for it in node.asked if it.stream == "stdout"]


def shown(page):
    return page.locator(".log-body").text_content()


def lines(first, last):
    return "".join(f"line {number:06d} of what it prints\n" for number in range(first, last))


def test_twelve_open_logs_and_the_list_of_jobs_are_all_alive(page, node):
    executions = at_work(node, count=12)
    pages = [page] + [page.context.new_page() for _ in executions[1:]]
    for it, execution in zip(pages, executions, strict=True):
        node.print(execution, f"{execution} begins\n")
        it.goto(f"/executions/{execution}/")
        expect(it.locator(".log-body")).to_contain_text("begins")
    other = page.context.new_page()
    other.goto("/jobs/")
    expect(other.locator("tbody th")).to_have_text(["talks"])
    expect(other.locator("#pill")).to_have_attribute("data-state", "live")
    for it, execution in zip(pages, executions, strict=True):
        node.print(execution, "and goes on\n")
        expect(it.locator(".log-body")).to_have_text(f"{execution} begins\nand goes on\n")
        expect(it.locator("#pill")).to_have_attribute("data-state", "live")


@pytest.fixture
def links(page):
    """The sockets of the page, the newest last, to be closed by the test."""
    links = []

    def route(ws):
        server = ws.connect_to_server()
        links.append(ws)
        server.on_message(ws.send)

    page.route_web_socket(re.compile("/ws/live/"), route)
    return links


def test_a_log_goes_on_where_the_socket_broke(page, node, links):
    (execution,) = at_work(node)
    text = lines(0, 500) + "ä€😀" * 50 + "\n"
    node.print(execution, text)
    page.goto(f"/executions/{execution}/")
    expect(page.locator(".log-body")).to_contain_text("😀\n")
    for number in range(3):
        # In the middle of a character: the rest of it comes after the break.
        node.print(execution, f"{number} ".encode() + "€".encode()[:2])
        expect(page.locator(".log-body")).to_contain_text(f"{number} ")
        links[-1].close()
        expect(page.locator(".log-note")).to_have_text("the stream broke off, trying again")
        node.print(execution, "€".encode()[2:] + f" after {number}\n".encode())
        text += f"{number} € after {number}\n"
        expect(page.locator(".log-body")).to_contain_text(f"€ after {number}\n")
        assert shown(page) == text
    assert all(it.offset > 0 for it in of_stdout(node)[1:])


def test_no_byte_is_lost_or_repeated_where_the_socket_breaks_amid_printing(page, node, links):
    (execution,) = at_work(node)
    page.goto(f"/executions/{execution}/")
    node.print(execution, "begins\n")
    expect(page.locator(".log-body")).to_have_text("begins\n")  # Else it begins with a tail.
    text = "".join(f"{number} ä€😀 " + "x" * (number % 97) + "\n" for number in range(4_000))
    log = text.encode()
    for begin in range(0, len(log), 7_001):
        node.print(execution, log[begin : begin + 7_001])
        if begin // 7_001 in (5, 15, 25):
            links[-1].close()
            expect(page.locator("#pill")).to_have_attribute("data-state", "polling")
            expect(page.locator("#pill")).to_have_attribute("data-state", "live")
    expect(page.locator(".log-body")).to_contain_text("3999 ä€😀")
    assert shown(page) == "begins\n" + text
    assert len(links) == 4


def test_the_beginning_is_fetched_when_it_is_scrolled_to(page, node):
    (execution,) = at_work(node)
    text = lines(0, 12_000)
    node.print(execution, text)
    page.goto(f"/executions/{execution}/")
    body, cut = page.locator(".log-body"), page.locator(".log-cut")
    expect(body).to_contain_text("line 011999")
    first = shown(page)
    assert len(first) <= 65_536
    assert text.endswith(first)
    assert first.startswith("line ")
    missing = len(text) - len(first)
    expect(cut).to_contain_text(f"The first {missing:,} bytes of stdout are not shown.")
    held = len(first)
    while held < len(text):
        body.evaluate("body => { body.scrollTop = 0 }")
        page.wait_for_function(
            "held => document.querySelector('.log-body').textContent.length > held", arg=held
        )
        assert body.evaluate("body => body.scrollTop") > 0  # What was at the top still is.
        held = len(shown(page))
        assert text.endswith(shown(page))
    assert shown(page) == text
    expect(cut).to_be_hidden()
    assert {it.follow for it in of_stdout(node)[1:]} == {False}


def test_who_reads_further_up_is_left_there_while_more_is_printed(page, node):
    (execution,) = at_work(node)
    node.print(execution, lines(0, 1_000))
    page.goto(f"/executions/{execution}/")
    body = page.locator(".log-body")
    expect(body).to_contain_text("line 000999")
    body.evaluate("body => { body.scrollTop = 2000 }")
    expect(page.locator("[data-log-follow]")).not_to_be_checked()
    body.evaluate(
        "body => getSelection().setBaseAndExtent(body.firstChild, 5, body.firstChild, 11)"
    )
    node.print(execution, lines(1_000, 3_000))
    expect(body).to_contain_text("line 002999")
    assert body.evaluate("body => body.scrollTop") == 2000
    assert page.evaluate("getSelection().toString()") == "000000"
    page.locator("[data-log-follow]").check()
    node.print(execution, "the end\n")
    expect(body).to_contain_text("the end")
    assert body.evaluate("b => b.scrollTop + b.clientHeight >= b.scrollHeight - 4")


def test_who_has_no_socket_is_told_and_led_to_the_whole_output(page, node):
    (execution,) = at_work(node)
    node.print(execution, "said\n")
    page.route_web_socket(re.compile("/ws/live/"), lambda ws: ws.close())
    page.goto(f"/executions/{execution}/")
    cut = page.locator(".log-cut")
    expect(cut).to_contain_text("While the socket is down nothing new is shown here.")
    expect(cut.get_by_role("link", name="stdout")).to_be_visible()


def test_a_hidden_page_follows_nothing_after_a_while_and_goes_on_when_it_is_seen(
    page, node, eventually
):
    def turn(hidden):
        page.evaluate(
            """hidden => {
              Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    (execution,) = at_work(node)
    page.clock.install()
    node.print(execution, "seen\n")
    page.goto(f"/executions/{execution}/")
    expect(page.locator(".log-body")).to_have_text("seen\n")
    turn(True)
    page.clock.run_for(31_000)
    eventually(lambda: not node.watching)
    node.print(execution, "unseen\n")
    turn(False)
    expect(page.locator(".log-body")).to_have_text("seen\nunseen\n")
    assert of_stdout(node)[-1].offset == len("seen\n")


def test_a_long_log_is_cut_at_its_beginning_and_says_so(page, node, eventually):
    (execution,) = at_work(node)
    page.goto(f"/executions/{execution}/")
    eventually(lambda: len(node.watching) == 2)
    text = lines(0, 40_000)
    node.print(execution, text)
    body, cut = page.locator(".log-body"), page.locator(".log-cut")
    expect(body).to_contain_text("line 039999")
    left = shown(page)
    assert len(left) <= 400_000
    assert text.endswith(left)
    assert left.startswith("line ")
    expect(cut).to_contain_text(
        f"The first {len(text) - len(left):,} bytes of stdout are not shown."
    )
    expect(cut.get_by_role("link", name="stdout")).to_have_attribute(
        "href", f"/api/v1/executions/{execution}/logs?stream=stdout"
    )


def test_orders_to_a_terminal_are_left_out_also_when_they_are_cut(page, node):
    (execution,) = at_work(node)
    page.goto(f"/executions/{execution}/")
    node.print(execution, "a\x1b[3")
    expect(page.locator(".log-body")).to_have_text("a")
    node.print(execution, "1mred\x1b[0m\nthe end\n")
    expect(page.locator(".log-body")).to_have_text("ared\nthe end\n")
    expect(page.locator(".log-cut")).to_be_hidden()


def test_both_streams_are_shown_and_told_apart_or_only_one_is_followed(page, node, eventually):
    (execution,) = at_work(node)
    node.print(execution, "said\n")
    page.goto(f"/executions/{execution}/")
    body, complaints = page.locator(".log-body"), page.locator(".log-body .log-err")
    expect(body).to_have_text("said\n")
    node.print(execution, "complained", stream="stderr")
    expect(complaints).to_have_text("complained")
    node.print(execution, "went on\n")
    expect(body).to_have_text("said\ncomplained\nwent on\n")
    page.get_by_label("stderr").check(force=True)
    expect(body).to_have_text("complained")
    eventually(lambda: [it.stream for it in node.watching.values()] == ["stderr"])
    page.goto("/jobs/")
    eventually(lambda: not node.watching)
    page.go_back()
    expect(body).to_contain_text("went on\n")


def test_the_beginnings_of_both_streams_are_fetched(page, node):
    (execution,) = at_work(node)
    said, complained = lines(0, 4_000), lines(4_000, 8_000)
    node.print(execution, said)
    node.print(execution, complained, stream="stderr")
    page.goto(f"/executions/{execution}/")
    body, cut = page.locator(".log-body"), page.locator(".log-cut")
    expect(body).to_contain_text("line 003999")
    expect(body).to_contain_text("line 007999")
    expect(cut).to_contain_text("bytes of stdout and")
    expect(cut).to_contain_text("bytes of stderr are not shown.")
    for length in (len(said) + 60_000, len(said) + len(complained)):
        body.evaluate("body => { body.scrollTop = 0 }")
        page.wait_for_function(
            "length => document.querySelector('.log-body').textContent.length >= length",
            arg=length,
        )
    expect(cut).to_be_hidden()
    assert (
        body.evaluate(
            "body => [...body.querySelectorAll('.log-err')].map((it) => it.textContent).join('')"
        )
        == complained
    )
