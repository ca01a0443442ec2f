"""What a page can ask for: each a POST that calls one verb, and says what came of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from dashboard.permissions import MAY
from nodes.errors import MusterError
from nodes.models import Node
from orchestrator import broker, endpoint
from orchestrator.lifecycle import ENDED
from orchestrator.models import Job

Verb = Callable[..., str]

#: As in the API: what is asked for at one door is not cut short at the other.
LONGEST_REASON = 500


class NeedsReason(MusterError):
    """A reason is needed: every page will show it."""

    code, status = "needs-reason", 400
    hint = "Say why."


class TooLongReason(MusterError):
    """The reason is longer than 500 characters."""

    code, status = "too-long", 400
    hint = "Shorten it."


def action(kind: str) -> Callable[[Verb], Callable[..., HttpResponse]]:
    """A verb as a view: POST only, signed in, permitted; its sentence is the answer."""

    def around(verb: Verb) -> Callable[..., HttpResponse]:
        @require_POST
        @wraps(verb)
        def view(request: HttpRequest, **where: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return _answer(request, 401, "You are signed out: sign in and try again.")
            if not request.user.has_perm(MAY[kind]):
                return _answer(request, 403, f"You lack the permission {MAY[kind]}.")
            for name, text in request.POST.items():
                if "\0" in text:
                    said = f"{name[:80]} contains the unsupported character U+0000: remove it."
                    return _answer(request, 400, said)
            try:
                return _answer(request, 200, verb(request, **where))
            except MusterError as error:
                said = f"{error} {error.hint}".strip()
                return _answer(request, error.status if error.status < 500 else 409, said)

        return view

    return around


@action("jobs")
def stop(request: HttpRequest, pk: UUID) -> str:
    job = get_object_or_404(Job, pk=pk)
    done = endpoint.stop(job.pk, actor=_actor(request), reason=_reason(request))
    if done.state in ENDED:
        return f"{job.name} has ended already ({done.state}); nothing changes."
    return f"Stop of {job.name} requested."


@action("jobs")
def rerun(request: HttpRequest, pk: UUID) -> str:
    job = get_object_or_404(Job, pk=pk)
    endpoint.rerun(job.pk, actor=_actor(request))
    return f"{job.name} will run again."


@action("nodes")
def node(request: HttpRequest, pk: UUID, verb: str) -> str:
    """Approve, reject, release, remove, and the four switches of a node."""
    found = get_object_or_404(Node.every if verb == "remove" else Node, pk=pk)
    actor = _actor(request)
    if verb == "remove":
        endpoint.remove_node(found.pk, actor=actor)
        return f"{found.name} is removed; its name is free."
    if verb == "release":
        endpoint.release_node(found.pk, actor=actor)
        return f"{found.name} is released: its agent is let in when it next connects."
    if verb == "approve":
        endpoint.approve_node(found.pk, actor=actor)
        return f"{found.name} is approved."
    if verb == "reject":
        endpoint.reject_node(found.pk, actor=actor)
        return f"{found.name} is rejected."
    if verb in {"eligible", "ineligible"}:
        wanted = verb == "eligible"
        endpoint.set_eligible(found.pk, wanted, actor=actor, reason=_reason(request))
        return f"{found.name} {'takes' if wanted else 'takes no'} new work."
    draining = verb == "drain"
    endpoint.set_draining(found.pk, draining, actor=actor)
    return f"{found.name} {'drains' if draining else 'no longer drains'}."


@action("queue")
def pause(request: HttpRequest) -> str:
    if not (reason := _reason(request)):
        raise NeedsReason
    broker.pause(reason, _actor(request))
    return "Scheduling is paused. What runs goes on; nothing new is decided."


@action("queue")
def resume(request: HttpRequest) -> str:
    broker.resume(_actor(request))
    return "Scheduling goes on."


@action("queue")
def evaluate(request: HttpRequest, pk: UUID, verb: str) -> str:
    """Evaluate a job now; retry or drop its dead letter."""
    job = get_object_or_404(Job, pk=pk)
    if verb == "retry":
        broker.retry_dead(job.pk, _actor(request))
        return f"{job.name} will be evaluated again."
    if verb == "drop":
        broker.drop_dead(job.pk, _actor(request))
        return f"The dead letter of {job.name} is dropped."
    broker.evaluate_now(job.pk, _actor(request))
    return f"{job.name} will be evaluated now."


def _actor(request: HttpRequest) -> str:
    return f"user:{request.user.get_username()}"


def _reason(request: HttpRequest) -> str:
    reason = request.POST.get("reason", "").strip()
    if len(reason) > LONGEST_REASON:
        raise TooLongReason
    return reason


def _answer(request: HttpRequest, status: int, said: str) -> HttpResponse:
    """A word for the script that asked, or the page again with a message on it."""
    if request.headers.get("X-Requested-With") == "muster":
        return JsonResponse({"message": said}, status=status)
    if status == 401:
        return HttpResponseRedirect(reverse("login"))
    (messages.success if status == 200 else messages.error)(request, said)
    back = request.headers.get("Referer", "")
    safe = url_has_allowed_host_and_scheme(back, {request.get_host()}, request.is_secure())
    return HttpResponseRedirect(back if safe else reverse("dashboard:overview"))
