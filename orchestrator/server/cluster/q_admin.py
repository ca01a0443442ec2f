"""django-q2's pages in the admin are not for us."""

from __future__ import annotations


def unregister_models() -> None:
    """Take django-q2's models out of the admin: who may edit a schedule may run any function.

    Importing its admin module first makes the later autodiscovery find it done.
    """
    import django_q.admin  # noqa: F401 - it registers its models
    from django.apps import apps
    from django.contrib import admin

    for model in apps.get_app_config("django_q").get_models():
        if admin.site.is_registered(model):
            admin.site.unregister(model)
