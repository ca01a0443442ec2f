"""`muster job`: submitted, followed, listed, shown, stopped."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Optional

import typer

from orchestrator.explain.formatting import amounts, counted, person

from . import jobfile, moving_secrets, sanitise
from .client import Client, segment, tell_of_more
from .failures import Code, Failure
from .following import ENDED, Until, follow, repeated, show_list
from .jobfile import JobFile, Mistaken
from .logs import of_job, print_both, print_log, tell_if_it_waits
from .options import (
    AsFormat,
    InUtc,
    Most,
    NoHeaders,
    Quiet,
    Reason,
    Reference,
    Watching,
    client,
    output,
    seconds,
    with_namespace,
)
from .output import Column, Format, Instant, Output, labels, say, tell, tell_places

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
    Column("CREATED", lambda job: Instant(job["created_at"])),
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
    Column("CREATED", lambda it: Instant(it["created_at"]), wide=True),
    Column("WHAT", lambda it: it["sentence"]),
)
_VERSIONS = (
    Column("VERSION", lambda it: it["number"]),
    Column("BY", lambda it: person(it["actor"])),
    Column("CREATED", lambda it: Instant(it["created_at"])),
    Column("COMMAND", lambda it: json.dumps(it["spec"].get("task", {}).get("command"))),
    Column("DIGEST", lambda it: it["digest"][:12]),
)


@app.command()
def run(
    context: typer.Context,
    name: File,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="do not follow it")] = False,
    wait: Annotated[
        Optional[Until],  # noqa: UP045 - typer reads it at run time
        typer.Option(metavar="[completed|running]", help="wait for it, also without a terminal"),
    ] = None,
    timeout: Annotated[str, typer.Option(help="wait so long at most, as 90s or 10m")] = "",
    rerun: Annotated[
        bool, typer.Option("--rerun", help="if it has ended, run every slot again")
    ] = False,
    move_secrets: Annotated[
        bool,
        typer.Option("--move-secrets", help="keep what looks like one as secrets, and name those"),
    ] = False,
    form: AsFormat = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Submit the jobs of a file, all or none; on a terminal, follow them to their end.

    Ctrl-C while they are followed leaves them alone.
    """
    longest = seconds(timeout)
    if detach and wait is not None:
        said = "--wait waits for the job, and --detach does not."
        raise Failure(said, code=Code.USAGE, hint="Leave one of the two out.")
    with client(context) as api:
        file = _read(api, name)
        if move_secrets:
            answers, wrong = _validated(api, file)
            if wrong:
                raise Mistaken(file.name, wrong)
            file = moving_secrets.move(api, file, name, answers)
        with _told_in_lines(file), _told_if_interrupted():
            if len(file.jobs) > 1 or rerun:
                done = api.post("jobs/batch", file.batch(rerun=rerun))["items"]
            else:
                done = [api.submit(file.text)]
        if quiet or form not in (Format.TABLE, Format.WIDE):
            output(form, no_headers=False, quiet=quiet).submitted(done)
        else:
            for one in done:
                say(sanitise.line(one["sentence"]))
        for number, one in enumerate(done):
            _tell_how_to_run_again(one, name)
            _warn(file, one, number)
        if detach or (wait is None and not sys.stdout.isatty()):
            return
        code = _follow_all(api, done, wait or Until.COMPLETED, longest, quiet=quiet)
    raise typer.Exit(code)


def _follow_all(
    api: Client, jobs: list[dict[str, Any]], until: Until, timeout: float | None, *, quiet: bool
) -> int:
    """Follow one after the other; the exit code of the first that did not end well."""
    code, begun = int(Code.OK), time.monotonic()
    for job in jobs:
        name = f"{sanitise.line(job['name'])}: " if len(jobs) > 1 else ""
        said = _nothing if quiet else partial(_tell_of, name)
        # By its id: the name could be another job's by then.
        found = follow(api, job["id"], until=until, timeout=timeout, said=said, begun=begun)
        if found == Code.INTERRUPTED:
            return found
        code = code or found
    return code


def _tell_of(name: str, sentence: str) -> None:
    tell(f"{name}{sentence}")


def _tell_how_to_run_again(done: Mapping[str, Any], file: str) -> None:
    """Say how the job runs again, when it has ended and nothing was changed."""
    if done["state"] not in ENDED or done["changed"] or done["rerun"]:
        return
    again = f"muster job rerun {sanitise.line(done['name'])}"
    also = "" if file == "-" else f", or muster job run --rerun {shlex.quote(file)}"
    tell(f"  Nothing runs.  To run it again: {again}{also}")


@app.command()
def validate(context: typer.Context, name: File, form: AsFormat = Format.TABLE) -> None:
    """Say every mistake in a job file, or how it is understood; nothing is stored."""
    with client(context) as api:
        file = _read(api, name)
        answers, wrong = _validated(api, file)
    if wrong:
        raise Mistaken(file.name, wrong)
    for number, answer in enumerate(answers):
        _warn(file, answer, number)
    if form in (Format.TABLE, Format.WIDE):
        jobs = "" if len(answers) == 1 else f" of {len(answers)} jobs"
        say(f"{sanitise.line(file.name)} is a good job file{jobs}.")
    else:
        specs = [answer["spec"] for answer in answers]
        output(form, no_headers=False).submitted(specs)


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
    utc: InUtc = None,
) -> None:
    """The newest jobs."""
    out = output(form, no_headers, quiet, utc)
    columns = with_namespace(context, COLUMNS, lambda job: job["namespace"])
    show_list(context, "jobs", out, columns, watch=watch, most=limit, state=state, name=name)


