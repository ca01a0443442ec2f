"""Pages of Django's admin: to look at everything, and to act through the Endpoint alone.

Nothing that has a lifecycle is added, changed or deleted by hand: a raw request is refused here,
and what gets past it is refused by the triggers in the database.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.db.models.options import Options
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


class Acting:
    """Its actions ask for the model's right to change."""

    opts: Options[Any]

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Whether who asks may use the actions of these pages."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")


class ReadOnlyAdmin(Acting, ReadOnly, Pages):
    """Looks, and changes nothing but by its actions."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50


def action(description: str, act: Callable[[Any, str], object], done: str) -> Callable[..., None]:
    """Do *act* with each row that is chosen, as who is signed in, and say what came of it."""

    @admin.action(description=description, permissions=["act"])
    def each(_pages: Pages, request: HttpRequest, rows: QuerySet[Any]) -> None:
        actor, acted = f"user:{request.user.get_username()}", 0
        for row in rows:
            try:
                act(row, actor)
                acted += 1
            except MusterError as error:
                messages.error(request, f"{row}: {error}")
        if acted:
            messages.success(request, f"{done}: {acted}")

    return each


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

    stop = action("Stop", lambda job, me: endpoint.stop(job.pk, actor=me), "Stopping")
    rerun = action("Run again", lambda job, me: endpoint.rerun(job.pk, actor=me), "Run again")
    evaluate_now = action(
        "Evaluate now", lambda job, me: broker.evaluate_now(job.pk, me), "Evaluating"
    )


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

    evaluate_now = action(
        "Evaluate now", lambda row, me: broker.evaluate_now(row.job_id, me), "Evaluating"
    )
    retry_dead = action(
        "Retry the dead letter", lambda row, me: broker.retry_dead(row.job_id, me), "Retried"
    )
    drop_dead = action(
        "Drop the dead letter", lambda row, me: broker.drop_dead(row.job_id, me), "Dropped"
    )


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

    fill_nodes = action(
        "Place so that nodes fill up (bin-packing)",
        lambda _, me: endpoint.set_algorithm("binpack", actor=me),
        "Set",
    )
    spread_over_nodes = action(
        "Place so that work spreads over nodes",
        lambda _, me: endpoint.set_algorithm("spread", actor=me),
        "Set",
    )


# --- nodes -----------------------------------------------------------------------------------

admin.site.unregister([Node, JoinToken])


@admin.register(Node)
class ActiveNodeAdmin(Acting, NodeAdmin):
    """The pages of nodes, with what operators do to them."""

    actions = ("approve", "reject", "make_eligible", "make_ineligible", "release")

    approve = action("Approve", lambda it, me: endpoint.approve_node(it.pk, actor=me), "Approved")
    reject = action(
        "Reject: what runs there is lost",
        lambda it, me: endpoint.reject_node(it.pk, actor=me),
        "Rejected",
    )
    release = action(
        "End its quarantine", lambda it, me: endpoint.release_node(it.pk, actor=me), "Released"
    )
    make_eligible = action(
        "Let it get new work",
        lambda it, me: endpoint.set_eligible(it.pk, True, actor=me),
        "Eligible",
    )
    make_ineligible = action(
        "Give it no new work",
        lambda it, me: endpoint.set_eligible(it.pk, False, actor=me),
        "Ineligible",
    )


@admin.register(JoinToken)
class RevocableJoinTokenAdmin(Acting, JoinTokenAdmin):
    actions = ("revoke",)

    revoke = action("Revoke", lambda it, _: membership.revoke_join_token(it.pk), "Revoked")


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

    revoke = action("Revoke", lambda token, _: tokens.revoke(token.pk), "Revoked")
