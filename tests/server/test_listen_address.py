"""Whether `up` can listen where it is told to, and what it says if not."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.server import listen_address
from orchestrator.server.environment import HOME
from orchestrator.server.listen_address import CannotListen

UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")

WITHOUT_PRIVILEGES = """
import os, socket
from orchestrator.server import listen_address
socket.getaddrinfo("127.0.0.1", 80)  # What it imports may be out of reach later.
if os.geteuid() == 0:
    os.setuid(65534)
try:
    listen_address.raise_unless_free("127.0.0.1", 80)
except listen_address.CannotListen as why:
    print(why)
"""


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_busy_port_is_told_from_a_free_one_in_both_families(family, host):
    with socket.socket(family) as busy:
        busy.bind((host, 0))
        port = busy.getsockname()[1]
        busy.listen()
        with pytest.raises(CannotListen, match=r'already\. Take another: make up ARGS="--port \d'):
            listen_address.raise_unless_free(host, port)
    listen_address.raise_unless_free(host, port)


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [
        ("192.0.2.1", 8000, "--host is '192.0.2.1', which is no address of this machine"),
        ("2001:db8::1", 8000, "--host is '2001:db8::1', which is no address of this machine"),
        ("no.such.invalid", 8000, "--host is 'no.such.invalid', which is no address ("),
        ("127.0.0.1", 0, "--port is 0; say a number from 1 to 65535."),
        ("127.0.0.1", 70000, "--port is 70000; say a number from 1 to 65535."),
    ],
)
def test_an_address_that_nobody_can_have_is_a_sentence(host, port, sentence):
    with pytest.raises(CannotListen, match=re.escape(sentence)):
        listen_address.raise_unless_free(host, port)


@pytest.mark.processes
def test_a_port_that_is_kept_for_root_is_said_to_be():
    if UNPRIVILEGED.exists() and int(UNPRIVILEGED.read_text()) <= 80:
        pytest.skip("everybody may listen on every port of this machine")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PRIVILEGES],
        cwd=HOME,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(
        r'Only root may listen on port 80\. Take another: make up ARGS="--port 10\d\d"\.\n',
        done.stdout,
    )


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("muster.example.org", "http://muster.example.org:8000"),
    ],
)
def test_this_machine_reaches_what_listens_on_all_its_addresses(host, url):
    assert listen_address.url(host, 8000) == url