@app.command()
def show(
    context: typer.Context,
    job: Reference,
    form: AsFormat = Format.TABLE,
    watch: Watching = None,
    utc: InUtc = None,
) -> None:
    """One job, with its newest executions."""
    with client(context) as api:
        repeated(lambda: _show(api, job, output(form, utc=utc)), watch)


@app.command()
def stop(
    context: typer.Context, job: Reference, reason: Reason = "", form: AsFormat = Format.TABLE
) -> None:
    """End a job; to stop what has ended changes nothing."""
    with client(context) as api:
        done = api.post(f"jobs/{segment(job)}/stop", {"reason": reason})
    output(form).done(done, f"{done['name']}: {done['sentence']}")


@app.command()
def rerun(context: typer.Context, job: Reference, form: AsFormat = Format.TABLE) -> None:
    """Run every slot of a job again."""
    with client(context) as api:
        done = api.post(f"jobs/{segment(job)}/rerun")
    output(form).done(done, f"{done['name']} begins round {done['round']}")


@app.command()
def versions(
    context: typer.Context,
    job: Reference,
    form: AsFormat = Format.TABLE,
    no_headers: NoHeaders = False,
    limit: Most = 100,
    utc: InUtc = None,
) -> None:
    """Every specification that a job has had, the newest first."""
    path, out = f"jobs/{segment(job)}/versions", output(form, no_headers, utc=utc)
    show_list(context, path, out, _VERSIONS, most=limit, key="number")


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
        if follow:
            tell_if_it_waits(api.get(f"jobs/{segment(job)}"))
        if stdout == stderr:
            print_both(api, path, reading)
        else:
            print_log(api, path, of_job({"stream": "stderr" if stderr else "stdout"} | reading))


def _show(api: Client, ref: str, out: Output) -> None:
    job = api.get(f"jobs/{segment(ref)}")
    task = (job.get("spec") or {}).get("task", {})
    out.one(
        job,
        [
            ("name", job["name"]),
            ("namespace", job["namespace"]),
            ("state", f"{job['state']} ({job['sentence']})"),
            ("id", job["id"]),
            (
                "type",
                f"{job['type']}, {counted(job['count'], 'slot')}, priority {job['priority']}",
            ),
            ("version", f"{job['version']}, round {job['round']}"),
            ("command", " ".join(json.dumps(part) for part in task.get("command", []))),
            ("needs", _needs(task.get("resources", {}))),
            ("labels", labels(job["labels"])),
            ("created", Instant(job["created_at"])),
            ("ended", Instant(job["ended_at"])),
            ("not kept", (job.get("not_kept") or {}).get("sentence", "")),
        ],
    )
    if out.is_for_people:
        found = api.items(f"jobs/{job['id']}/executions", most=MOST_EXECUTIONS)
        if found:
            say("")
            out.table(found, EXECUTIONS, name="id")
            tell_of_more(found, f"muster execution list --job {job['name']} --limit")


def _needs(resources: Mapping[str, Any]) -> str:
    """What one execution takes, in words; a specification has its cores as ``500m``."""
    if not resources:
        return ""
    named = ((name, str(resources[name])) for name in ("cpu", "memory", "disk", "gpu"))
    return amounts({name: int(said.removesuffix("m")) for name, said in named})


def _read(api: Client, name: str) -> JobFile:
    """The job file; when it has mistakes of its own, those that the server finds are said too."""
    try:
        return jobfile.read(name)
    except Mistaken as mistaken:
        if mistaken.rest is None:
            raise
        try:
            _, wrong = _validated(api, mistaken.rest)
        except Failure:
            raise mistaken from None
        named = {error["path"] for error in mistaken.errors}
        more = [it for it in wrong if it["path"] not in named]
        raise Mistaken(mistaken.name, [*mistaken.errors, *more]) from None


def _validated(api: Client, file: JobFile) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """What the server says of each job, and every mistake that it finds."""
    answers: list[dict[str, Any]] = []
    wrong: list[dict[str, str]] = []
    for number, text in enumerate(file.jobs):
        try:
            answers.append(api.post("jobs/validate", text))
        except Failure as failure:
            if failure.code is not Code.USAGE or not failure.errors:
                raise
            wrong += file.placed(failure.errors, number)
    return answers, wrong


def _warn(file: JobFile, answer: Mapping[str, Any], number: int) -> None:
    """Say what the server thinks odd about a job that it takes."""
    if found := answer.get("warnings"):
        what = "is a job" if len(file.jobs) == 1 else f"has the job {_name_in(answer)}"
        tell(f"muster: {sanitise.line(file.name)} {what}, with {counted(len(found), 'warning')}.")
        tell_places(file.placed(found, number))


def _name_in(answer: Mapping[str, Any]) -> str:
    return sanitise.line(answer.get("name") or answer["spec"]["name"])


@contextmanager
def _told_in_lines(file: JobFile) -> Iterator[None]:
    """Say the server's mistakes with the lines of the file."""
    try:
        yield
    except Failure as failure:
        if failure.code is not Code.USAGE or not failure.errors:
            raise
        raise Mistaken(file.name, file.placed(failure.errors)) from None


@contextmanager
def _told_if_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        tell("\nmuster: interrupted; what was sent may have been accepted. Look: muster job list")
        raise


def _nothing(_sentence: str) -> None:
    """Say nothing."""
