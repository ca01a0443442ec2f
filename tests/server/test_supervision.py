"""A handful of programs, kept running and ended together, with real processes."""

import os
import signal
import sys

import psutil
import pytest

from orchestrator.server.child_processes import LARGEST_LOG, start
from orchestrator.server.environment import EX_CONFIG, HOME
from orchestrator.server.supervision import Hopeless, Program, Supervisor

pytestmark = pytest.mark.processes

WAITS = "print('here', flush=True); import signal; signal.pause()"
CLINGS = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS


@pytest.fixture
def supervise(tmp_path):
    said = []
    supervisor = Supervisor(said.append, patience=0.5)

    def start(script: str, name: str = "program", **more: int) -> Program:
        log = tmp_path / "log" / f"{name}.log"
        supervisor.add(Program(name, (sys.executable, "-c", script), log, os.environ, **more))
        return supervisor.programs[-1]

    start.supervisor = supervisor
    start.said = said
    yield start
    supervisor.kill()
    supervisor.stop()


def test_a_killed_program_is_started_again_and_said_so(supervise, eventually):
    program = supervise(WAITS)
    first = program.process.pid
    os.kill(first, signal.SIGKILL)

    def restarted():
        supervise.supervisor.tend()
        return program.process is not None and program.process.pid != first

    eventually(restarted)
    assert len(supervise.said) == 1
    assert supervise.said[0].startswith("program ended (SIGKILL); it is started again in 0.5 s.")


def test_a_program_whose_log_somebody_removed_is_started_again_like_any_other(
    supervise, eventually
):
    program = supervise(WAITS)
    program.log.unlink()
    program.process.kill()

    def planned():
        supervise.supervisor.tend()
        return supervise.said

    eventually(planned)
    assert supervise.said[0].endswith(f"The last it said, in {program.log}:")


def test_the_log_of_a_program_that_prints_without_end_is_bounded(supervise, eventually):
    program = supervise(
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); "
        f"print('x' * {LARGEST_LOG}, 'all of it', flush=True); "
        "signal.sigwait([15]); raise SystemExit('late')"
    )
    kept = program.log.with_suffix(".log.1")

    def set_aside():
        supervise.supervisor.tend()
        return kept.exists() and kept.stat().st_size > LARGEST_LOG

    eventually(lambda: program.log.stat().st_size > LARGEST_LOG)
    eventually(set_aside)
    assert program.log.stat().st_size == 0

    program.process.send_signal(signal.SIGTERM)
    eventually(lambda: program.process.poll() is not None)
    supervise.supervisor.tend()
    assert supervise.said[-1].endswith("\n    late")
    assert program.log.read_text() == "late\n"


def test_a_log_that_cannot_be_kept_is_bounded_all_the_same(supervise, eventually):
    program = supervise(f"print('x' * {LARGEST_LOG + 1}, flush=True); " + WAITS)
    program.log.with_suffix(".log.1").mkdir()
    eventually(lambda: "here" in program.log.read_text())
    supervise.supervisor.tend()
    assert program.log.stat().st_size == 0
    assert supervise.said[0].startswith("What program printed so far is not kept: ")
    assert program.process.poll() is None


def test_the_pause_grows_while_a_program_keeps_ending(supervise, eventually):
    program = supervise("raise SystemExit('no luck')")

    def failed(times):
        supervise.supervisor.tend()
        return program.backoff.failures >= times

    eventually(lambda: failed(3))
    assert [line.split("again in ")[1].split(". ")[0] for line in supervise.said] == [
        "0.5 s",
        "1 s",
        "2 s",
    ]
    assert "no luck" in supervise.said[0]


def test_a_program_that_is_wrongly_configured_is_not_tried_again(supervise, eventually):
    supervise(f"print('MUSTER_X means nothing'); raise SystemExit({EX_CONFIG})")

    def given_up():
        with pytest.raises(Hopeless, match="MUSTER_X means nothing"):
            supervise.supervisor.tend()
        return True

    eventually(lambda: supervise.supervisor.programs[0].process.poll() is not None)
    assert given_up()


def test_a_program_that_ends_for_good_is_not_started_again_and_the_others_go_on(
    supervise, eventually
):
    supervise("print('the node was removed'); raise SystemExit(5)", final=5)
    other = supervise(WAITS, "other")

    def ended():
        supervise.supervisor.tend()
        return supervise.said

    eventually(ended)
    for _ in range(3):
        supervise.supervisor.tend()
    assert supervise.said == ["program ended for good:\n    the node was removed"]
    assert other.process.poll() is None
    assert supervise.supervisor.programs[0].due_at == float("inf")


def test_stopping_ends_all_the_stubborn_one_too(supervise, eventually):
    polite, stubborn = supervise(WAITS, "polite"), supervise(CLINGS, "stubborn")
    eventually(lambda: "here" in polite.log.read_text())
    eventually(lambda: "here" in stubborn.log.read_text())
    supervise.supervisor.stop()
    assert polite.process.returncode == -signal.SIGTERM
    assert stubborn.process.returncode == -signal.SIGKILL


def test_children_end_with_a_supervisor_that_is_killed(tmp_path, eventually):
    pids = tmp_path / "pid"
    script = f"""
import os, pathlib, sys, time
from orchestrator.server.child_processes import LARGEST_LOG, start
child = start([sys.executable, "-c", {WAITS!r}], environ=os.environ)
pathlib.Path({str(pids)!r}).write_text(str(child.pid))
os.kill(os.getpid(), 9)
"""
    parent = start([sys.executable, "-c", script], environ=os.environ, directory=HOME)
    parent.wait(20)
    eventually(lambda: not psutil.pid_exists(int(pids.read_text())) or is_zombie(pids))


def is_zombie(pids) -> bool:
    return psutil.Process(int(pids.read_text())).status() == psutil.STATUS_ZOMBIE
