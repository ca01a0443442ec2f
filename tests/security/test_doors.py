"""Every role at every door, to jobs of its own and of others, here and there: as the table says."""

import itertools
import json
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from orchestrator import access
from orchestrator.access import Role, may, tokens
from orchestrator.models import Event, Job
from tests import rows

pytestmark = pytest.mark.django_db

ALLOWED, FORBIDDEN, MISSING = "allowed", 403, 404


@dataclass
class Visitor:
    """Somebody at the three doors: through each, what came of it."""

    user: User

    def __post_init__(self) -> None:
        secret = tokens.create(user=self.user, name="t", scopes=["admin"], expires_in=None)
        self.headers = {"Authorization": f"Bearer {secret}"}
        self.api_client = Client(raise_request_exception=False)
        self.browser = Client(headers={"host": "localhost"}, raise_request_exception=False)
        self.browser.force_login(self.user)

    def api(self, method: str, path: str, body: Any = None) -> object:
        sent = json.dumps(body).encode() if body is not None else b""
        answer = self.api_client.generic(
            method, f"/api/v1/{path}", sent, "application/json", headers=self.headers
        )
        return _outcome(answer)

    def page(self, path: str, posted: dict[str, str] | None = None) -> object:
        if posted is None:
            return _outcome(self.browser.get(path))
        asked = {"X-Requested-With": "muster"}
        return _outcome(self.browser.post(path, posted, headers=asked))

    def admin(self, model: str, action: str, key: object) -> object:
        """It answers with a page either way; what counts is what was done."""
        before = Event.objects.count()
        chosen = {"action": action, "_selected_action": str(key)}
        address = f"/admin/{'nodes' if model == 'node' else 'orchestrator'}/{model}/"
        answer = self.browser.post(address, chosen)
        assert answer.status_code in {200, 302, 403}
        return ALLOWED if Event.objects.count() > before else "refused"


def _outcome(answer: Any) -> object:
    return ALLOWED if answer.status_code < 300 else answer.status_code


def _again(job: Job) -> dict[str, Any]:
    return {"name": job.name, "count": 2, "task": {"command": ["true"]}}


WHY = {"reason": "x"}
OF_JOBS = {
    "see": (
        lambda it, job: it.api("GET", f"jobs/{job.pk}"),
        lambda it, job: it.api("GET", f"jobs/{job.name}?namespace={job.namespace_id}"),
        lambda it, job: it.page(f"/jobs/{job.pk}/"),
        lambda it, job: it.page(f"/jobs/{job.pk}/?regions=header,events"),
    ),
    "replace": (
        lambda it, job: it.api("POST", f"jobs?namespace={job.namespace_id}", _again(job)),
        lambda it, job: it.api("POST", "jobs", _again(job) | {"namespace": job.namespace_id}),
    ),
    "stop": (
        lambda it, job: it.api("POST", f"jobs/{job.pk}/stop", {}),
        lambda it, job: it.page(f"/jobs/{job.pk}/stop", WHY),
        lambda it, job: it.admin("job", "stop", job.pk),
    ),
    "rerun": (
        lambda it, job: it.api("POST", f"jobs/{job.pk}/rerun", {}),
        lambda it, job: it.page(f"/jobs/{job.pk}/rerun", {}),
        lambda it, job: it.admin("job", "rerun", job.pk),
    ),
    "evaluate": (
        lambda it, job: it.page(f"/jobs/{job.pk}/evaluate", {}),
        lambda it, job: it.admin("job", "evaluate_now", job.pk),
    ),
}
OF_THE_CLUSTER = {
    "nodes": (
        lambda it, node: it.api("POST", f"nodes/{node.name}/drain", {}),
        lambda it, node: it.page(f"/nodes/{node.pk}/drain", {}),
        lambda it, node: it.admin("node", "make_ineligible", node.pk),
    ),
    "queue": (
        lambda it, _: it.api("POST", "queue/pause", WHY),
        lambda it, _: it.page("/queue/pause", WHY),
        lambda it, _: it.api("POST", "queue/resume", {}),
        lambda it, _: it.page("/queue/resume", {}),
    ),
    "placement": (lambda it, _: it.admin("clustersetting", "fill_nodes", 1),),
    "join-tokens": (lambda it, _: it.api("POST", "nodes/join-tokens", {}),),
    "namespaces": (lambda it, _: it.api("POST", "namespaces", {"name": "another"}),),
}


@pytest.mark.parametrize(
    ("role", "place"),
    [it for it in itertools.product(Role, ("here", None)) if it != (Role.NONE, None)],
)
def test_every_door_does_what_the_table_says(role, place):
    me = rows.user("me", is_staff=True)
    if role > Role.NONE:
        rows.give(me, role.word, place)
    visitor, rights = Visitor(me), access.rights_of(me)
    somebody = rows.user("somebody")
    for verb, doors in OF_JOBS.items():
        for number, door in enumerate(doors):
            for owner, namespace in ((me, "here"), (somebody, "here"), (somebody, "there")):
                job = rows.job(namespace=namespace, created_by=owner)
                said = (verb, number, owner.username, namespace)
                assert_outcome(door(visitor, job), _expected(rights, verb, job), said)
    node = rows.node(name="machine")
    for verb, doors in OF_THE_CLUSTER.items():
        for number, door in enumerate(doors):
            expected = ALLOWED if may(rights, verb) else FORBIDDEN
            assert_outcome(door(visitor, node), expected, (verb, number))


def _expected(rights, verb, job):
    if not rights.is_anybody:
        return FORBIDDEN
    if not may(rights, "see", job):
        return MISSING
    return ALLOWED if may(rights, verb, job) else FORBIDDEN


def assert_outcome(found, expected, said):
    if found == "refused":
        assert expected != ALLOWED, said
    else:
        assert found == expected, said
