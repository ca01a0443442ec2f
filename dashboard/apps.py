"""The dashboard as a Django application."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    """Pages and their live regions."""

    name = "dashboard"
