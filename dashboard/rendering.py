"""Pages made of regions: one partial each, rendered for the page and for every later look.

A page answers its own address with ``?regions=header,slots`` by those regions alone, with an
ETag of what they show.  What was rendered for one viewer serves all who look at the same thing
at the same cursor, so that fifty viewers cost what one does.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.utils.http import parse_etags
from django.utils.safestring import SafeString, mark_safe
from django.views import View

from nodes.errors import MusterError
from orchestrator import access
from orchestrator.access.sight import ALL, Sight
from orchestrator.endpoint import health
from orchestrator.explain.errors import NotFound
from orchestrator.models import ClusterSetting

from . import live
from .queries import overview

T = TypeVar("T")

ANYBODY = f"csrf-{secrets.token_hex(16)}"
"""Stands in what many share where each one's own token must be; nobody can write it elsewhere."""

_NUMBER = re.compile("[0-9]{1,9}")

OLD = 1.0
"""Seconds for which a rendering serves those who did not hear of a change."""


class Page(LoginRequiredMixin, View):
    """A page: ``folder`` holds its templates, each of ``regions`` is a method and a partial.

    Its address may have ``words`` and ``numbers`` as parameters.
    """

    folder: ClassVar[str]
    section: ClassVar[str]
    regions: ClassVar[tuple[str, ...]]
    words: ClassVar[tuple[str, ...]] = ()
    numbers: ClassVar[tuple[str, ...]] = ()

    def get(self, request: HttpRequest, **where: Any) -> HttpResponse:
        if any("\0" in str(text) for text in (*where.values(), *request.GET.values())):
            raise Http404("There is nothing with the character U+0000 in its name.")
        if not self.rights.is_anybody:
            raise PermissionDenied
        asked = request.GET.get("regions")
        if asked is not None:
            wanted = set(asked.split(","))
            return self._some(request, [name for name in self.known if name in wanted])
        cursor = live.feed.cursor  # Before anything is read: later changes will be told.
        page = render(request, f"{self.folder}/page.html", {"page": self, "cursor": cursor})
        patch_cache_control(page, private=True, no_store=True)  # Nor shown by Back.
        return page

    def handle_no_permission(self) -> HttpResponse:  # type: ignore[override]
        """Send people to sign in; tell a page that refreshes itself in a word."""
        if "regions" in self.request.GET and not self.request.user.is_authenticated:
            return HttpResponse("signed out", status=401, content_type="text/plain")
        return super().handle_no_permission()

    def number(self, name: str) -> int | None:
        """The number that the address gives as *name*; None for none, or for what is too large."""
        text = self.request.GET.get(name, "")
        return int(text) if _NUMBER.fullmatch(text) else None

    def named(self, find: Callable[[Any], T]) -> T:
        """What the address names."""
        [name] = self.kwargs.values()
        try:
            return find(name)
        except MusterError as error:
            raise Http404(str(error)) from None

    def mistakes(self) -> list[str]:
        """What the address asks for that this page does not understand, and so leaves out."""
        given = self.request.GET
        known = {"regions", "at", "namespace", *self.words, *self.numbers}
        found = [f"This page knows no parameter {it[:40]!r}." for it in given if it not in known]
        if self.namespace and self._chosen is None:
            found.append(f"There is no namespace {self.namespace[:63]!r}.")
        return found + [
            f"{name} is a number, not {given[name][:40]!r}."
            for name in self.numbers
            if given.get(name) and self.number(name) is None
        ]

    @cached_property
    def known(self) -> tuple[str, ...]:
        return ("banner", *self.regions)

    @cached_property
    def now(self) -> Any:
        return timezone.now()

    @cached_property
    def title(self) -> str:
        return self.section.capitalize()

    @cached_property
    def rights(self) -> access.Rights:
        """What the viewer may do."""
        return access.rights_of(self.request.user)

    @cached_property
    def namespace(self) -> str:
        """The namespace that is chosen; nothing for all that the viewer may see."""
        return self.request.GET.get("namespace", "").removeprefix(ALL)

    @property
    def kept(self) -> dict[str, str]:
        """What the address of a page says to those that it leads to."""
        return {"namespace": self.namespace} if self.namespace else {}

    @cached_property
    def seen(self) -> Sight:
        """All that the viewer may see."""
        return Sight(self.rights.namespaces)

    @cached_property
    def sight(self) -> Sight:
        """What the viewer looks at: what is in the chosen namespace, or all that may be seen."""
        return self._chosen or self.seen

    @cached_property
    def _chosen(self) -> Sight | None:
        try:
            return access.sight(self.rights, self.namespace) if self.namespace else None
        except NotFound:
            return None

    @cached_property
    def namespaces(self) -> list[str]:
        """Those that the viewer may choose from."""
        if self.rights.namespaces is not None:
            return sorted(self.rights.namespaces)
        return list(getattr(self.setting, "namespaces", ()))

    @cached_property
    def setting(self) -> ClusterSetting:
        return overview.setting()

    def banner(self) -> ClusterSetting:
        """What every page must say: that scheduling is paused, by whom and why."""
        return self.setting

    @cached_property
    def health(self) -> health.Health:
        """What keeps the cluster from taking jobs or from getting on, for the banner."""
        return health.watch.health()

    def region(self, name: str, token: str) -> SafeString:
        """The partial of region *name*, with *token* in its forms."""
        folder = "parts" if name == "banner" else self.folder
        view = getattr(self, name)()
        context = {"page": self, "view": view, "csrf_token": token}
        return mark_safe(render_to_string(f"{folder}/{name}.html", context))  # noqa: S308

    def _some(self, request: HttpRequest, names: list[str]) -> HttpResponse:
        query = sorted((k, v) for k, v in request.GET.items() if k not in {"regions", "at"})
        at = live.Cursor.parse(request.GET.get("at", ""))
        key = (request.path, *query, *names, self.rights.alike)
        shown = render_cache.get(key, at, lambda: self._together(names))
        tag = f'"{shown.digest}"'
        known = parse_etags(request.headers.get("If-None-Match", ""))
        if known == ["*"] or tag in {it.removeprefix("W/") for it in known}:
            answer = HttpResponse(status=304)
        else:
            answer = HttpResponse(shown.html.replace(ANYBODY, get_token(request)))
        answer["ETag"] = tag
        answer["X-Muster-Cursor"] = str(shown.cursor)
        patch_cache_control(answer, private=True, no_cache=True)
        return answer

    def _together(self, names: list[str]) -> str:
        parts = (f'<template data-for="{n}">{self.region(n, ANYBODY)}</template>' for n in names)
        return "\n".join(parts)


@dataclass(slots=True)
class Rendered:
    html: str
    digest: str
    cursor: live.Cursor
    at: float


@dataclass(slots=True)
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    rendered: Rendered | None = None


class RenderCache:
    """The newest renderings; whoever comes while one is being made waits for that one."""

    def __init__(self, most: int = 512) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[Any, ...], _Entry] = OrderedDict()

    def get(
        self, key: tuple[Any, ...], wanted: live.Cursor | None, make: Callable[[], str]
    ) -> Rendered:
        """What *make* gives, or gave when it is still as new as *wanted*."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        with entry.lock:
            if entry.rendered is None or not _is_new(entry.rendered, wanted):
                cursor, at = live.feed.cursor, time.monotonic()
                html = make()
                digest = hashlib.sha256(html.encode()).hexdigest()[:24]
                entry.rendered = Rendered(html, digest, cursor, at)
            return entry.rendered


def _is_new(rendered: Rendered, wanted: live.Cursor | None) -> bool:
    if wanted is not None and wanted.process == rendered.cursor.process:
        return rendered.cursor.number >= wanted.number
    return time.monotonic() - rendered.at < OLD and rendered.cursor == live.feed.cursor


render_cache = RenderCache()
"""The one of this process."""
