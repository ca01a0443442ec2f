"""The server's side of the nodes as a Django application."""

from django.apps import AppConfig


class NodesConfig(AppConfig):
    """Nodes, their credentials and their sessions."""

    name = "nodes"
    default_auto_field = "django.db.models.BigAutoField"
