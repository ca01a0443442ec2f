"""`muster`: the commands, and what becomes of a mistake."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from . import events, executions, jobs, login, namespaces, nodes, queue, sanitise, secrets, status
from .failures import Code, Failure
from .following import Until
from .options import ALL, Call
from .output import tell, tell_places

WATCH_EVERY = "2"
_OPTIONAL = {"--wait": "--wait=completed", "-w": f"--watch={WATCH_EVERY}"}
#: Whether each is followed by its value.
_ANYWHERE = {"-n": True, "--namespace": True, "-A": False, "--all-namespaces": False}
_OPTIONAL["--watch"] = _OPTIONAL["-w"]


class _Worded(TyperGroup):
    """A value that an option does not take is told as one of a job file is: what it may be."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _worded(error)
            raise


def _worded(error: typer.BadParameter) -> str:
    """What is said instead of the words of a library, if *error* has some."""
    errors: list[Any] = getattr(error.__cause__, "errors", list)()
    if errors:  # It takes long to import what has the words, and most commands need none.
        from orchestrator.spec.mistakes import shown, verdict
    for one in errors:
        kind = _KINDS.get(one["type"], one["type"])
        if found := verdict(kind, "", shown(one["input"]), one.get("ctx", {})):
            return f"{found['message']}.  {found['hint']}"
    return str(error.message.removeprefix("Value error, "))


#: What is the same mistake in text as in JSON.
_KINDS = {"int_parsing": "int_type", "int_from_float": "int_type"}

app = typer.Typer(
    cls=_Worded,
    help="Submit jobs to a Muster cluster, and see what it makes of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(jobs.app, name="job")
app.add_typer(executions.app, name="execution")
app.add_typer(nodes.app, name="node")
app.add_typer(queue.app, name="queue")
app.add_typer(namespaces.app, name="namespace")
app.add_typer(secrets.app, name="secret")
app.command("status")(status.show)
app.command("events")(events.show)
app.command("login")(login.login)


@app.callback()
def options(
    context: typer.Context,
    server: Annotated[
        Optional[str],  # noqa: UP045 - typer reads it at run time
        typer.Option(help="address of the server; or MUSTER_SERVER"),
    ] = None,
    token_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="file with an API token; or MUSTER_TOKEN, or MUSTER_TOKEN_FILE"),
    ] = None,
    namespace: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "-n",
            "--namespace",
            help="where names are looked up, * for all; or MUSTER_NAMESPACE; also after a command",
        ),
    ] = None,
    everywhere: Annotated[
        bool,
        typer.Option(
            "-A", "--all-namespaces", help="in all that one may see; also after a command"
        ),
    ] = False,
) -> None:
    """Keep what all commands need."""
    if everywhere and namespace not in (None, ALL):
        raise typer.BadParameter("--namespace and --all-namespaces cannot be combined")
    context.obj = Call(server, token_file, ALL if everywhere else namespace)


def main() -> None:
    """Run the command that the arguments name, and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code.  Whatever goes wrong is one sentence and a cure."""
    try:
        typer.main.get_command(app).main(_with_defaults(arguments), prog_name="muster")
    except Failure as failure:
        _explain(failure)
        return failure.code
    except KeyboardInterrupt:
        return Code.INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Code.OK
    except Exception as error:
        if os.environ.get("MUSTER_DEBUG"):
            raise
        tell(f"muster: something unexpected happened: {type(error).__name__}: {error}")
        tell("  MUSTER_DEBUG=1 shows where.")
        return Code.ERROR
    return Code.OK


def _with_defaults(arguments: Sequence[str]) -> list[str]:
    """Give a value to the options that may stand without one, so they take no argument's.

    What names the namespace may stand anywhere and is brought to the front.  What is the value of
    another option, as a reason may be, is left as it is.
    """
    rest, given, first = deque(arguments), list[str](), list[str]()
    command: Any = typer.main.get_command(app)
    while rest and rest[0] != "--":
        word = rest.popleft()
        if word in _ANYWHERE or word.startswith("--namespace="):
            first.append(word)
            if rest and _ANYWHERE.get(word):
                first.append(rest.popleft())
            continue
        command = getattr(command, "commands", {}).get(word, command)
        if word in _OPTIONAL and not (rest and _is_value(word, rest[0])):
            word = _OPTIONAL[word]
        given.append(word)
        if rest and word in _valued(command):
            given.append(rest.popleft())
    return [*first, *given, *rest]


def _is_value(option: str, word: str) -> bool:
    if option == "--wait":
        return word in set(Until)
    return word.replace(".", "", 1).isdecimal()


def _valued(command: Any) -> set[str]:
    """The options of *command* that are followed by their value."""
    options = (it for it in command.params if it.param_type_name == "option" and not it.is_flag)
    return {name for it in options for name in it.opts}


def _explain(failure: Failure) -> None:
    tell(f"muster: {sanitise.line(failure.sentence)}")
    tell_places(failure.errors)
    if failure.hint:
        tell(f"  {sanitise.line(failure.hint)}")
