"""How states, times and regions are drawn: each in one way, on every page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import template
from django.template import Context
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from dashboard.permissions import MAY
from dashboard.presenters.states import Shown
from orchestrator.explain.formatting import counted, person
from orchestrator.explain.wording import Sentence

register = template.Library()
register.filter("person", person)


@register.simple_tag
def glyph(look: str) -> SafeString:
    """The sign of one of the eight looks; the word beside it is what is read aloud."""
    return format_html(
        '<svg class="glyph is-{}" viewBox="0 0 16 16" aria-hidden="true"><use href="#g-{}"/></svg>',
        look,
        look,
    )


@register.simple_tag
def badge(shown: Shown) -> SafeString:
    """A state: its colour, its glyph and its word."""
    return format_html(
        '<span class="badge is-{}" title="{}">{}<span>{}</span></span>',
        shown.look,
        shown.mean,
        glyph(shown.look),
        shown.word,
    )


@register.simple_tag
def icon(name: str) -> SafeString:
    """A line drawing for a control; never the only name of it."""
    return format_html(
        '<svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><use href="#i-{}"/></svg>', name
    )


@register.simple_tag
def when(at: datetime | None) -> SafeString | str:
    """An instant; pages turn it into "2 min ago" and keep the exact time at hand."""
    return "" if at is None else _time(at, "when")


@register.simple_tag
def since(at: datetime | None) -> SafeString | str:
    """How long it has been since an instant, ticking."""
    return "" if at is None else _time(at, "since")


@register.simple_tag
def until(at: datetime | None) -> SafeString | str:
    """How long it is until an instant, ticking."""
    return "" if at is None else _time(at, "until")


@register.simple_tag
def said(sentence: Sentence) -> SafeString:
    """A sentence; its instants tick: "in 24 s", "53 s ago"."""
    return format_html_join(
        "", "{}", ((it if isinstance(it, str) else when(it),) for it in sentence)
    )


@register.simple_tag(takes_context=True)
def allowed(context: Context, kind: str, title: str = "") -> SafeString | str:
    """The one title of a button: what it does, or the permission that the viewer lacks for it."""
    if not context["may"][kind]:
        return format_html(' disabled title="You lack the permission {}"', MAY[kind])
    return format_html(' title="{}"', title) if title else ""


@register.simple_tag(takes_context=True)
def region(context: Context, name: str, extra: str = "") -> SafeString:
    """The region *name* of this page, and the address where it can be had anew."""
    page: Any = context["page"]
    return format_html(
        '<div class="region {}" id="region-{}" data-region="{}">{}</div>',
        extra,
        name,
        name,
        page.region(name, str(context.get("csrf_token", ""))),
    )


@register.filter
def count(n: int, nouns: str) -> str:
    """``3|count:"node,nodes"`` is ``3 nodes``."""
    one, _, many = nouns.partition(",")
    return counted(n, one, many or None)


def _time(at: datetime, kind: str) -> SafeString:
    exact = at.astimezone(UTC)
    return format_html(
        '<time datetime="{}" data-{}>{}</time>',
        exact.isoformat(),
        kind,
        exact.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )
