"""Pages of Django's admin: to look at everything, and to act through the Endpoint alone.

Nothing that has a lifecycle is added, changed or deleted by hand: a raw request is refused here,
and what gets past it is refused by the triggers in the database.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from nodes import membership
from nodes.admin import JoinTokenAdmin, NodeAdmin, ReadOnly
from nodes.errors import MusterError
from nodes.models import JoinToken, Node

from . import broker, endpoint
from .access import tokens
from .explain import wording
from .models import (
    ApiToken,
    BrokerRow,
    ClusterSetting,
    Evaluation,
    Event,
    Execution,
    ExecutionHistory,
    Job,
    JobVersion,
)

if TYPE_CHECKING:
    Pages = admin.ModelAdmin[Any]
    Form = forms.ModelForm[ApiToken]
    Pager = Paginator[Any]
else:  # Django's classes take no parameters at run time.
    Pages, Form, Pager = admin.ModelAdmin, forms.ModelForm, Paginator

MOST_COUNTED = 10_000
"""Rows that are counted and paged through; who wants more filters first."""


class BoundedPaginator(Pager):
    """Pages of a table of any size: it stops counting where nobody turns pages any more."""

    @cached_property
    def count(self) -> int:
        found: Any = self.object_list
        return int(found.order_by()[:MOST_COUNTED].count())


class ReadOnlyAdmin(ReadOnly, Pages):
    """Looks, and changes nothing; actions ask for the model's right to change."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Whether who asks may use the actions of these pages."""
        return may_act(request, self.opts.model)


def may_act(request: HttpRequest, model: type[Model]) -> bool:
    meta = model._meta
    return request.user.has_perm(f"{meta.app_label}.change_{meta.model_name}")


def each(
    request: HttpRequest,
    rows: QuerySet[Any],
    act: Callable[[Any, str], object],
    done: str,
) -> None:
    """Do *act* with each of *rows* as who is signed in, and say what came of it."""
    actor, acted = f"user:{request.user.get_username()}", 0
    for row in rows:
        try:
            act(row, actor)
            acted += 1
        except MusterError as error:
            messages.error(request, f"{row}: {error}")
    if acted:
        messages.success(request, f"{done}: {acted}")


# --- jobs ------------------------------------------------------------------------------------


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ("name", "type", "state", "what", "count", "priority", "version", "created_at")
    list_filter = ("state", "type")
    search_fields = ("^name",)
    ordering = ("-created_at", "id")
    actions = ("stop", "rerun", "evaluate_now")

    @admin.display(description="what happens")
    def what(self, job: Job) -> str:
        return wording.text(wording.job(job))

    @admin.action(description="Stop", permissions=["act"])
    def stop(self, request: HttpRequest, rows: QuerySet[Job]) -> None:
        each(request, rows, lambda job, actor: endpoint.stop(job.pk, actor=actor), "Stopping")

    @admin.action(description="Run again", permissions=["act"])
    def rerun(self, request: HttpRequest, rows: QuerySet[Job]) -> None:
        each(request, rows, lambda job, actor: endpoint.rerun(job.pk, actor=actor), "Run again")

    @admin.action(description="Evaluate now", permissions=["act"])
    def evaluate_now(self, request: HttpRequest, rows: QuerySet[Job]) -> None:
        each(request, rows, lambda job, actor: broker.evaluate_now(job.pk, actor), "Evaluating")


@admin.register(JobVersion)
class JobVersionAdmin(ReadOnlyAdmin):
    list_display = ("job", "number", "actor", "created_at")
    list_select_related = ("job",)
    search_fields = ("^job__name",)
    ordering = ("-id",)


@admin.register(Evaluation)
class EvaluationAdmin(ReadOnlyAdmin):
    list_display = ("id", "job", "state", "delivery", "worker", "outcome", "leased_at")
    list_filter = ("state", "type")
    list_select_related = ("job",)
    search_fields = ("^job__name",)
    ordering = ("-id",)


@admin.register(BrokerRow)
class BrokerRowAdmin(ReadOnlyAdmin):
    """The queue.  Its rows are the broker's; what people may do to them are the actions."""

    list_display = ("job", "priority", "want", "done", "worker", "not_before", "dead_letter")
    list_filter = (("dead_letter", admin.EmptyFieldListFilter), "type")
    list_select_related = ("job",)
    search_fields = ("^job__name",)
    ordering = ("-priority", "ready_since", "job_id")
    actions = ("evaluate_now", "retry_dead", "drop_dead")

    @admin.action(description="Evaluate now", permissions=["act"])
    def evaluate_now(self, request: HttpRequest, rows: QuerySet[BrokerRow]) -> None:
        self._each(request, rows, broker.evaluate_now, "Evaluating")

    @admin.action(description="Retry the dead letter", permissions=["act"])
    def retry_dead(self, request: HttpRequest, rows: QuerySet[BrokerRow]) -> None:
        self._each(request, rows, broker.retry_dead, "Retried")

    @admin.action(description="Drop the dead letter", permissions=["act"])
    def drop_dead(self, request: HttpRequest, rows: QuerySet[BrokerRow]) -> None:
        self._each(request, rows, broker.drop_dead, "Dropped")

    def _each(
        self,
        request: HttpRequest,
        rows: QuerySet[BrokerRow],
        act: Callable[[UUID, str], None],
        done: str,
    ) -> None:
        each(request, rows.select_related("job"), lambda row, actor: act(row.job_id, actor), done)


# --- what happened ---------------------------------------------------------------------------


