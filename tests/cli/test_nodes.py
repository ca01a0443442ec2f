"""`muster node` against a real server, with real agents that join, are copied, and are removed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from nodes import membership
from nodes.models import JoinToken, Node, NodeCredential
from orchestrator.lifecycle import Observed
from orchestrator.models import Event
from orchestrator.server.environment import HOME
from tests import rows

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]


class Wire:
    """Passes connections on to *port*; the first *losing* of them lose their answer."""

    def __init__(self, port: int, losing: int) -> None:
        self.port, self.losing, self.lost = port, losing, 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    def _serve(self) -> None:
        carrying = []
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                carrying.append(threading.Thread(target=self._carry, args=(near,)))
                carrying[-1].start()
        for thread in carrying:
            thread.join(10)

    def _carry(self, near: socket.socket) -> None:
        lose = self.lost < self.losing
        self.lost += lose
        with near, socket.create_connection(("127.0.0.1", self.port)) as far:
            asking = threading.Thread(target=_pass_on, args=(near, far))
            asking.start()
            if lose:
                far.recv(1)  # It is answered, so it has been done.
            else:
                _pass_on(far, near)
            for end in (near, far):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            asking.join(10)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


@pytest.fixture
def agents(tmp_path, served) -> Iterator:
    """Start an agent process on a state directory; all are ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(state: str, token: str, server: str = served) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"{state}.log").open("wb")
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "nodes.agent", "--server", server, "--name", "n"),
                *("--cpu", "100", "--state-dir", str(tmp_path / state)),
            ],
            cwd=HOME,
            env={**os.environ, "MUSTER_AGENT_JOIN_TOKEN": token},
            stderr=log,
        )
        log.close()
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(20)


def is_connected() -> bool:
    return Node.objects.filter(connection="connected").exists()


def invitation() -> str:
    return membership.create_join_token(created_by=None, uses=1, auto_approve=True)


def test_an_agent_whose_enrolment_lost_its_answer_joins_at_the_next_try_and_is_removed(
    agents, served, muster, tmp_path, eventually
):
    with closing(Wire(int(served.rpartition(":")[2]), losing=2)) as wire:
        agent = agents("state", invitation(), wire.url)
        eventually(is_connected)
        assert wire.lost == 2
        assert JoinToken.objects.get().uses_left == 0
        node = Node.objects.get()
        assert NodeCredential.objects.filter(node=node, revoked_at=None).count() == 1

        done = muster("node", "remove", "n")
        assert (done.returncode, done.stdout) == (0, "n was removed\n")
        assert agent.wait(30) == 5
    said = (tmp_path / "state.log").read_text()
    assert "to let this machine join again" in said.splitlines()[-1]
    again = muster("node", "remove", "n")
    assert (again.returncode, again.stdout) == (0, "n was removed\n")
    assert muster("node", "show", "n").returncode == 6
    agents("another", invitation())
    eventually(is_connected)
    assert Node.objects.get().pk != node.pk


def test_a_node_that_holds_something_is_not_removed(muster):
    node = rows.node(name="busy")
    rows.execution(rows.job(name="etl"), node, observed=Observed.RUNNING)
    done = muster("node", "remove", "busy")
    assert done.returncode == 7
    assert "it still holds 1 execution: etl slot 0 (running)" in done.stderr
    assert "muster node drain busy" in done.stderr
    assert muster("node", "remove", "nobody").returncode == 6


def test_a_degraded_node_says_why_it_takes_no_work(muster):
    rows.node(name="n", degraded="its spawner does not answer")
    said = "is degraded: its spawner does not answer"
    assert said in muster("node", "show", "n").stdout
    assert said in muster("node", "list").stdout
    assert "1 of 1 connected, 1 degraded" in muster("status").stdout


def test_a_quarantined_node_is_released_by_the_verb_that_its_sentence_names(muster):
    node = rows.node(name="n", quarantined="its state directory was copied, and both copies run")
    assert "`muster node release n`" in muster("node", "show", "n").stdout
    refused = muster("node", "approve", "n")
    assert refused.returncode == 7
    assert "`muster node release n`" in refused.stderr
    done = muster("node", "release", "n")
    assert (done.returncode, done.stdout) == (0, "n takes work\n")
    assert Event.objects.get(what="release", node_id=node.pk).message.endswith("quarantine of n")


@pytest.mark.parametrize("length", ["0", "59s", "31d", ""])
def test_a_join_token_is_good_for_as_long_as_is_said_or_there_is_none(muster, length):
    refused = muster("node", "token", "--expires-in", length)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "expires_in" in refused.stderr
    assert not JoinToken.objects.exists()
