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

from nodes.errors import MusterError
from nodes.models import Node
from orchestrator import access, broker, endpoint
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


class NotALabel(MusterError):
    """{text!r} is not a label."""

    code, status = "not-a-label", 400
    hint = "Write key=value to give one and key- to take one away; several with spaces between."


def action(cluster: str = "") -> Callable[[Verb], Callable[..., HttpResponse]]:
    """A verb as a view: POST only, signed in, permitted; its sentence is the answer.

    What *cluster* names is asked here; a verb of a job asks when it has found that: see `_job`.
    """

    def around(verb: Verb) -> Callable[..., HttpResponse]:
        @require_POST
        @wraps(verb)
        def view(request: HttpRequest, **where: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return _answer(request, 401, "You are signed out: sign in and try again.")
            for name, text in request.POST.items():
                if "\0" in text:
                    said = f"{name[:80]} contains the unsupported character U+0000: remove it."
                    return _answer(request, 400, said)
            try:
                rights = access.rights_of(request.user)
                access.require_any(rights)
                if cluster:
                    access.require(rights, cluster)
                return _answer(request, 200, verb(request, **where))
            except MusterError as error:
                said = f"{error} {error.hint}".strip()
                return _answer(request, error.status if error.status < 500 else 409, said)

        return view

    return around


@action()
def stop(request: HttpRequest, pk: UUID) -> str:
    job = _job(request, pk, "stop")
    done = endpoint.stop(job.pk, actor=access.actor_of(request.user), reason=_reason(request))
    if done.state in ENDED:
        return f"{job.name} has ended already ({done.state}); nothing changes."
    return f"Stop of {job.name} requested."


@action()
def rerun(request: HttpRequest, pk: UUID) -> str:
    job = _job(request, pk, "rerun")
    endpoint.rerun(job.pk, actor=access.actor_of(request.user))
    return f"{job.name} will run again."


@action("nodes")
def node(request: HttpRequest, pk: UUID, verb: str) -> str:
    """Approve, reject, release, remove, label, and the four switches of a node."""
    found = get_object_or_404(Node.every if verb == "remove" else Node, pk=pk)
    actor = access.actor_of(request.user)
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
    if verb == "label":
        done = endpoint.label_node(found.pk, _labels(request), actor=actor)
        given = ", ".join(f"{key}={value}" for key, value in sorted(done.labels.items()))
        return (
            f"{found.name} has these labels: {given}." if given else f"{found.name} has no label."
        )
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
    broker.pause(reason, access.actor_of(request.user))
    return "Scheduling is paused. What runs goes on; nothing new is decided."


@action("queue")
def resume(request: HttpRequest) -> str:
    broker.resume(access.actor_of(request.user))
    return "Scheduling goes on."


@action()
def evaluate(request: HttpRequest, pk: UUID, verb: str) -> str:
    """Evaluate a job now; retry or drop its dead letter."""
    job = _job(request, pk, "evaluate")
    if verb == "retry":
        broker.retry_dead(job.pk, access.actor_of(request.user))
        return f"{job.name} will be evaluated again."
    if verb == "drop":
        broker.drop_dead(job.pk, access.actor_of(request.user))
        return f"The dead letter of {job.name} is dropped."
    broker.evaluate_now(job.pk, access.actor_of(request.user))
    return f"{job.name} will be evaluated now."


@action()
def secret(request: HttpRequest, verb: str) -> str:
    """Put or delete a secret; nothing that is said has its value."""
    rights, name = access.rights_of(request.user), request.POST.get("name", "").strip()
    namespace = access.existing_namespace(rights, request.POST.get("namespace", ""))
    access.require(rights, "secrets", namespace)
    if verb == "delete":
        endpoint.delete_secret(namespace, name, actor=access.actor_of(request.user))
        return f"The secret {name} is deleted."
    value = request.POST.get("value", "").replace("\r\n", "\n").removesuffix("\n")
    kept = endpoint.put_secret(namespace, name, value, actor=access.actor_of(request.user))
    if not kept.changed:
        return f"The secret {name} has that value already."
    return f"The secret {name} is kept, version {kept.secret.version}."


def _job(request: HttpRequest, pk: UUID, verb: str) -> Job:
    """The job, to which the viewer may do *verb*; one that may not be seen is not there."""
    rights = access.rights_of(request.user)
    job = get_object_or_404(access.visible(rights, Job.objects.all()), pk=pk)
    access.require(rights, verb, job)
    return job


def _labels(request: HttpRequest) -> dict[str, str | None]:
    """``pool=prod zone-``, as the command line reads it."""
    wanted: dict[str, str | None] = {}
    for word in request.POST.get("labels", "").split():
        key, sign, value = word.partition("=")
        if not sign and not key.endswith("-"):
            raise NotALabel(text=word[:80])
        wanted[key if sign else key[:-1]] = value if sign else None
    if not wanted:
        raise NotALabel(text="")
    return wanted


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
