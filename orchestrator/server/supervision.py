"""Keep a handful of programs running, and end them together."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.server import child_processes, private_files
from orchestrator.server.environment import EX_CONFIG, HOME

SHORTEST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STEADY = 60.0
"""A program that ran this long was no failure; its next pause is the shortest again."""

LAST_LINES = 4


class Hopeless(Exception):
    """A program says that its configuration is wrong; starting it again would not help."""


@dataclass
class Backoff:
    """How long to wait before something that ended is started again."""

    failures: int = 0

    def failed(self, started_at: float, now: float) -> float:
        """Count one more failure, of what ran since *started_at*; the pause after it."""
        steady = now - started_at > STEADY
        self.failures = 1 if steady else self.failures + 1
        return min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(self.failures - 1, 16))


@dataclass
class Program:
    """One program, and how it has fared."""

    name: str
    command: tuple[str, ...]
    log: Path
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)
    final: int | None = None
    """An exit code after which it is not started again."""
    log_offset: int = 0

    def last_lines(self) -> str:
        """Give the last lines that it printed since it was started, indented."""
        printed = child_processes.last_printed(self.log, self.log_offset)
        return "".join(f"\n    {line}" for line in printed.splitlines()[-LAST_LINES:])


@dataclass
class Supervisor:
    """Starts programs, starts them again when they end, and stops them all."""

    say: Callable[[str], None]
    patience: float = 10.0
    programs: list[Program] = field(default_factory=list)

    def add(self, program: Program) -> None:
        """Start *program* and keep it running."""
        program.log.parent.mkdir(parents=True, exist_ok=True)
        private_files.keep_others_out(program.log.parent)
        if program.log.exists():
            program.log.replace(program.log.with_suffix(".log.1"))
        self.programs.append(program)
        self._start(program)

    def tend(self) -> None:
        """Start again what has ended, after a pause that grows while it keeps ending."""
        now = time.monotonic()
        for program in self.programs:
            self._bound_log(program)
            if program.process is None:
                if now >= program.due_at:
                    self._start(program)
            elif program.process.poll() is not None:
                self._plan_restart(program, now)

    def stop(self) -> None:
        """Ask all to end at once, wait for each, then kill what is left of its group."""
        alive = [program.process for program in self.programs if program.process is not None]
        for process in alive:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.patience
        for process in alive:
            within = max(0.1, deadline - time.monotonic())
            child_processes.end(process, by=signal.SIGTERM, within=within)

    def kill(self) -> None:
        """End all now."""
        for program in self.programs:
            if program.process is not None:
                child_processes.kill_group(program.process)

    def _start(self, program: Program) -> None:
        program.started_at = time.monotonic()
        try:
            with private_files.open_log(program.log) as log:
                program.log_offset = log.tell()
                program.process = child_processes.start(
                    program.command, environ=program.environ, output=log, directory=HOME
                )
        except OSError as why:  # No space, no memory, too many files: that passes.
            pause = program.backoff.failed(program.started_at, program.started_at)
            program.due_at = program.started_at + pause
            self.say(f"{program.name} cannot be started ({why}); tried again in {pause:g} s.")

    def _bound_log(self, program: Program) -> None:
        try:
            if not child_processes.set_aside_if_large(program.log):
                return
        except OSError as why:
            self.say(f"What {program.name} printed so far is not kept: {why}")
        program.log_offset = 0

    def _plan_restart(self, program: Program, now: float) -> None:
        process = program.process
        assert process is not None
        if process.returncode == EX_CONFIG:
            raise Hopeless(f"{program.name} cannot start:{program.last_lines()}")
        if process.returncode == program.final:
            program.process, program.due_at = None, float("inf")
            self.say(f"{program.name} ended for good:{program.last_lines()}")
            return
        child_processes.kill_group(process)  # What it left behind would be in its successor's way.
        pause = program.backoff.failed(program.started_at, now)
        program.due_at = now + pause
        program.process = None
        self.say(
            f"{program.name} ended ({_how(process.returncode)}); it is started again in "
            f"{pause:g} s. The last it said, in {program.log}:{program.last_lines()}"
        )


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
