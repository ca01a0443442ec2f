"""When Muster is not reached: what is said, the cure, and the exit code."""

import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from orchestrator.cli import config


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://127.0.0.1:1", "nothing listens there"),
        ("http://name.invalid:1", "no host is name.invalid"),
    ],
)
def test_a_server_that_does_not_answer_is_3_with_the_cause_and_at_once(muster, address, why):
    begun = time.monotonic()
    done = muster("status", MUSTER_SERVER=address)
    assert time.monotonic() - begun < 10
    assert done.returncode == 3
    said, cure = done.stderr.splitlines()
    assert said == f"muster: {address} does not answer: {why}."
    assert "comes from MUSTER_SERVER" in cure


def test_who_has_named_no_server_is_told_how_to_start_one(muster):
    done = muster("status", MUSTER_SERVER="")
    assert done.returncode == 3
    assert "Start a cluster with `make up`" in done.stderr


@pytest.mark.parametrize("address", ["http://[::1", "http://", "http://host:99999", "http://h:x"])
def test_what_is_no_address_is_wrong_usage(muster, address):
    done = muster("--server", address, "status")
    assert done.returncode == 2
    assert "is not the address of a server" in done.stderr


class _Impostor(BaseHTTPRequestHandler):
    answers = {
        "html": (200, "text/html", b"<html><script>alert(1)</script> sign in</html>"),
        "cut": (200, "application/json", b'{"items": ['),
        "bad-gateway": (502, "text/html", b"<html>\x1b[2J502 Bad Gateway</html>"),
        "cut-problem": (404, "application/problem+json", b"{"),
        "list": (400, "application/problem+json", b"[1]"),
    }

    def do_GET(self):
        status, kind, body = self.answers[self.path.split("/")[1]]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def impostor():
    server = HTTPServer(("127.0.0.1", 0), _Impostor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", _Impostor.answers)
def test_what_answers_but_is_not_muster_is_3_and_nothing_of_it_is_shown(muster, impostor, kind):
    done = muster("job", "list", MUSTER_SERVER=f"http://127.0.0.1:{impostor.server_port}/{kind}")
    assert done.returncode == 3
    assert "<" not in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert "right address" in done.stderr
    assert ("a page of HTML" in done.stderr) == (kind in {"html", "bad-gateway"})


def test_a_proxy_that_answers_is_named_without_its_password(muster, impostor):
    proxy = f"http://ana:secret@127.0.0.1:{impostor.server_port}"
    done = muster("job", "list", MUSTER_SERVER="http://muster.invalid/html", HTTP_PROXY=proxy)
    assert done.returncode == 3
    assert f"through the proxy 127.0.0.1:{impostor.server_port}" in done.stderr
    assert "NO_PROXY=muster.invalid" in done.stderr
    assert "secret" not in done.stderr


def test_https_to_a_plain_port_says_so(muster):
    done = muster("job", "list", MUSTER_SERVER=muster.server.replace("http:", "https:"))
    assert done.returncode == 3
    assert "does not answer: it speaks http there, not https." in done.stderr
    assert "Write http://" in done.stderr


@pytest.fixture
def encrypted(tmp_path, impostor):
    """The address of somebody who speaks TLS, with a certificate that nobody trusts."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    impostor.socket = context.wrap_socket(impostor.socket, server_side=True)
    return f"127.0.0.1:{impostor.server_port}"


def test_plain_http_to_an_encrypted_port_says_so(muster, encrypted):
    done = muster("job", "list", MUSTER_SERVER=f"http://{encrypted}")
    assert done.returncode == 3
    assert "does not answer: it speaks https there, not http." in done.stderr


def test_a_certificate_that_is_not_trusted_is_named_with_the_cure(muster, encrypted):
    done = muster("job", "list", MUSTER_SERVER=f"https://{encrypted}")
    assert done.returncode == 3
    assert "its certificate is not trusted: self-signed certificate" in done.stderr
    assert "SSL_CERT_FILE" in done.stderr


# --- tokens ----------------------------------------------------------------------------------


def test_a_token_that_is_not_taken_is_named_by_where_it_comes_from(muster):
    done = muster("job", "list", MUSTER_TOKEN="at_00000000_wrong")
    assert done.returncode == 8
    assert "does not take the token of MUSTER_TOKEN: it has expired, was revoked" in done.stderr
    assert f"muster login {muster.server}" in done.stderr


def test_who_has_no_token_is_told_how_to_get_one(muster):
    done = muster("job", "list", MUSTER_TOKEN="")
    assert done.returncode == 8
    assert f"{muster.server} wants a token, and there is none." in done.stderr
    assert "manage.py token create" in done.stderr


def test_a_local_cluster_is_found_by_what_it_leaves(muster):
    file = config.local_file(muster.environment())
    config.keep(muster.server, muster.token, file)
    assert file.with_name("token").stat().st_mode & 0o777 == 0o600
    found = {"MUSTER_SERVER": "", "MUSTER_TOKEN": ""}
    assert muster("job", "list", **found).returncode == 0
    gone = "http://127.0.0.1:1"
    config.keep(gone, muster.token, file)
    done = muster("job", "list", **found)
    assert done.returncode == 3
    # It may run, and its web process be on its way up again: that it does not is not known.
    assert "If it runs, its web process is being started again" in done.stderr
    assert "else start it" in done.stderr


@pytest.mark.parametrize("named", ["flag", "environment", "login"])
def test_a_server_that_is_named_comes_before_the_local_cluster(muster, named):
    config.keep("http://127.0.0.1:1", "at_local", config.local_file(muster.environment()))
    words, environ = ("job", "list"), {"MUSTER_SERVER": ""}
    if named == "flag":
        words = ("--server", muster.server, *words)
    elif named == "environment":
        environ = {}
    else:
        login = config.config_file(muster.environment())
        config.keep(muster.server, muster.token, login)
        environ["MUSTER_TOKEN"] = ""
    assert muster(*words, **environ).returncode == 0


def test_a_token_that_is_kept_for_one_server_is_sent_to_no_other(muster):
    config.keep("http://127.0.0.1:1", muster.token, config.config_file(muster.environment()))
    done = muster("job", "list", MUSTER_TOKEN="")
    assert done.returncode == 8
    assert "The one that is kept for http://127.0.0.1:1 is sent nowhere else." in done.stderr
