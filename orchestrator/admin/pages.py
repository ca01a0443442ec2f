"""What the pages of the administration share: who looks, and how a verb becomes an action."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import DataError
from django.db.models import QuerySet
from django.db.models.options import Options
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import cached_property

from nodes.admin import ReadOnly
from nodes.errors import MusterError
from orchestrator import access

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
    Pager = Paginator[Any]
else:  # Django's classes take no parameters at run time.
    Base, Pager = admin.ModelAdmin, Paginator

MOST_COUNTED = 10_000
"""Rows that are counted and paged through; who wants more filters first."""


class BoundedPaginator(Pager):
    """Pages of a table of any size: it stops counting where nobody turns pages any more."""

    @cached_property
    def count(self) -> int:
        found: Any = self.object_list
        return int(found.order_by()[:MOST_COUNTED].count())


class Pages(Base):
    """Acts on rows; what is chosen and can be none is told, and no mistake of ours."""

    def response_action(self, request: HttpRequest, *more: Any, **how: Any) -> HttpResponse | None:
        try:
            return super().response_action(request, *more, **how)
        except (ValueError, OverflowError, ValidationError, DataError):
            messages.error(request, "What was chosen is no row of this list.")
            return HttpResponseRedirect(request.get_full_path())


class Looking:
    """Shown to whoever has a role; of the rows *in_namespaces* those that they may see."""

    opts: Options[Any]
    in_namespaces = True
    seen_with = ""
    """The verb that one must be allowed to look here; none is needed where rows are filtered."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        rights = access.rights_of(request.user)
        return rights.is_anybody and (not self.seen_with or access.may(rights, self.seen_with))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)  # type: ignore[misc]  # Of Django's pages.
        return access.visible(access.rights_of(request.user), rows) if self.in_namespaces else rows


class ReadOnlyAdmin(Looking, ReadOnly, Pages):
    """Looks, and changes nothing but by its actions."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50


def action(
    verb: str, description: str, act: Callable[[Any, str], object], done: str
) -> Callable[..., None]:
    """Do *act* with each row that is chosen, as who is signed in, and say what came of it.

    *verb* must be allowed to them: to the row's job, or to the cluster.
    """

    @admin.action(description=description)
    def each(_pages: Pages, request: HttpRequest, rows: QuerySet[Any]) -> None:
        actor, acted = access.actor_of(request.user), 0
        rights, in_namespace = access.rights_of(request.user), access.VERBS[verb].in_namespace
        for row in rows:
            try:
                on = getattr(row, "job", row) if in_namespace else None
                access.require(rights, verb, on)
                act(row, actor)
                acted += 1
            except MusterError as error:
                messages.error(request, f"{row}: {error}")
        if acted:
            messages.success(request, f"{done}: {acted}")

    return each
