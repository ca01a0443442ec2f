"""At any width of a window nothing is out of reach: what is wider than its card scrolls in it."""

import pytest

from orchestrator import endpoint
from orchestrator.models import Evaluation, Execution, Job, Namespace
from tests import rows
from tests.browser.test_live_pages import pill
from tests.dashboard import scenes

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]

WIDTHS = (390, 768, 1024, 1280, 1440)

FAULTS = """
() => {
  const name = (it) => `${it.localName}.${it.className} of ${it.closest("[data-region]")?.id}`;
  const isSeen = (it) => it.checkVisibility() && !it.closest(".sr");
  const all = [...document.querySelectorAll("body *")].filter(isSeen);
  const scrollers = all.filter((it) => it.scrollWidth > it.clientWidth
    && ["auto", "scroll"].includes(getComputedStyle(it).overflowX));
  const edge = (it) => it.getBoundingClientRect().right;
  const isReached = (it) => edge(it) <= edge(it.closest(".card, main") ?? document.body) + 1
    || scrollers.some((scroller) => scroller.contains(it));
  const isHidden = (it) => getComputedStyle(it).display === "none" && !it.closest(".brief");
  const heads = innerWidth > 640 ? [...document.querySelectorAll("thead th")] : [];
  const lines = [...document.querySelectorAll(".lines")].filter(() => innerWidth <= 640)
    .map((it) => it.closest(".scroll"));
  const parts = all.filter((it) => it.matches("td, th, b, a, button, summary, .meta, .badge"));
  return [
    ...(document.documentElement.scrollWidth > innerWidth ? ["the page scrolls sideways"] : []),
    ...scrollers.filter((it) => it.tabIndex < 0 && !it.querySelector("input"))
      .map((it) => `no key reaches ${name(it)}`),
    ...lines.filter((it) => it.scrollWidth > it.clientWidth)
      .map((it) => `lines scroll: ${name(it)}`),
    ...heads.filter(isHidden).map((it) => `hidden: ${it.textContent}, ${name(it)}`),
    ...all.filter((it) => it.matches(innerWidth < 1280 ? "td.c-say"
      : "td.c-say, td.c-reason, td.c-because, .waits td")
      && (edge(it) > edge(it.closest(".card")) + 1 || it.scrollWidth > it.clientWidth + 1))
      .map((it) => `not in sight: ${name(it)}, ${it.textContent.trim().slice(0, 30)}`),
    ...parts.filter((it) => !isReached(it))
      .map((it) => `cut off: ${name(it)}, ${it.textContent.trim().slice(0, 30)}`),
  ];
}
"""
"""In a narrow window a row is a card, which has no heads."""


def test_nothing_is_out_of_reach_at_any_width(page):
    scene = scenes.scene()
    Namespace.objects.create(pk="a-namespace-with-a-long-name-" + "x" * 30)
    endpoint.put_secret("default", "database-password", "hunter2-hunter2", actor="user:ana")
    execution = Execution.objects.filter(job=scene["running"], observed="completed").first()
    evaluation = Evaluation.objects.get(record__isnull=False)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/somewhere/else/bin"
    long = rows.job(name="render-" + "long-" * 11 + "n")
    Job.objects.filter(pk=long.pk).update(state="failed", reason=f"x is not in {path}")
    Execution.objects.filter(job=scene["running"]).update(message=f"x is not in {path}")
    faults = {}
    for address in (
        *("/", "/jobs/", f"/jobs/{scene['running'].pk}/", f"/jobs/{scene['blocked'].pk}/"),
        *(f"/jobs/{scene['running'].pk}/definition/", f"/executions/{execution.pk}/"),
        *(
            "/secrets/",
            "/nodes/",
            "/nodes/c-01/",
            "/queue/?state=dead",
            f"/evaluations/{evaluation.pk}/",
        ),
    ):
        page.goto(address)
        pill(page, "live")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if found := page.evaluate(FAULTS):
                faults[address, width] = found
    assert "\n".join(f"{where}: {found}" for where, found in faults.items()) == ""
