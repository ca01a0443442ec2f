"""An open page beside the one that its address gives now: they must show the same."""

from __future__ import annotations

import difflib
import itertools
import time
from typing import Any

import pytest
from playwright.sync_api import Error

WITHIN, LOOKS = 6.0, 12
"""Seconds for a page to show what has changed; less than the ten after which it looks anyway.

Not before so many looks at it, each of which fetches the page: a machine may be busy.
"""

SHOWN = r"""
async () => {
  const moves = ".spark, .lifeline, .ranbar, .intervals";  // Drawn by the clock.
  const ours = new Set(["open", "data-at", "data-opened", "data-htmx-powered", "aria-busy"]);
  const spans = /\d[\d.,]* ?(ms|s|min|h|d)\b/g;
  const said = (text) => text.replace(/\s+/g, " ").replace(spans, "…").trim();
  const lines = (node, out) => {
    if (node.nodeType === Node.TEXT_NODE && said(node.data)) out.push(said(node.data));
    if (node.nodeType !== Node.ELEMENT_NODE) return out;
    if (node.matches("form[data-filter], [name=csrfmiddlewaretoken]")) return out;
    const isTime = node.matches("time");
    const attributes = [...node.attributes]
      .filter(({ name }) => !ours.has(name) && !(isTime && name === "title"))
      .map(({ name, value }) => `${name}=${said(value.replace(/\bfresh\b/, ""))}`)
      .filter((it) => it !== "class=").sort();
    out.push(`<${[node.localName, ...attributes].join(" ")}>`);
    if (isTime || node.matches(`[data-keep], ${moves}`)) return out;
    for (const child of node.childNodes) lines(child, out);
    return out;
  };
  const shown = (page) => {
    const [crumbs, main] = [page.querySelector(".crumbs"), page.querySelector("main")];
    const forms = [...page.querySelectorAll("form[data-filter]")];
    const filters = forms.map((it) => `filter ${new URLSearchParams(new FormData(it))}`);
    main.normalize();
    return [page.title, ...filters, ...lines(crumbs, []), ...lines(main, [])];
  };
  const answer = await fetch(location.href, { cache: "no-store" });
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  return {
    address: location.href, pill: document.getElementById("pill").dataset.state,
    open: shown(document), fresh: shown(fresh),
  };
}
"""


def shows_what_its_address_gives(page: Any, *, within: float = WITHIN) -> None:
    """Fail unless *page* soon is live and shows what a page fetched now shows, filter and all."""
    deadline = time.monotonic() + within
    for look in itertools.count(1):
        try:
            seen = page.evaluate(SHOWN)
        except Error as error:
            if "context was destroyed" not in str(error) or time.monotonic() > deadline:
                raise
            continue  # The page is loaded anew just then, as by going back: it is looked at after.
        differs = differing(seen)
        if not differs and seen["pill"] == "live":
            return
        if look >= LOOKS and time.monotonic() > deadline:
            said = "\n".join(differs) or f"its pill says {seen['pill']}"
            pytest.fail(f"{seen['address']} open (-) and fetched (+):\n{said}", pytrace=False)
        page.wait_for_timeout(50)


def differing(seen: Any) -> list[str]:
    if seen["open"] == seen["fresh"]:
        return []
    return list(difflib.unified_diff(seen["open"], seen["fresh"], lineterm="", n=2))[2:40]
