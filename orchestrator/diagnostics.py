"""What our processes say about themselves: structured lines, with nothing secret in them."""

import re
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

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
                    renderer,
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
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
