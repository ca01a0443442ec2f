"""Signing in, at whichever page, and signing out everywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin
from django.contrib.auth import logout
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render, resolve_url
from django.views.decorators.http import require_POST

from orchestrator import access
from orchestrator.access import sessions, sign_in
from orchestrator.explain.errors import TooManyAttempts

View = Callable[..., HttpResponseBase]


def _throttled(view: View) -> View:
    """*view*, which signs people in, refusing who tried too often; what fails is counted."""

    @wraps(view)
    def throttled(request: HttpRequest, **more: Any) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, **more)
        name, address = request.POST.get("username", ""), request.META.get("REMOTE_ADDR", "")
        try:
            sign_in.attempt_password(name, address)
        except TooManyAttempts as error:
            shown = {"too_many": str(error), "next": request.POST.get("next", "")}
            refusal = render(request, "registration/login.html", shown, status=429)
            refusal["Retry-After"] = str(error.facts["retry_after"])
            return refusal
        answer = view(request, **more)
        user = getattr(request, "signed_in", None)
        if user is None:
            sign_in.failed(name, address)
        else:
            sign_in.succeeded(user, name, address)
        return answer

    return throttled


login = _throttled(LoginView.as_view(redirect_authenticated_user=True))
admin_login = _throttled(admin.site.login)


def _remember(sender: Any, request: HttpRequest, user: User, **_: Any) -> None:  # noqa: ARG001
    """Django has found that the password is right."""
    request.signed_in = user  # type: ignore[attr-defined]


user_logged_in.connect(_remember)


@require_POST
def sign_out_everywhere(request: HttpRequest) -> HttpResponse:
    """End all sessions of who asks; tokens of the API stay."""
    if request.user.is_authenticated:
        sessions.end_all(request.user, access.actor_of(request.user))
        logout(request)
    return HttpResponseRedirect(resolve_url("login"))
