"""Every address that speaks HTTP."""

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.templatetags.static import static
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from nodes import log_forwarding
from orchestrator.api import api
from orchestrator.server import accounts
from orchestrator.server.error_pages import no_page
from orchestrator.server.health import healthz, readyz

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("accounts/login/", accounts.login, name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("accounts/logout/everywhere", accounts.sign_out_everywhere, name="logout-everywhere"),
    # Where browsers look on pages that name none: those of the administration.
    path("favicon.ico", RedirectView.as_view(url=static("favicon.svg"))),
    path("admin/login/", accounts.admin_login),
    re_path("^admin/r/", no_page),  # Leads from a row to its own page; ours have none.
    path("admin/", admin.site.urls),
    path("api/v1/", api.urls),
    path(log_forwarding.PATH, log_forwarding.serve, name="internal-logs"),
    path("", include("dashboard.urls")),
]

handler400 = "orchestrator.server.error_pages.bad_request"
handler500 = "orchestrator.server.error_pages.server_error"
