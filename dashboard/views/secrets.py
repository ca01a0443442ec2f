"""Secrets: their names, who put them, who uses them; and a form that puts one."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from dashboard.queries import secrets
from dashboard.rendering import Page
from orchestrator import access
from orchestrator.access.roles import lacks
from orchestrator.models.access import DEFAULT


class Secrets(Page):
    folder = "secrets"
    section = "secrets"
    regions = ("table",)

    @cached_property
    def writable(self) -> list[str]:
        """The namespaces in which the viewer may put one."""
        seen = [self.namespace] if self.namespace else (self.namespaces or [DEFAULT])
        return [name for name in seen if access.may(self.rights, "secrets", name)]

    @property
    def lacking(self) -> str:
        return lacks(self.rights, "secrets", self.namespace or DEFAULT)

    def table(self) -> dict[str, Any]:
        found = secrets.listed(self.sight)
        return {"rows": found, "more": found.more}
