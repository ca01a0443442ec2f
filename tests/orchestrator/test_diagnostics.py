"""What our processes say carries no secret."""

import pytest

from orchestrator.diagnostics import without_secrets

SECRET = "kJ8sdfLKJ23nsdf98xcvKJH234lkjsdf"


@pytest.mark.parametrize(
    "line",
    [
        f"enrolled with jt_17_{SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization: node nt_4_{SECRET}",
        f"postgres://muster:{SECRET}@db/muster",
        f"password={SECRET}",
        f'{{"token": "{SECRET}"}}',
    ],
)
def test_no_secret_is_left_in_a_line(line):
    assert SECRET not in without_secrets(line)


def test_the_id_of_a_token_stays():
    assert without_secrets(f"jt_17_{SECRET}") == "jt_17_…"


def test_an_ordinary_line_stays_as_it_is():
    line = "job word-count completed: 4 of 4 slots, node local-1"
    assert without_secrets(line) == line
