"""Secrets: values that jobs name and never contain."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from .access import Namespace


class Secret(models.Model):
    """A value that jobs of its namespace name as ``secret://NAME``; it is sealed, see ``sealing``.

    ``version`` counts the values that it has had.
    """

    id = models.BigAutoField(primary_key=True)
    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE)
    name = models.CharField(max_length=63)
    sealed = models.TextField()
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(db_default=Now())
    created_by = models.TextField(default="")
    updated_at = models.DateTimeField(db_default=Now())
    updated_by = models.TextField(default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["namespace", "name"], name="one_secret_of_a_name")
        ]

    def __str__(self) -> str:
        return f"{self.namespace_id}/{self.name}"
