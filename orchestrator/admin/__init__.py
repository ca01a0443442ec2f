"""Pages of Django's admin: to look at everything, and to act through the Endpoint alone.

Nothing that has a lifecycle is added, changed or deleted by hand: a raw request is refused here,
and what gets past it is refused by the triggers in the database.
"""

from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from nodes import membership
from nodes.admin import JoinTokenAdmin, NodeAdmin
from nodes.models import JoinToken, Node
from orchestrator import broker, endpoint
from orchestrator.explain import wording
from orchestrator.models import (
    BlockedJob,
    BrokerRow,
    ClusterSetting,
    Evaluation,
    Event,
    Execution,
    ExecutionHistory,
    Job,
    JobVersion,
)

from .pages import Looking, Pages, ReadOnlyAdmin, action
from .rights import ApiTokenAdmin, NamespaceAdmin, RoleBindingAdmin

__all__ = ["ApiTokenAdmin", "NamespaceAdmin", "RoleBindingAdmin"]

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

    stop = action("stop", "Stop", lambda job, me: endpoint.stop(job.pk, actor=me), "Stopping")
    rerun = action(
        "rerun", "Run again", lambda job, me: endpoint.rerun(job.pk, actor=me), "Run again"
    )
    evaluate_now = action(
        "evaluate", "Evaluate now", lambda job, me: broker.evaluate_now(job.pk, me), "Evaluating"
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
    """Jobs that are evaluated, or whose evaluation failed.  What people may do are the actions."""

    list_display = ("job", "priority", "worker", "deliveries", "retry_at", "dead_letter")
    list_filter = (("dead_letter", admin.EmptyFieldListFilter), "type")
    list_select_related = ("job",)
    search_fields = ("^job__name",)
    ordering = ("-priority", "since", "job_id")
    actions = ("evaluate_now", "retry_dead", "drop_dead")

    evaluate_now = action(
        "evaluate",
        "Evaluate now",
        lambda row, me: broker.evaluate_now(row.job_id, me),
        "Evaluating",
    )
    retry_dead = action(
        "evaluate",
        "Retry the dead letter",
        lambda row, me: broker.retry_dead(row.job_id, me),
        "Retried",
    )
    drop_dead = action(
        "evaluate",
        "Drop the dead letter",
        lambda row, me: broker.drop_dead(row.job_id, me),
        "Dropped",
    )


@admin.register(BlockedJob)
class BlockedJobAdmin(ReadOnlyAdmin):
    """Jobs for which there is no room."""

    list_display = ("job", "urgency", "since", "missing")
    list_select_related = ("job",)
    search_fields = ("^job__name",)
    ordering = ("urgency", "since", "job_id")
    actions = ("evaluate_now",)

    evaluate_now = BrokerRowAdmin.evaluate_now


# --- what happened ---------------------------------------------------------------------------


@admin.register(Execution)
class ExecutionAdmin(ReadOnlyAdmin):
    list_display = ("id", "job", "slot", "attempt", "node", "desired", "observed", "created_at")
    list_filter = ("observed", "desired")
    list_select_related = ("job", "node")
    ordering = ("-created_at", "id")
    exclude = ("by_writer", "by_actor", "by_reason", "by_steps")
    readonly_fields = ("transitions",)

    @admin.display(description="History")
    def transitions(self, row: Execution) -> SafeString:
        """Every transition, the oldest first."""
        found = ExecutionHistory.objects.filter(execution_id=row.pk).order_by("rev", "at")
        lines = (
            (it.rev, it.lane, it.before or "-", it.after, it.writer, it.actor, it.why, it.at)
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
    in_namespaces = False
    list_display = ("algorithm", "scheduling_paused", "paused_reason", "paused_by", "paused_at")
    actions = ("fill_nodes", "spread_over_nodes")

    fill_nodes = action(
        "placement",
        "Place so that nodes fill up (bin-packing)",
        lambda _, me: endpoint.set_algorithm("binpack", actor=me),
        "Set",
    )
    spread_over_nodes = action(
        "placement",
        "Place so that work spreads over nodes",
        lambda _, me: endpoint.set_algorithm("spread", actor=me),
        "Set",
    )


# --- nodes -----------------------------------------------------------------------------------

admin.site.unregister([Node, JoinToken])


@admin.register(Node)
class ActiveNodeAdmin(Looking, NodeAdmin, Pages):
    """The pages of nodes, with what operators do to them."""

    in_namespaces = False

    actions = ("approve", "reject", "make_eligible", "make_ineligible", "release")

    approve = action(
        "nodes", "Approve", lambda it, me: endpoint.approve_node(it.pk, actor=me), "Approved"
    )
    reject = action(
        "nodes",
        "Reject: what runs there is lost",
        lambda it, me: endpoint.reject_node(it.pk, actor=me),
        "Rejected",
    )
    release = action(
        "nodes",
        "End its quarantine",
        lambda it, me: endpoint.release_node(it.pk, actor=me),
        "Released",
    )
    make_eligible = action(
        "nodes",
        "Let it get new work",
        lambda it, me: endpoint.set_eligible(it.pk, True, actor=me),
        "Eligible",
    )
    make_ineligible = action(
        "nodes",
        "Give it no new work",
        lambda it, me: endpoint.set_eligible(it.pk, False, actor=me),
        "Ineligible",
    )


@admin.register(JoinToken)
class RevocableJoinTokenAdmin(Looking, JoinTokenAdmin, Pages):
    in_namespaces = False
    seen_with = "join-tokens"
    actions = ("revoke",)

    revoke = action(
        "join-tokens", "Revoke", lambda it, _: membership.revoke_join_token(it.pk), "Revoked"
    )