@admin.register(Execution)
class ExecutionAdmin(ReadOnlyAdmin):
    list_display = ("id", "job", "slot", "attempt", "node", "desired", "observed", "created_at")
    list_filter = ("observed", "desired")
    list_select_related = ("job", "node")
    ordering = ("-created_at", "id")
    exclude = ("by_writer", "by_actor", "by_reason")
    readonly_fields = ("transitions",)

    @admin.display(description="History")
    def transitions(self, row: Execution) -> SafeString:
        """Every transition, the oldest first."""
        found = ExecutionHistory.objects.filter(execution_id=row.pk).order_by("rev", "at")
        lines = (
            (it.rev, it.lane, it.before or "-", it.after, it.writer, it.actor, it.reason, it.at)
            for it in found
        )
        return format_html(
            "<ol>{}</ol>",
            format_html_join("", "<li>{} {}: {} → {} by {} {} {} at {}</li>", lines),
        )


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("id", "at", "topic", "what", "actor", "message")
    ordering = ("-id",)
    exclude = ("xid",)


@admin.register(ClusterSetting)
class ClusterSettingAdmin(ReadOnlyAdmin):
    list_display = ("algorithm", "scheduling_paused", "paused_reason", "paused_by", "paused_at")
    actions = ("fill_nodes", "spread_over_nodes")

    @admin.action(description="Place so that nodes fill up (bin-packing)", permissions=["act"])
    def fill_nodes(self, request: HttpRequest, rows: QuerySet[ClusterSetting]) -> None:
        each(request, rows, lambda _, me: endpoint.set_algorithm("binpack", actor=me), "Set")

    @admin.action(description="Place so that work spreads over nodes", permissions=["act"])
    def spread_over_nodes(self, request: HttpRequest, rows: QuerySet[ClusterSetting]) -> None:
        each(request, rows, lambda _, me: endpoint.set_algorithm("spread", actor=me), "Set")


# --- nodes -----------------------------------------------------------------------------------

admin.site.unregister([Node, JoinToken])


@admin.register(Node)
class ActiveNodeAdmin(NodeAdmin):
    """The pages of nodes, with what operators do to them."""

    actions = ("approve", "reject", "make_eligible", "make_ineligible", "release")

    def has_act_permission(self, request: HttpRequest) -> bool:
        return may_act(request, Node)

    @admin.action(description="Approve", permissions=["act"])
    def approve(self, request: HttpRequest, rows: QuerySet[Node]) -> None:
        each(request, rows, lambda it, me: endpoint.approve_node(it.pk, actor=me), "Approved")

    @admin.action(description="Reject: what runs there is lost", permissions=["act"])
    def reject(self, request: HttpRequest, rows: QuerySet[Node]) -> None:
        each(request, rows, lambda it, me: endpoint.reject_node(it.pk, actor=me), "Rejected")

    @admin.action(description="End its quarantine", permissions=["act"])
    def release(self, request: HttpRequest, rows: QuerySet[Node]) -> None:
        each(request, rows, lambda it, me: endpoint.release_node(it.pk, actor=me), "Released")

    @admin.action(description="Let it get new work", permissions=["act"])
    def make_eligible(self, request: HttpRequest, rows: QuerySet[Node]) -> None:
        each(request, rows, lambda it, me: endpoint.set_eligible(it.pk, True, actor=me), "Eligible")

    @admin.action(description="Give it no new work", permissions=["act"])
    def make_ineligible(self, request: HttpRequest, rows: QuerySet[Node]) -> None:
        each(
            request,
            rows,
            lambda it, me: endpoint.set_eligible(it.pk, False, actor=me),
            "Ineligible",
        )


@admin.register(JoinToken)
class RevocableJoinTokenAdmin(JoinTokenAdmin):
    actions = ("revoke",)

    def has_act_permission(self, request: HttpRequest) -> bool:
        return may_act(request, JoinToken)

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, rows: QuerySet[JoinToken]) -> None:
        each(request, rows, lambda it, _: membership.revoke_join_token(it.pk), "Revoked")


# --- tokens ----------------------------------------------------------------------------------


class TokenForm(Form):
    scopes = forms.MultipleChoiceField(
        choices=[(scope, f"{scope}: {meaning}") for scope, meaning in tokens.SCOPES.items()],
        help_text="Each includes the ones before it.",
    )
    days = forms.IntegerField(min_value=1, max_value=3650, initial=90, label="Good for days")

    class Meta:
        model = ApiToken
        fields = ("user", "name", "scopes")


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin):
    """Tokens are made here and revoked here; their secrets are shown once and kept nowhere."""

    form = TokenForm
    fields = ("user", "name", "scopes", "days")
    list_display = ("name", "user", "scopes", "created_at", "expires_at", "last_used_at", "revoked")
    list_select_related = ("user",)
    search_fields = ("name", "user__username")
    ordering = ("-created_at",)
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return self.fields
        return ("user", "name", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        said = form.cleaned_data
        made, secret = tokens.issue(
            user=said["user"],
            name=said["name"],
            scopes=said["scopes"],
            expires_in=timedelta(days=said["days"]),
        )
        obj.pk = made.pk
        request.made_secret = secret  # type: ignore[attr-defined]  # Until response_add.

    def response_add(
        self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret on the answer itself: a message would be kept in a cookie."""
        context = {
            **self.admin_site.each_context(request),
            "title": "API token",
            "token": obj,
            "secret": request.made_secret,  # type: ignore[attr-defined]
        }
        return TemplateResponse(request, "admin/token_made.html", context)

    @admin.display(boolean=True)
    def revoked(self, row: ApiToken) -> bool:
        return row.revoked_at is not None

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiToken]) -> None:
        each(request, rows, lambda token, _: tokens.revoke(token.pk), "Revoked")
