"""The HTTP API is as its OpenAPI document says, asked from outside by schemathesis."""

import subprocess
import sys

import httpx
import pytest

from tests.walk.conftest import manage

pytestmark = pytest.mark.processes

#: What is asked for is mostly there, and no log is followed for ever.
CONFIGURATION = """
[parameters]
"path.ref" = "here"
"query.follow" = false

# What is wrong may be so large that nobody looks what else it is.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]
"""
METHODS = {"get", "put", "post", "delete", "patch"}
#: For longer: more examples, or `--phases coverage`.
OPTIONS = ("--phases", "fuzzing", "--max-examples", "4", "--generation-deterministic")


def test_every_answer_is_one_that_the_document_has(up, var, eventually):
    one = up("--no-demo", "--agents", "0")
    who = ("token", "create", "--user", "admin", "--name", "test", "--scope", "admin")
    eventually(lambda: one.has_said("Ready: it takes jobs."), within=60)
    token = manage(var, *who).stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{one.here}/api/v1/", headers=headers, timeout=20) as api:
        join = api.post("nodes/join-tokens", json={}).json()["token"]
        api.post("nodes/enrol", json={"token": join, "name": "here"}).raise_for_status()
        job = {"name": "here", "task": {"command": ["true"]}}
        api.post("jobs", json=job).raise_for_status()
        addresses = api.get("openapi.json").json()["paths"].values()

    (var / "schemathesis.toml").write_text(CONFIGURATION)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("--config-file", str(var / "schemathesis.toml")),
            *("run", f"{one.here}/api/v1/openapi.json"),
            *("-H", f"Authorization: Bearer {token}", "--no-color", *OPTIONS),
            # A cursor, a condition and a key are refused for what they were given for.
            *("--exclude-checks", "positive_data_acceptance"),
        ],
        cwd=var,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    operations = sum(len(METHODS & address.keys()) for address in addresses)
    assert f"Tested: {operations}" in done.stdout
