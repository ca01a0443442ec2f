"""What is said of a command that could not be started."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodes.agent.drivers import start_failures

PATH = "/usr/local/bin:/usr/bin:/bin"
SCRIPT = "#!/bin/sh\ntrue\n"


def foreign() -> bytes:
    """A program as ours is, for another kind of machine."""
    program = bytearray(Path(sys.executable).read_bytes()[:4096])
    other = 183 if program[18] != 183 else 62
    program[18:20] = other.to_bytes(2, "little")
    return bytes(program)


def failed(command: tuple[str, ...], path: str, directory: Path) -> start_failures.StartFailure:
    """Start *command* as the supervisor does, and explain the error that really comes."""
    file = command[0]
    try:
        if "/" not in file:
            file = next(str(it) for d in path.split(":") if (it := Path(d) / file).exists())
        with pytest.raises(OSError) as raised:  # noqa: PT011
            subprocess.run([str(directory / file)], check=False)
        number = raised.value.errno
    except StopIteration:
        number = errno.ENOENT
    return start_failures.explain(number, os.strerror(number), command, path, directory)


@pytest.fixture
def made(tmp_path):
    work = tmp_path / "work" / "execution"
    work.mkdir(parents=True)
    (tmp_path / "directory").mkdir()
    (tmp_path / "plain").write_text(SCRIPT)
    (tmp_path / "link").symlink_to("nowhere")
    for name, content in {
        "lost": b"#!/no/such/python3 -u\n",
        "windows": b"#!/bin/sh\r\ntrue\r\n",
        "interpreted": b"#!/etc/passwd\n",
        "foreign": foreign(),
        "empty": b"",
        "words": b"just words\n",
        "exe": b"MZ\x90\x00",
    }.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("program", "says", "cure"),
    [
        (
            "no-such-program",
            f"no-such-program is in no directory of the task's PATH, {PATH}",
            "install it",
        ),
        ("./train", "./train is not in the working directory of the task", "full path"),
        ("{}/nothing", "{}/nothing does not exist on this node", "install it"),
        ("{}/no/such", "there is nothing below {} of that name", "install it"),
        ("{}/plain/x", "{}/plain is no directory", "correct the path"),
        ("{}/link", "{}/link is a link to nowhere, which does not exist", "install it"),
        ("{}/lost", "begins with #!/no/such/python3, and that does not exist", "interpreter"),
        ("{}/windows", "end as on Windows", "dos2unix"),
        ("{}/interpreted", "begins with #!/etc/passwd, and that is not executable", "first line"),
        ("{}/plain", "{}/plain is not executable", "chmod +x"),
        ("{}/directory", "{}/directory is a directory", "in it"),
        ("{}/foreign", "{}/foreign is a program for ", "keep the job to others: node.arch = "),
        ("{}/empty", "{}/empty is empty", "copy it anew"),
        ("{}/words", "{}/words is neither a program nor a script", "#!/bin/sh"),
        ("{}/exe", "{}/exe is a program for Windows", "install it"),
    ],
)
def test_what_could_not_be_started_is_named_with_the_cure(made, program, says, cure):
    found = failed((program.format(made),), PATH, made / "work" / "execution")
    assert says.format(made) in found.message
    assert cure in found.hint
    assert not found.retryable


def test_what_the_path_finds_is_named_by_its_file(made):
    found = failed(("lost",), f"/nowhere:{made}", made / "work" / "execution")
    assert found.message.startswith(f"{made}/lost, which the task's PATH finds, begins with #!")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter everything")
def test_a_directory_that_may_not_be_entered_is_named(made):
    (made / "directory").chmod(0)
    found = failed((f"{made}/directory/x",), PATH, made / "work" / "execution")
    assert f"may not enter {made}/directory" in found.message


def test_a_working_directory_that_cannot_be_made_is_not_the_fault_of_the_program(made):
    gone = made / "gone" / "execution"
    found = start_failures.explain(errno.ENOENT, os.strerror(errno.ENOENT), ("true",), PATH, gone)
    assert found.message.startswith("its working directory cannot be made")
    assert found.retryable


@pytest.mark.parametrize(("number", "again"), [(errno.EAGAIN, True), (errno.E2BIG, False)])
def test_any_other_error_names_the_program_too(made, number, again):
    reason = os.strerror(number)
    work = made / "work" / "execution"
    found = start_failures.explain(number, reason, ("/bin/true",), PATH, work)
    assert found.message == f"/bin/true could not be started: {reason}"
    assert found.retryable == again


def test_what_is_not_about_the_command_is_said_as_it_is(made):
    reason = "the journal of this node cannot be written: No space left on device"
    work = made / "work" / "execution"
    found = start_failures.explain(errno.ENOSPC, reason, ("no-such",), PATH, work)
    assert found.message == f"the command could not be started: {reason}"
    assert found.retryable
