"""Whether a page that opens a socket is ours: the same scheme, host and port as its own address."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host

DEFAULT_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]


def is_ours(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the Origin is one of MUSTER_ORIGINS, or the very host that the request is for."""
    said = list(headers)
    origin = _parse(_only(said, b"origin"))
    if origin is None:
        return False
    if origin in map(_parse, settings.CSRF_TRUSTED_ORIGINS):
        return True
    scheme = "https" if settings.HTTPS else "http"
    here = _parse(f"{scheme}://{_only(said, b'host')}")
    return origin == here and validate_host(_bracketed(here[1]), settings.ALLOWED_HOSTS)


def _only(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """What the one header *name* says; nothing where there are several."""
    found = [value for header, value in headers if header == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""


def _parse(text: str) -> Origin | None:
    """Scheme, host and port of an origin; None of what is none."""
    try:
        parts = urlsplit(text.lower())
        port = parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not parts.hostname or parts.username is not None or parts.path or parts.query:
        return None
    return parts.scheme, parts.hostname, port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
