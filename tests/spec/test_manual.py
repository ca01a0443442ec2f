"""The examples of the manual are job files."""

import re
from pathlib import Path

import pytest

from orchestrator import spec

yaml = pytest.importorskip("yaml")

MANUAL = Path(__file__).parents[2] / "docs" / "job-files.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", MANUAL.read_text(), re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_a_job_file(text):
    spec.parse(yaml.safe_load(text))


def test_the_long_example_says_the_defaults_of_the_short_one():
    short, long, _ = (spec.parse(yaml.safe_load(text)) for text in EXAMPLES)
    assert spec.digest(short) == spec.digest(long)


def test_every_field_is_in_the_manual():
    for name in spec.json_schema()["properties"]:
        assert f"{name}:" in MANUAL.read_text()
