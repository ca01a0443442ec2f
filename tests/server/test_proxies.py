"""The configurations of proxies that the manual has: parsed, and held against what Muster does."""

import re
import shutil
import subprocess

import pytest

from orchestrator.server import http_limits
from orchestrator.server.environment import HOME, NAMES

PROXIES = HOME / "docs" / "proxy"
NGINX = (PROXIES / "nginx.conf").read_text()
CADDY = (PROXIES / "Caddyfile").read_text()


def parsed(text: str, *, ends: str) -> list:
    """Directives as lists of words, each with the directives of its block, if it has one."""
    text = re.sub(r"(?m)(^|\s)#.*$", "", text)
    tokens = re.findall(r'"[^"]*"|' + r"'[^']*'|\{(?=\s)|\}(?=\s)|[;\n]|[^\s;]+", text)
    stack: list[list] = [[]]
    words: list = []
    for token in tokens:
        if token == "{":
            stack[-1].append((words, made := []))
            stack.append(made)
            words = []
        elif token in {"}", ends}:
            if words:
                stack[-1].append((words, []))
            words = []
            if token == "}":
                stack.pop()
        elif token != "\n":
            words.append(token.strip("\"'"))
    assert len(stack) == 1
    assert not words
    return stack[0]


def found(directives: list, *names: str) -> list[list[str]]:
    """What the directive says whose way is *names*, wherever it stands."""
    first, *rest = names
    hits = [(words, inner) for words, inner in directives if words[:1] == [first]]
    if rest:
        return [it for _, inner in hits for it in found(inner, *rest)]
    return [words[1:] for words, _ in hits]


def test_nginx_says_whose_request_it_is_and_lets_nobody_else_say_so():
    (server,) = [
        inner
        for words, inner in parsed(NGINX, ends=";")
        if words == ["server"] and found(inner, "listen") == [["443", "ssl"]]
    ]
    headers = dict(found(server, "proxy_set_header"))
    assert headers["X-Forwarded-For"] == "$remote_addr"
    assert headers["X-Forwarded-Proto"] == "$scheme"
    assert headers["X-Forwarded-Host"] == headers["Daphne-Root-Path"] == ""
    assert headers["Upgrade"] == "$http_upgrade"
    # A location that sets a header of its own would lose all of these.
    assert not found(server, "location", "proxy_set_header")
    assert found(server, "client_header_timeout") == [[f"{http_limits.HEAD_WITHIN:.0f}s"]]
    assert found(server, "client_max_body_size") == [["1m"]]
    assert http_limits.LARGEST == 1024 * 1024
    assert ["/internal/"] in found(server, "location")


def test_caddy_says_whose_request_it_is_and_lets_nobody_else_say_so():
    site = next(
        inner for words, inner in parsed(CADDY, ends="\n") if words == ["muster.example.org"]
    )
    said = [tuple(it) for it in found(site, "reverse_proxy", "header_up")]
    assert ("X-Forwarded-For", "{remote_host}") in said
    assert ("X-Forwarded-Proto", "{scheme}") in said
    assert ("-X-Forwarded-Host",) in said
    assert ("-Daphne-Root-Path",) in said
    assert found(site, "respond") == [["/internal/*", "404"]]
    assert found(site, "request_body", "max_size") == [["1MB"]]


@pytest.mark.parametrize("text", [NGINX, CADDY, (PROXIES / "README.md").read_text()])
def test_each_names_settings_that_there_are(text):
    assert {"MUSTER_TRUSTED_PROXIES", "MUSTER_HTTPS"} <= set(re.findall(r"MUSTER_\w+", text))
    assert set(re.findall(r"MUSTER_\w+", text)) <= NAMES.keys()


def test_nginx_takes_its_configuration(tmp_path):
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("no nginx is installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "fullchain.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    subprocess.run(
        [*make, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60
    )
    mine = NGINX.replace("/etc/ssl/muster", str(tmp_path))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{it}_temp_path {tmp_path}/{it};\n" for it in kinds)
    inner = f"access_log off;\n{places}{mine}"
    whole = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ {inner} }}"
    (tmp_path / "nginx.conf").write_text(whole)
    command = [nginx, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_caddy_takes_its_configuration():
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("no Caddy is installed")
    command = [caddy, "adapt", "--config", str(PROXIES / "Caddyfile"), "--validate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
