"""`muster job`: submitted, followed, listed, shown, stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Optional

import typer

from . import jobfile, sanitise
from .client import Client, segment
from .failures import Code, Failure
from .following import Until, follow, repeated
from .jobfile import JobFile, Mistaken
from .logs import of_job, print_both, print_log
from .options import (
    AsFormat,
    Most,
    NoHeaders,
    Quiet,
    Reason,
    Reference,
    Watching,
    client,
    output,
    seconds,
)
from .output import (
    Column,
    Format,
    ago,
    counted,
    labels,
    person,
    say,
    size,
    tell,
    tell_places,
)

app = typer.Typer(help="Submit, follow, list, show and stop jobs.", no_args_is_help=True)

File = Annotated[str, typer.Argument(metavar="FILE", help="job file, YAML or JSON; - for stdin")]
MOST_EXECUTIONS = 20

COLUMNS = (
    Column("NAME", lambda job: job["name"]),
    Column("STATE", lambda job: job["state"]),
    Column("TYPE", lambda job: job["type"], wide=True),
    Column("COUNT", lambda job: job["count"], wide=True),
    Column("PRIORITY", lambda job: job["priority"], wide=True),
    Column("VERSION", lambda job: job["version"], wide=True),
    Column("CREATED", lambda job: ago(job["created_at"])),
    Column("ID", lambda job: job["id"], wide=True),
    Column("LABELS", lambda job: labels(job["labels"]), wide=True),
    Column("WHAT", lambda job: job["sentence"]),
)
EXECUTIONS = (
    Column("ID", lambda it: it["id"][:8] if sys.stdout.isatty() else it["id"]),
    Column("JOB", lambda it: it["job"]["name"], wide=True),
    Column("SLOT", lambda it: it["slot"]),
    Column("ATTEMPT", lambda it: it["attempt"]),
    Column("NODE", lambda it: it["node"]["name"]),
    Column("DESIRED", lambda it: it["desired"], wide=True),
    Column("OBSERVED", lambda it: it["observed"]),
    Column("EXIT", lambda it: it["exit_code"]),
    Column("CREATED", lambda it: ago(it["created_at"]), wide=True),
    Column("WHAT", lambda it: it["sentence"]),
)
_VERSIONS = (
    Column("VERSION", lambda it: it["number"]),
    Column("BY", lambda it: person(it["actor"])),
    Column("CREATED", lambda it: ago(it["created_at"])),
    Column("COUNT", lambda it: it["spec"].get("count")),
    Column("COMMAND", lambda it: json.dumps(it["spec"].get("task", {}).get("command"))),
    Column("DIGEST", lambda it: it["digest"][:12]),
)


@app.command()
def run(
    context: typer.Context,
    file: File,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="do not follow it")] = False,
    wait: Annotated[
        Optional[Until],  # noqa: UP045 - typer reads it at run time
        typer.Option(metavar="[completed|running]", help="wait for it, also without a terminal"),
    ] = None,
    timeout: Annotated[str, typer.Option(help="wait so long at most, as 90s or 10m")] = "",
    form: AsFormat = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Submit a job; on a terminal, follow it to its end.

    Ctrl-C while it is followed leaves the job alone.
    """
    longest = seconds(timeout)
    with client(context) as api:
        job = _read(api, file)
        with _told_in_lines(job), _told_if_interrupted():
            done = api.submit(job.text)
        if quiet or form is not Format.TABLE:
            output(form, no_headers=False, quiet=quiet).one(done, [("job", done["name"])])
        else:
            say(sanitise.line(done["sentence"]))
        _warn(job, done)
        if detach or (wait is None and not sys.stdout.isatty()):
            return
        # By its id: the name could be another job's by then.
        code = follow(
            api,
            done["id"],
            until=wait or Until.COMPLETED,
            timeout=longest,
            said=_nothing if quiet else tell,
        )
    raise typer.Exit(code)


@app.command()
def validate(context: typer.Context, file: File, form: AsFormat = Format.TABLE) -> None:
    """Say every mistake in a job file, or how it is understood; nothing is stored."""
    with client(context) as api:
        job = _read(api, file)
        with _told_in_lines(job):
            answer = api.post("jobs/validate", job.text)
    _warn(job, answer)
    if form in (Format.TABLE, Format.WIDE):
        say(f"{sanitise.line(job.name)} is a good job file.")
    else:
        output(form, no_headers=False).one(answer["spec"], [])


@app.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[str, typer.Option(help="only these states, with commas between")] = "",
    name: Annotated[str, typer.Option(help="only names that begin so")] = "",
    form: AsFormat = Format.TABLE,
    no_headers: NoHeaders = False,
    quiet: Quiet = False,
    watch: Watching = None,
    limit: Most = 50,
) -> None:
    """The newest jobs."""
    with client(context) as api:

        def show() -> None:
            found = api.items("jobs", most=limit, state=state, name=name)
            output(form, no_headers, quiet).table(found, COLUMNS)

        repeated(show, watch)


