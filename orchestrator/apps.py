"""The orchestrator as a Django application."""

from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.apps import apps as global_apps
from django.apps.registry import Apps
from django.db.models.signals import post_migrate


class OrchestratorConfig(AppConfig):
    """Jobs, evaluations, executions and what decides about them."""

    name = "orchestrator"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Keep the one row of settings, also after a flush; keep django-q2 out of the admin."""
        from orchestrator.server import timestamps
        from orchestrator.server.cluster.q_admin import unregister_models

        unregister_models()
        timestamps.load_quickly()
        post_migrate.connect(keep_settings, sender=self)


def keep_settings(
    sender: OrchestratorConfig,  # noqa: ARG001 - Django's name
    using: str,
    apps: Apps = global_apps,
    **_: Any,
) -> None:
    """Make the row of cluster settings, and the namespace of all that name none, if missing.

    In the schema of an earlier release one of them is not there yet.
    """
    for name, key in (("ClusterSetting", 1), ("Namespace", "default")):
        with suppress(LookupError):
            model = apps.get_model("orchestrator", name)
            model._default_manager.using(using).get_or_create(pk=key)
