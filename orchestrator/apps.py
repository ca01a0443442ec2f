"""The orchestrator as a Django application."""

from django.apps import AppConfig


class OrchestratorConfig(AppConfig):
    """Jobs, evaluations, executions and what decides about them."""

    name = "orchestrator"
    default_auto_field = "django.db.models.BigAutoField"
