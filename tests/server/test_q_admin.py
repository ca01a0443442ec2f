"""django-q2 and the admin."""

from django.contrib import admin


def test_nobody_edits_functions_in_the_admin():
    admin.autodiscover()
    apps = {model._meta.app_label for model in admin.site._registry}
    assert "django_q" not in apps
    assert "auth" in apps
