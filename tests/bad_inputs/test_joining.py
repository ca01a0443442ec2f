"""Who asks: nobody, somebody without a token of the form, and who is to become a node."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from nodes import membership
from tests.api.conftest import Api
from tests.bad_inputs.table import case, tries
from tests.bad_inputs.test_api import place, refused

__all__ = ["place"]

pytestmark = pytest.mark.django_db


@tries(48, 102)
@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer at_",
        "Bearer nt_abcdefgh_secret",
        "Bearer jt_abcdefgh_secret",
        "Bearer at_\x00",
        "Basic cm9vdDpyb290",
        "Bearer " + "x" * 100_000,
        "Bearer at_\u0663",
        "Node nt_x",
    ],
)
def test_whoever_is_nobody_is_told_so_in_one_way(place, harmless, header):
    with harmless():
        answer = Client(raise_request_exception=False).get(
            "/api/v1/jobs", headers={"Authorization": header} if header else {}
        )
    said = refused(answer, 401, "unauthenticated", None, "This needs a valid API token")
    assert answer["WWW-Authenticate"]
    assert "x" * 50 not in json.dumps(said)


@tries(54)
def test_a_session_changes_nothing_without_its_csrf_token(place, harmless):
    client = Client(raise_request_exception=False, enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="root"))
    with harmless():
        answer = client.post("/api/v1/queue/pause", {"reason": "x"}, "application/json")
    assert (answer.status_code, answer["Content-Type"]) == (403, "application/problem+json")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        case(102, "unknown", {"token": "jt_wrong", "name": "m"}, 401, "join-refused"),
        case(102, "empty", {"token": "", "name": "m"}, 401, "join-refused"),
        case(102, "cut", {"token": "{token[:9]}", "name": "m"}, 401, "join-refused"),
        case(102, "other type", {"token": "{api}", "name": "m"}, 401, "join-refused"),
        case(104, "markup", {"token": "{token}", "name": "<b>"}, 400, None),
        case(104, "300", {"token": "{token}", "name": "x" * 300}, 400, None),
        case(104, "live node", {"token": "{token}", "name": "a-node"}, 409, None),
        case(95, "label", {"token": "{token}", "name": "m", "labels": {"a b": "c"}}, 400, None),
        case(93, "labels", {"token": "{token}", "name": "m", "labels": {f"l{n}": "" for n in range(10_000)}}, 400, None),
    ],
)  # fmt: skip
def test_a_bad_enrolment_stores_nothing(place, harmless, body, status, code):
    joining = membership.create_join_token(created_by=None, expires_in=timedelta(hours=1))
    known = {"{token}": joining, "{token[:9]}": joining[:9], "{api}": place.api.headers}
    body = {**body, "token": str(known.get(body["token"], body["token"]))}
    with harmless():
        answer = Api().post("nodes/enrol", body)
    assert answer.status_code == status, answer.content
    assert code is None or answer.json()["code"] == code
    assert "jt_" not in answer.json()["detail"]
