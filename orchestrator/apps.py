"""The orchestrator as a Django application."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OrchestratorConfig(AppConfig):
    """Jobs, evaluations, executions and what decides about them."""

    name = "orchestrator"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Keep the one row of settings, also after a flush; keep django-q2 out of the admin."""
        from orchestrator.server.cluster.q_admin import unregister_models

        unregister_models()
        post_migrate.connect(keep_settings, sender=self)


def keep_settings(sender: OrchestratorConfig, using: str, **_: Any) -> None:
    """Make the row of cluster settings if it is missing."""
    settings = sender.get_model("ClusterSetting")
    settings._default_manager.using(using).get_or_create(pk=1)
