"""Pages to look at nodes.  What changes one is a verb of the orchestrator, and its actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from .models import JoinToken, Node, NodeCredential, NodeHeartbeat, NodeSession

if TYPE_CHECKING:
    SessionPages = admin.StackedInline[NodeSession, Node]
    HeartbeatPages = admin.StackedInline[NodeHeartbeat, Node]
    CredentialPages = admin.TabularInline[NodeCredential, Node]
    NodePages = admin.ModelAdmin[Node]
    JoinTokenPages = admin.ModelAdmin[JoinToken]
else:  # Django's classes take no parameters at run time.
    SessionPages = HeartbeatPages = admin.StackedInline
    CredentialPages = admin.TabularInline
    NodePages = JoinTokenPages = admin.ModelAdmin


class ReadOnly:
    """Nothing is added, changed or deleted by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class SessionInline(ReadOnly, SessionPages):
    model = NodeSession
    fields = (
        "epoch",
        "received",
        "holder",
        "address",
        "instance",
        "ledger",
        "run",
        "boot",
        "started_at",
    )


class HeartbeatInline(ReadOnly, HeartbeatPages):
    model = NodeHeartbeat
    fields = ("seen_at", "running", "load")


class CredentialInline(ReadOnly, CredentialPages):
    model = NodeCredential
    fields = ("created_at", "last_used_at", "revoked_at")


@admin.register(Node)
class NodeAdmin(ReadOnly, NodePages):
    list_display = (
        "name",
        "approval",
        "connection",
        "connection_since",
        "eligible",
        "draining",
        "quarantined",
        "degraded",
    )
    list_filter = ("approval", "connection", "eligible", "draining")
    search_fields = ("name",)
    ordering = ("name",)
    inlines = (HeartbeatInline, SessionInline, CredentialInline)


@admin.register(JoinToken)
class JoinTokenAdmin(ReadOnly, JoinTokenPages):
    """What tokens there are; a token itself is shown once, where it is made."""

    list_display = (
        "id",
        "label",
        "uses_left",
        "auto_approve",
        "expires_at",
        "revoked_at",
        "created_by",
    )
    list_filter = ("auto_approve",)
    ordering = ("-created_at",)
    exclude = ("digest",)
