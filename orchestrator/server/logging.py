"""What our processes say about themselves: structured lines, with nothing secret in them."""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from orchestrator.explain.database_errors import classify

SECRETS = (
    # A token of ours: two letters, its id, its secret. The id stays, so that it can be revoked.
    (re.compile(r"\b([a-z]{2}_[A-Za-z0-9]+)_[A-Za-z0-9_\-]{16,}"), r"\1_…"),
    (re.compile(r"(?i)\b(bearer|node|basic)\s+[A-Za-z0-9_\-+/=.]{16,}"), r"\1 …"),
    (re.compile(r"(\w+://[^:/@\s]+):[^@/\s]+@"), r"\1:…@"),
    (re.compile(r"(?i)\b(password|secret|token)(['\"]?\s*[=:]\s*['\"]?)[^\s'\",&]+"), r"\1\2…"),
)
"""What a secret looks like in a line, and what stands there instead."""


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take the secrets out of every text in *event*."""
    return {name: _redacted(value) for name, value in event.items()}


def without_secrets(text: str) -> str:
    """Give *text* with its secrets taken out."""
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return text


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Show what a terminal would obey, and what would begin a line of its own, as escapes."""
    return {
        name: _escaped(value, _IN_LINES if name in _OF_LINES else _CONTROLS)
        for name, value in event.items()
    }


_HIDDEN = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROLS = re.compile(rf"[\x00-\x1f{_HIDDEN}]")
_OF_LINES = {"exception", "stack"}
_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_HIDDEN}]")


def _escaped(value: object, pattern: re.Pattern[str]) -> object:
    if not isinstance(value, str):
        return value
    return pattern.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


class OneLineASecond(logging.Filter):
    """Lets an outage of the database have one line a second, without tracebacks.

    Each request and each thread meets the same outage; all of them would say the same.  What was
    left out is counted in the next line.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._quiet_until: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Let *record* pass, perhaps in other words, unless it repeats what was just said."""
        event = record.msg if isinstance(record.msg, dict) else None
        error = _error_of(record.exc_info if event is None else event.get("exc_info"))
        trouble = classify(error)
        if trouble is not None:
            key, sentence = trouble.code, f"{trouble.sentence} {_first_line(error)}"
        elif record.name == "psycopg.pool" or getattr(record, "status_code", 0) == 503:
            key, sentence = record.name, ""
        else:
            return True
        with self._lock:
            if self._clock() < self._quiet_until.get(key, 0.0):
                self._left_out[key] = self._left_out.get(key, 0) + 1
                return False
            self._quiet_until[key] = self._clock() + 1.0
            left_out = self._left_out.pop(key, 0)
        more = f" ({left_out} more like it)" if left_out else ""
        if event is not None:
            event.pop("exc_info", None)
            event["event"] = f"{event.get('event')}: {sentence}{more}"
        else:
            said = record.getMessage()
            record.msg, record.args = f"{said}: {sentence}{more}" if sentence else said + more, ()
            record.exc_info = record.exc_text = None
        return True


class RequestsThatMakeNoSense(logging.Filter):
    """Tells in one line of a request that is suspicious or refused: it is no mistake of ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let *record* pass, as a warning and without its traceback if it is about one."""
        suspicious = record.name.startswith("django.security.")
        if suspicious:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        if suspicious or (record.name == "django.request" and record.levelno < logging.ERROR):
            record.exc_info = record.exc_text = None
        return True


def _error_of(exc_info: object) -> BaseException | None:
    """Give the error that a line comes with, in each of the forms that logging takes."""
    if exc_info is True:
        return sys.exc_info()[1]
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _first_line(error: BaseException | None) -> str:
    return str(error).partition("\n")[0].strip()


def logging_config(*, level: str, style: str) -> dict[str, Any]:
    """Say, for Django's LOGGING, that every line goes through structlog to standard error."""
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    quiet = {"level": "WARNING"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": before,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    redact,
                    escape_controls,
                    renderer,
                ],
            }
        },
        "filters": {
            "outages": {"()": OneLineASecond},
            "nonsense": {"()": RequestsThatMakeNoSense},
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "structured",
                "filters": ["outages", "nonsense"],
            }
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # Both tell every connection and every task at INFO.
            "daphne": quiet,
            "django-q": quiet,
            "httpx": quiet,
            "asyncio": quiet,
            "psycopg.pool": quiet,
        },
    }


def _redacted(value: object) -> object:
    return without_secrets(value) if isinstance(value, str) else value
