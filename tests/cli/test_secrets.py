"""`muster secret`, and what `muster job` does with what looks like one."""

import json

import pytest

from orchestrator.models import Job, JobVersion, Secret
from tests import rows

VALUE = "hunter2-canary"
CLEAR = f"""\
name: it
task:
  command: [sh, -c, 'true']  # nothing
  env:
    DB_PASSWORD: "{VALUE}"  # of the database
    COLOUR: blue
"""


@pytest.fixture(autouse=True)
def node(transactional_db):
    rows.node(attributes={"node.driver.process": "true", "node.secrets": "true"})


def test_a_value_is_read_from_standard_input_or_a_file_and_never_from_an_argument(muster):
    said = muster("secret", "put", "token", stdin=VALUE + "\n")
    assert said.stdout == "token is kept, version 1; jobs name it secret://token.\n"
    file = muster.file(VALUE, "value")
    said = muster("secret", "put", "token", "--file", file)
    assert said.stdout == "token has that value already; jobs name it secret://token.\n"
    refused = muster("secret", "put", "token", VALUE)
    assert refused.returncode == 2
    assert "never given as an argument" in refused.stderr
    assert VALUE not in refused.stderr


def test_what_cannot_be_a_value_is_said_with_the_cure(muster):
    for stdin, said in ((b"\xff" * 9, "The value is not UTF-8"), ("12345", "has 5 characters")):
        refused = muster("secret", "put", "token", stdin=stdin)
        assert refused.returncode == 2
        assert said in refused.stderr
    refused = muster("secret", "put", "token", "--file", "none")
    assert "none cannot be read: No such file or directory." in refused.stderr


def test_of_what_is_too_long_nothing_is_left_out_unsaid(muster):
    refused = muster("secret", "put", "token", stdin=("\N{GRINNING FACE}" * 16_385).encode())
    assert "has 16385 characters, and may have 6 to 16384" in refused.stderr
    assert not Secret.objects.exists()


def test_secrets_are_listed_by_namespace_and_deleted(muster):
    muster("namespace", "create", "there")
    muster("secret", "put", "token", stdin=VALUE)
    muster("secret", "put", "token", "-n", "there", stdin=VALUE)
    muster("job", "run", muster.file(CLEAR.replace(f'"{VALUE}"', "secret://token")))
    listed = muster("secret", "list", "-A", "--no-headers").stdout.splitlines()
    assert [line.split()[:3] for line in listed] == [
        ["default", "token", "1"],
        ["there", "token", "1"],
    ]
    assert listed[0].endswith("root  it")
    assert VALUE not in muster("secret", "list", "-o", "json").stdout
    gone = muster("secret", "delete", "token")
    assert gone.stdout == "token is deleted; it is still named by it.\n"
    assert muster("secret", "delete", "token").returncode == 6
    assert list(Secret.objects.values_list("namespace", flat=True)) == ["there"]


def test_a_job_that_names_no_secret_is_refused_with_its_line(muster):
    muster("secret", "put", "db-password", stdin=VALUE)
    wrong = muster.file(CLEAR.replace(f'"{VALUE}"', "secret://db-pasword"))
    for verb in ("run", "validate"):
        refused = muster("job", verb, wrong)
        assert "line 5: task.env.DB_PASSWORD" in refused.stderr.replace(", ", ": ")
        assert "Did you mean secret://db-password?" in refused.stderr
    assert not Job.objects.exists()


def test_what_looks_like_a_secret_is_named_with_its_line_and_the_cure(muster):
    said = muster("job", "validate", muster.file(CLEAR)).stderr
    assert "line 5" in said
    assert "task.env.DB_PASSWORD" in said
    assert "`muster secret put db-password`" in said
    assert "--move-secrets" in said
    assert VALUE not in said


def test_secrets_are_moved_out_of_a_file_which_is_else_as_before(muster, tmp_path):
    file = muster.file(CLEAR)
    (tmp_path / file).chmod(0o640)
    done = muster("job", "run", "--move-secrets", file)
    assert (done.returncode, done.stdout) == (0, "it is a new job\n")
    assert done.stderr == "DB_PASSWORD is kept as the secret db-password.\n"
    assert (tmp_path / file).read_text() == CLEAR.replace(VALUE, "secret://db-password")
    assert (tmp_path / file).stat().st_mode & 0o777 == 0o640
    assert VALUE not in json.dumps(list(JobVersion.objects.values("spec")))
    again = muster("job", "run", "--move-secrets", file)
    assert "unchanged" in again.stdout
    assert list(tmp_path.glob("*.moving-secrets")) == []


def test_what_cannot_be_written_in_the_file_is_said_with_its_line(muster):
    block = CLEAR.replace(f'"{VALUE}"  # of', f"|\n      {VALUE}\n      more\n    OF: the #")
    done = muster("job", "run", "--move-secrets", muster.file(block))
    assert "write secret://db-password for DB_PASSWORD yourself" in done.stderr
    assert JobVersion.objects.get().spec["task"]["env"]["DB_PASSWORD"] == "secret://db-password"
    done = muster("job", "run", "--move-secrets", "-", stdin=CLEAR.replace("DB_", "X_"))
    assert "write secret://x-password for X_PASSWORD yourself" in done.stderr


def test_a_secret_that_is_there_is_not_overwritten_by_a_move(muster):
    muster("secret", "put", "db-password", stdin="another value")
    refused = muster("job", "run", "--move-secrets", muster.file(CLEAR))
    assert "DB_PASSWORD cannot be moved: There is a secret db-password already." in refused.stderr
    assert "write DB_PASSWORD: secret://db-password" in refused.stderr
    assert Secret.objects.get().version == 1
    assert not Job.objects.exists()


def test_a_value_that_several_jobs_have_is_moved_once(muster, tmp_path):
    two = CLEAR + "---\n" + CLEAR.replace("name: it", "name: other")
    file = muster.file(two)
    done = muster("job", "run", "--move-secrets", file)
    assert done.stderr == "DB_PASSWORD is kept as the secret db-password.\n"
    assert (tmp_path / file).read_text() == two.replace(VALUE, "secret://db-password")
    assert sorted(Job.objects.values_list("name", flat=True)) == ["it", "other"]


def test_nothing_is_moved_when_two_values_would_be_one_secret(muster, tmp_path):
    two = CLEAR + "---\n" + CLEAR.replace("name: it", "name: other").replace(VALUE, "hunter3-x")
    file = muster.file(two)
    refused = muster("job", "run", "--move-secrets", file)
    assert "would both be the secret db-password, and have different values." in refused.stderr
    assert "hunter" not in refused.stderr
    assert (tmp_path / file).read_text() == two
    assert not Secret.objects.exists()
    assert not Job.objects.exists()
