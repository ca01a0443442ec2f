"""Who may do what: namespaces, roles, and the tokens of the API."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from orchestrator import access
from orchestrator.access import sign_in, tokens
from orchestrator.explain.formatting import person
from orchestrator.models import ApiToken, FailedSignIns, Namespace, RoleBinding, journal

from .pages import Pages, ReadOnlyAdmin, action

if TYPE_CHECKING:
    Form = forms.ModelForm[ApiToken]
    RoleBindingForm = forms.ModelForm[RoleBinding]
else:  # Django's classes take no parameters at run time.
    Form = RoleBindingForm = forms.ModelForm


@admin.register(Namespace)
class NamespaceAdmin(ReadOnlyAdmin):
    """Made and removed with `muster namespace`, or the API."""

    list_display = ("name", "description", "created_by", "created_at")
    search_fields = ("^name",)
    ordering = ("name",)


class RoleForm(RoleBindingForm):
    def clean(self) -> dict[str, Any]:
        said: dict[str, Any] = super().clean() or self.cleaned_data
        if bool(said.get("user")) == bool(said.get("group")):
            raise forms.ValidationError("Give it to a user or to a group: to one of the two.")
        return said


@admin.register(RoleBinding)
class RoleBindingAdmin(Pages):
    """Roles are given, changed and taken here, by whoever is an admin where they hold."""

    form = RoleForm
    list_display = ("user", "group", "role", "where")
    list_select_related = ("user", "group")
    list_filter = ("role",)
    search_fields = ("user__username", "group__name", "namespace__name")

    @admin.display(description="namespace")
    def where(self, row: RoleBinding) -> str:
        return str(row.namespace_id or "all namespaces, nodes and queue")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: RoleBinding | None = None) -> bool:
        return self.has_change_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _gives_roles(request) != frozenset()

    def has_change_permission(self, request: HttpRequest, obj: RoleBinding | None = None) -> bool:
        if obj is None:
            return self.has_add_permission(request)
        return access.may(access.rights_of(request.user), "roles", obj.namespace_id)

    def has_delete_permission(self, request: HttpRequest, obj: RoleBinding | None = None) -> bool:
        return self.has_change_permission(request, obj)

    def get_queryset(self, request: HttpRequest) -> QuerySet[RoleBinding]:
        rows, where = super().get_queryset(request), _gives_roles(request)
        return rows if where is None else rows.filter(namespace__in=where)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **more: Any) -> Any:
        """Who is an admin of some namespaces gives roles in those, and in no other."""
        where = _gives_roles(request)
        field = super().formfield_for_foreignkey(db_field, request, **more)
        if field is not None and db_field.name == "namespace" and where is not None:
            field.queryset = Namespace.objects.filter(pk__in=where)
            field.required = True
        return field

    def save_model(self, request: HttpRequest, obj: RoleBinding, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._record(request, obj, "gives")

    def delete_model(self, request: HttpRequest, obj: RoleBinding) -> None:
        super().delete_model(request, obj)
        self._record(request, obj, "takes away")

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[RoleBinding]) -> None:
        for obj in queryset:
            self.delete_model(request, obj)

    def _record(self, request: HttpRequest, obj: RoleBinding, verb: str) -> None:
        actor = access.actor_of(request.user)
        sentence = f"{person(actor)} {verb} the role of {obj}"
        namespace = None if obj.namespace_id is None else str(obj.namespace_id)
        fact = journal.fact("cluster", "role", sentence, actor=actor, namespace=namespace)
        journal.record([fact])


def _gives_roles(request: HttpRequest) -> frozenset[str] | None:
    """The namespaces in which who is signed in may give roles; None for all."""
    rights = access.rights_of(request.user)
    if access.may(rights, "roles"):
        return None
    return frozenset(name for name, _ in rights.roles if access.may(rights, "roles", name))


class TokenForm(Form):
    scopes = forms.MultipleChoiceField(
        choices=[(scope, f"{scope}: {meaning}") for scope, meaning in tokens.SCOPES.items()],
        help_text="Each includes the ones before it.",
    )
    days = forms.IntegerField(min_value=1, max_value=3650, initial=90, label="Good for days")

    class Meta:
        model = ApiToken
        fields = ("user", "name", "scopes", "namespaces")


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin):
    """Tokens are made here and revoked here; their secrets are shown once and kept nowhere."""

    form = TokenForm
    in_namespaces = False
    seen_with = "tokens"
    fields = ("user", "name", "scopes", "namespaces", "days")
    list_display = ("name", "user", "scopes", "created_at", "expires_at", "last_used_at", "revoked")
    list_select_related = ("user",)
    search_fields = ("name", "user__username")
    ordering = ("-created_at",)
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may(access.rights_of(request.user), "tokens")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return self.fields
        return (
            "user",
            "name",
            "scopes",
            "namespaces",
            "created_at",
            "expires_at",
            "last_used_at",
            "revoked_at",
        )

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        said = form.cleaned_data
        made, secret = tokens.issue(
            user=said["user"],
            name=said["name"],
            scopes=said["scopes"],
            namespaces=said["namespaces"],
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

    revoke = action("tokens", "Revoke", lambda token, _: tokens.revoke(token.pk), "Revoked")


@admin.register(FailedSignIns)
class FailedSignInsAdmin(ReadOnlyAdmin):
    """Who tried a wrong password, or token, how often lately; and who is locked until when."""

    in_namespaces = False
    seen_with = "roles"
    list_display = ("door", "name", "address", "count", "since", "locked_until")
    list_filter = ("door", ("locked_until", admin.EmptyFieldListFilter))
    search_fields = ("^name", "^address")
    ordering = ("-since", "id")
    actions = ("unlock",)

    @admin.action(description="Unlock: forget the failures")
    def unlock(self, request: HttpRequest, rows: QuerySet[FailedSignIns]) -> None:
        access.require(access.rights_of(request.user), "roles")
        done = sign_in.unlock(list(rows), actor=access.actor_of(request.user))
        messages.success(request, f"Unlocked: {done}")
