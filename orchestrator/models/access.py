"""Namespaces, which jobs live in, and the roles that people have in them."""

from __future__ import annotations

from django.contrib.auth.models import Group, User
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from nodes.models import known
from orchestrator import spec

DEFAULT = "default"
"""The namespace of whoever names none; it is always there."""

_NAMED = RegexValidator(
    rf"\A{spec.NAME.pattern}\Z",
    "Use a-z, 0-9, dot, hyphen and underscore, 63 at most; begin and end with a letter or digit.",
)

ROLES = ("viewer", "submitter", "operator", "admin")
"""Each includes what those before it may do."""


class NextEvent(models.Func):
    """An id that no event has: those of before are smaller, those to come are greater."""

    template = "nextval('orchestrator_event_id_seq')"
    output_field = models.BigIntegerField()


class Namespace(models.Model):
    """A place for jobs: a job's name is unique in its namespace, and roles are given for one."""

    name = models.CharField(max_length=63, primary_key=True, validators=[_NAMED])
    description = models.CharField(max_length=500, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now())
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL)
    journal_from = models.BigIntegerField(db_default=NextEvent(), editable=False)
    """Its events have greater ids; others are of a removed namespace that had its name."""

    def __str__(self) -> str:
        return self.name


class RoleBinding(models.Model):
    """A user, or whoever is in a group, has a role in one namespace, or, without one, in all."""

    user = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.CASCADE, related_name="roles"
    )
    group = models.ForeignKey(
        Group, null=True, blank=True, on_delete=models.CASCADE, related_name="roles"
    )
    namespace = models.ForeignKey(
        Namespace,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        help_text="Leave it empty for all namespaces, the nodes and the queue.",
    )
    role = models.CharField(max_length=16, choices=[(it, it) for it in ROLES])

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="role_of_a_user_or_a_group",
                condition=Q(user__isnull=False, group__isnull=True)
                | Q(user__isnull=True, group__isnull=False),
            ),
            models.CheckConstraint(name="role_is_known", condition=Q(role__in=known(ROLES))),
            models.UniqueConstraint(
                fields=["user", "group", "namespace"],
                name="one_role_in_a_namespace",
                nulls_distinct=False,
            ),
        ]

    def __str__(self) -> str:
        who = self.user.get_username() if self.user else f"group {self.group}"
        return f"{who}: {self.role} in {self.namespace_id or 'all namespaces'}"


class Session(AbstractBaseSession):
    """Somebody who is signed in with a browser; all of a user's can be ended at once."""

    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="sessions")


class FailedSignIns(models.Model):
    """Attempts from one address that failed lately: for one name, or, without it, for any."""

    door = models.CharField(max_length=8, choices=[("password", "password"), ("token", "token")])
    name = models.CharField(max_length=150, blank=True, default="")
    address = models.CharField(max_length=64)
    count = models.PositiveIntegerField(default=0)
    since = models.DateTimeField(db_default=Now())
    locked_until = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "failed sign-ins"
        constraints = [
            models.UniqueConstraint(
                fields=["door", "name", "address"], name="one_count_of_failed_sign_ins"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name or self.door} from {self.address}"
