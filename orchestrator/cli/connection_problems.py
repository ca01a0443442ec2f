"""Why Muster was not reached, or lets nobody in: each a sentence and a cure."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from .config import Settings, local_file
from .failures import Code, Failure, Unreachable

PROBE_WITHIN = 2.0
"""Seconds in which whoever answers shows whether it speaks the other protocol."""

_PASSING = {502, 503, 504}


def no_answer(settings: Settings, error: httpx.TransportError, *, within: float) -> Unreachable:
    """What to say of *error*, which kept an answer from coming *within* so many seconds."""
    why, cure = _cause(settings, error, within)
    return Unreachable(
        f"{settings.server} does not answer: {why}.",
        code=Code.NOT_REACHED,
        hint=" ".join(filter(None, (cure, _proxy(settings)))),
    )


def not_muster(settings: Settings, response: httpx.Response | None, what: str) -> Failure:
    """What to say of an answer that is *what*, and not what Muster answers."""
    status = "" if response is None else f" {response.status_code}"
    if response is not None and "html" in response.headers.get("Content-Type", ""):
        what = "a page of HTML"
    passing = response is not None and response.status_code in _PASSING
    return (Unreachable if passing else Failure)(
        f"{settings.server} answers{status} with {what}, and not as Muster does.",
        code=Code.NOT_REACHED,
        hint=f"Is this the right address?{_named(settings)} Something in between may have answered."
        f"{' ' if _proxy(settings) else ''}{_proxy(settings)}",
    )


def no_proxy() -> Failure:
    """What to say when the environment names a proxy that is none."""
    return Failure(
        "The environment names a proxy that is none.",
        code=Code.USAGE,
        hint="HTTP_PROXY, HTTPS_PROXY and ALL_PROXY are as http://proxy.example:3128; NO_PROXY goes"
        " around them.",
    )


def not_let_in(settings: Settings) -> Failure:
    """What to say when the server takes no token, or not the one that it was sent."""
    login = f"`muster login {settings.server}` keeps a token for later calls; an operator makes one"
    login += " with `manage.py token create`."
    if settings.token is None:
        other = (
            settings.other and f" The one that is kept for {settings.other} is sent nowhere else."
        )
        return Failure(
            f"{settings.server} wants a token, and there is none.{other}",
            code=Code.DENIED,
            hint=login,
        )
    cure = "Start `make up` anew: it makes another." if _is_local(settings.token_from) else login
    return Failure(
        f"{settings.server} does not take the token of {settings.token_from or 'this call'}: it "
        "has expired, was revoked, or is another server's.",
        code=Code.DENIED,
        hint=cure,
    )


def _cause(settings: Settings, error: httpx.TransportError, within: float) -> tuple[str, str]:
    root = next((it for it in _causes(error) if isinstance(it, OSError)), error)
    host, there = urlsplit(settings.server).hostname or "", _named(settings).strip()
    if isinstance(root, socket.gaierror):
        passing = root.errno == socket.EAI_AGAIN
        why = f"the name {host} cannot be looked up just now" if passing else f"no host is {host}"
        return why, there or "Correct the address."
    if isinstance(root, ssl.SSLCertVerificationError):
        cure = "SSL_CERT_FILE names a file with the certificate of an authority to trust."
        return f"its certificate is not trusted: {root.verify_message}", cure
    if isinstance(root, ConnectionRefusedError):
        return "nothing listens there", _start(settings)
    spoken = urlsplit(settings.server).scheme
    if not isinstance(error, httpx.ReadTimeout) and (other := _other_protocol(settings.server)):
        return f"it speaks {other} there, not {spoken}", f"Write {other}://… {there}".strip()
    if isinstance(error, httpx.ConnectError):
        return _text(root), _start(settings)
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {within:g} s", f"The host may be down. {there}".strip()
    why = f"nothing came within {within:g} s" if isinstance(error, httpx.TimeoutException) else ""
    see = f"Something listens there: see {settings.server}/readyz and the log of the server."
    return why or f"the connection broke off ({_text(root)})", see


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _other_protocol(server: str) -> str:
    """`http` or `https` when *server*, addressed by the one, turns out to speak the other."""
    address = urlsplit(server)
    with suppress(OSError, ValueError, httpx.HTTPError, httpx.InvalidURL):
        if address.scheme == "https":
            plain = httpx.get(
                f"http://{address.netloc}/healthz", timeout=PROBE_WITHIN, trust_env=False
            )
            # What expects TLS may say in plain words that it does.
            return "http" if plain.status_code != httpx.codes.BAD_REQUEST else ""
        anybody = ssl._create_unverified_context()  # noqa: S323 - nothing is told to it
        where = (address.hostname or "", address.port or 80)
        with (
            socket.create_connection(where, PROBE_WITHIN) as link,
            anybody.wrap_socket(link, server_hostname=address.hostname),
        ):
            return "https"
    return ""


def _start(settings: Settings) -> str:
    if _is_local(settings.server_from):
        return (
            "`make up` left this address. If it runs, its web process is being started again: "
            "try again in a moment; else start it, or name another server with --server."
        )
    if not settings.server_from:
        return (
            "Start a cluster with `make up`, or say where one is with --server, MUSTER_SERVER or "
            "`muster login`."
        )
    return f"Does the server run there?{_named(settings)}"


def _named(settings: Settings) -> str:
    return f" The address comes from {settings.server_from}." if settings.server_from else ""


def _is_local(place: str) -> bool:
    return place in {str(local_file()), str(local_file().with_name("token"))}


def _proxy(settings: Settings) -> str:
    """That a proxy was asked, when the environment names one."""
    address = urlsplit(settings.server)
    proxies, host = getproxies(), address.hostname or ""
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return ""
    # It may hold a password.
    shown = urlsplit(proxy)
    where = f"{shown.hostname}:{shown.port}" if shown.port else shown.hostname or "the environment"
    return f"It is asked through the proxy {where}; NO_PROXY={host} goes around it."