@app.command()
def show(
    context: typer.Context, job: Reference, form: AsFormat = Format.TABLE, watch: Watching = None
) -> None:
    """One job, with its newest executions."""
    with client(context) as api:
        repeated(lambda: _show(api, job, form), watch)


@app.command()
def stop(context: typer.Context, job: Reference, reason: Reason = "") -> None:
    """End a job; to stop what has ended changes nothing."""
    with client(context) as api:
        done = api.post(f"jobs/{segment(job)}/stop", {"reason": reason})
    say(sanitise.line(f"{done['name']}: {done['sentence']}"))


@app.command()
def rerun(context: typer.Context, job: Reference) -> None:
    """Run every slot of a job again."""
    with client(context) as api:
        done = api.post(f"jobs/{segment(job)}/rerun")
    say(sanitise.line(f"{done['name']} begins round {done['round']}"))


@app.command()
def versions(
    context: typer.Context,
    job: Reference,
    form: AsFormat = Format.TABLE,
    no_headers: NoHeaders = False,
) -> None:
    """Every specification that a job has had, the newest first."""
    with client(context) as api:
        found = api.items(f"jobs/{segment(job)}/versions", most=100)
    output(form, no_headers).table(found, _VERSIONS, name="number")


@app.command()
def logs(
    context: typer.Context,
    job: Reference,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="until the job ends")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="only this stream")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="only this stream")] = False,
    tail: Annotated[
        Optional[int],  # noqa: UP045 - typer reads it at run time
        typer.Option(metavar="BYTES", min=0, help="of each execution only the last"),
    ] = None,
) -> None:
    """What the executions of a job print, each line after the number of its slot.

    Lines that went to stderr are red on a terminal, and marked by `!` instead of `|` elsewhere.
    """
    path, reading = f"jobs/{segment(job)}/logs", {"follow": follow, "tail": tail}
    with client(context) as api:
        if stdout == stderr:
            print_both(api, path, reading)
        else:
            print_log(api, path, of_job({"stream": "stderr" if stderr else "stdout"} | reading))


def _show(api: Any, ref: str, form: Format) -> None:
    job = api.get(f"jobs/{segment(ref)}")
    out = output(form, no_headers=False)
    task = (job.get("spec") or {}).get("task", {})
    resources = task.get("resources", {})
    out.one(
        job,
        [
            ("name", job["name"]),
            ("state", f"{job['state']} ({job['sentence']})"),
            ("id", job["id"]),
            (
                "type",
                f"{job['type']}, {counted(job['count'], 'slot')}, priority {job['priority']}",
            ),
            ("version", f"{job['version']}, round {job['round']}"),
            ("command", " ".join(json.dumps(part) for part in task.get("command", []))),
            (
                "needs",
                f"{resources.get('cpu')} cpu, {size(resources.get('memory', 0))} memory"
                if resources
                else "",
            ),
            ("labels", labels(job["labels"])),
            ("created", ago(job["created_at"])),
            ("ended", ago(job["ended_at"])),
        ],
    )
    if out.is_for_people:
        found = api.items(f"jobs/{job['id']}/executions", most=MOST_EXECUTIONS)
        if found:
            say("")
            out.table(found, EXECUTIONS, name="id")


def _read(api: Client, file: str) -> JobFile:
    """The job file; when it has mistakes of its own, those that the server finds are said too."""
    try:
        return jobfile.read(file)
    except Mistaken as mistaken:
        if mistaken.rest is None:
            raise
        try:
            api.post("jobs/validate", mistaken.rest.text)
        except Failure as failure:
            if failure.code is not Code.USAGE:
                raise mistaken from None
            named = {error["path"] for error in mistaken.errors}
            more = [it for it in failure.errors if it.get("path") not in named]
            found = [_in_line(mistaken.rest, error) for error in more]
            raise Mistaken(mistaken.name, [*mistaken.errors, *found]) from None
        raise


def _warn(job: JobFile, answer: Mapping[str, Any]) -> None:
    """Say what the server thinks odd about a job that it takes."""
    if found := answer.get("warnings"):
        tell(f"muster: {sanitise.line(job.name)} is a job, with {counted(len(found), 'warning')}.")
        tell_places([_in_line(job, one) for one in found])


def _in_line(job: JobFile, error: dict[str, str]) -> dict[str, str]:
    return {**error, "line": str(job.line(error.get("path", "")) or "")}


@contextmanager
def _told_in_lines(job: JobFile) -> Iterator[None]:
    """Say the server's mistakes with the lines of the file."""
    try:
        yield
    except Failure as failure:
        if failure.code is not Code.USAGE or not failure.errors:
            raise
        raise Mistaken(job.name, [_in_line(job, error) for error in failure.errors]) from None


@contextmanager
def _told_if_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        tell("\nmuster: interrupted; the job may have been accepted. Look: muster job list")
        raise


def _nothing(_sentence: str) -> None:
    """Say nothing."""
