"""Who may do what: one table, one function `may`, asked by API, pages, sockets and admin alike."""

from .roles import VERBS, Rights, Role, may, require, require_any
from .sight import Sight, existing_namespace, sight, visible
from .users import actor_of, forget, rights_of

__all__ = [
    "VERBS",
    "Rights",
    "Role",
    "Sight",
    "actor_of",
    "existing_namespace",
    "forget",
    "may",
    "require",
    "require_any",
    "rights_of",
    "sight",
    "visible",
]
