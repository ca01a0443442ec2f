"""Whatever an address or a form asks for, a page answers; never with a mistake of ours."""

import re

import pytest
from django.test import Client

from dashboard import live
from orchestrator.models import ClusterSetting, Job
from tests import rows

pytestmark = pytest.mark.django_db

ASKED = {"X-Requested-With": "muster"}
DIGITS = "9" * 5000
DASHES = "-" * 36


def test_a_region_is_drawn_once_however_often_it_is_asked_for(operator):
    text = operator.get("/", {"regions": ",".join(["changes", "tiles"] * 500)}).content.decode()
    assert re.findall(r'<template data-for="(\w+)">', text) == ["tiles", "changes"]


@pytest.mark.parametrize("text", [f"x.{DIGITS}", "x.٣", "x.-1", "x.1e3", ".1", "x" * 500 + ".1"])
def test_a_cursor_that_is_none_of_ours_is_none(operator, text):
    assert live.Cursor.parse(text) is None
    assert operator.get("/", {"regions": "banner", "at": text}).status_code == 200


@pytest.mark.parametrize(
    ("address", "status"),
    [
        (f"/evaluations/{DIGITS}/", 404),
        (f"/evaluations/{'9' * 30}/", 404),
        (f"/jobs/a-job/?slot={DIGITS}", 200),
        ("/jobs/a-job/?slot=-1", 200),
        ("/jobs/a-job/?slot=٣", 200),
        (f"/jobs/a-job/definition/?version={DIGITS}", 200),
        ("/jobs/?before=0001-01-01T00:00:00%2B14:00~00000000-0000-0000-0000-000000000000", 200),
        ("/jobs/?before=9999-12-31T23:59:59-14:00~00000000-0000-0000-0000-000000000000", 200),
        ("/jobs/a%00b/", 404),
        ("/nodes/a%00b/", 404),
        ("/jobs/a%00b/definition/", 404),
        ("/jobs/?text=a%00b", 404),
        ("/jobs/?state=a%00b", 404),
        ("/nodes/?after=a%00b", 404),
        ("/nodes/?text=a%00b&regions=table", 404),
        ("/queue/?state=a%00b", 404),
        (f"/nodes/?after={'x' * 5000}", 200),
        (f"/nodes/{'x' * 5000}/", 404),
        ("/?regions=" + "x," * 5000, 200),
    ],
)
def test_no_address_is_a_mistake_of_ours(operator, address, status):
    rows.job(name="a-job")
    operator.raise_request_exception = False
    assert operator.get(address).status_code == status


def test_a_filter_that_nobody_knows_matches_nothing(operator):
    rows.job(name="a-job")
    assert "No job matches this filter" in operator.get("/jobs/?state=runing").content.decode()


@pytest.mark.parametrize(
    "address",
    [f"/nodes/{DASHES}/approve", f"/jobs/{DASHES}/evaluate", f"/nodes/{'f' * 36}/drain"],
)
def test_an_id_that_is_none_is_not_there(operator, address):
    operator.raise_request_exception = False
    assert operator.post(address, headers=ASKED).status_code == 404


@pytest.mark.parametrize("verb", ["jobs/{job}/stop", "nodes/{node}/ineligible", "queue/pause"])
def test_a_reason_that_cannot_be_kept_is_refused_in_a_sentence(operator, verb):
    job, node = rows.job(), rows.node()
    operator.raise_request_exception = False
    address = "/" + verb.format(job=job.pk, node=node.pk)
    answer = operator.post(address, {"reason": "a\0b"}, headers=ASKED)
    assert answer.status_code == 400
    said = "reason contains the unsupported character U+0000: remove it."
    assert answer.json()["message"] == said
    assert not Job.objects.get().stop_requested


def test_a_pause_needs_a_reason_here_too(operator):
    answer = operator.post("/queue/pause", {"reason": " "}, headers=ASKED)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("A reason is needed")
    assert not ClusterSetting.objects.get().scheduling_paused


@pytest.mark.parametrize("reference", ["deadbeef" * 4, "deadbeef-dead-beef-dead-beefdeadbeef"])
def test_a_name_that_looks_like_an_id_is_a_name(operator, reference):
    job, node = rows.job(name=reference), rows.node(name=reference)
    for address in (f"/jobs/{job.name}/", f"/jobs/{job.name}/definition/", f"/nodes/{node.name}/"):
        assert operator.get(address).status_code == 200, address


def test_an_id_leads_to_what_has_it_and_not_to_what_is_called_so(operator: Client):
    job = rows.job(name="mine")
    rows.job(name=str(job.pk))
    assert operator.get(f"/jobs/{job.pk}/").context["page"].job == job


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/nodes//", "No page has this address: it is misspelt, or from elsewhere."),
        ("/jobs/nope/", "There is no job &#x27;nope&#x27;"),
    ],
)
def test_what_is_not_found_is_said_in_a_sentence(viewer, address, sentence):
    answer = viewer.get(address)
    assert answer.status_code == 404
    assert sentence in answer.content.decode()
