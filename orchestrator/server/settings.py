"""Django's settings. What varies comes from the environment, see `environment.py`."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF
from django.core.management.utils import get_random_secret_key

from orchestrator.server import environment, postgres, private_files
from orchestrator.server.environment import Role
from orchestrator.server.logging import logging_config

try:
    ENVIRONMENT = environment.parse(os.environ)
except environment.Misconfigured as mistakes:
    sys.stderr.write(f"muster: the environment is wrong:\n{mistakes}\n")
    raise SystemExit(environment.EX_CONFIG) from None

BASE_DIR = environment.HOME
VAR = ENVIRONMENT.var
ROLE = ENVIRONMENT.role
DEBUG = ENVIRONMENT.debug


PASSABLE = 0o711 if os.geteuid() == 0 else 0o700
"""Root's is passed through by the user that runs its database, and read by nobody else."""


def _kept_secret(file: Path) -> str:
    """Read the key in *file*, or make one; of several processes that make one, the first wins."""
    if not file.exists():
        mine = file.with_name(f"{file.name}.{os.getpid()}")
        mine.touch(mode=0o600)
        mine.write_text(get_random_secret_key())
        with suppress(FileExistsError):
            file.hardlink_to(mine)
        mine.unlink()
    return file.read_text()


try:
    private_files.make_directory(VAR, PASSABLE)
    SECRET_KEY = ENVIRONMENT.secret_key or _kept_secret(VAR / "secret_key")
except PermissionError as refused:
    sys.stderr.write(
        f"muster: {refused.filename} belongs to another user. Start Muster as that user, or point "
        "MUSTER_VAR at a directory of your own.\n"
    )
    raise SystemExit(environment.EX_CONFIG) from None
except OSError as refused:
    sys.stderr.write(
        f"muster: {refused.filename or VAR} cannot be used: {refused.strerror}. Point MUSTER_VAR "
        "at a directory that Muster may write to.\n"
    )
    raise SystemExit(environment.EX_CONFIG) from None

SECRETS_KEY_FILE = ENVIRONMENT.secrets_key_file or VAR / "secrets_key"
SECRETS_KEY_FILE_IS_GIVEN = ENVIRONMENT.secrets_key_file is not None
"""Then it is there, or nothing is sealed: each host must have the same keys."""

if ENVIRONMENT.secret_key is None and (weak := environment.weakness(SECRET_KEY)):
    sys.stderr.write(f"muster: the key in {VAR / 'secret_key'} {weak}.\n")
    raise SystemExit(environment.EX_CONFIG)

# --- who may reach us --------------------------------------------------------------------------

HTTPS = ENVIRONMENT.https
ALLOWED_HOSTS = [*environment.LOOPBACK, *ENVIRONMENT.hosts]
CSRF_TRUSTED_ORIGINS = list(ENVIRONMENT.origins)
CSRF_FAILURE_VIEW = "orchestrator.server.error_pages.no_csrf_token"
INTERNAL_URL = ENVIRONMENT.internal_url
TRUSTED_PROXIES = ENVIRONMENT.trusted_proxies
REQUESTS_PER_SECOND = ENVIRONMENT.requests_per_second
CONNECTIONS_PER_ADDRESS = ENVIRONMENT.connections_per_address
STREAMS_PER_USER = ENVIRONMENT.streams_per_user
SOCKETS_PER_USER = ENVIRONMENT.sockets_per_user
SESSION_ENGINE = "orchestrator.access.sessions"
MINIMUM_ISOLATION = ENVIRONMENT.minimum_isolation
# A browser takes a cookie of such a name from this host alone, and by https.
COOKIE_PREFIX = "__Host-" if HTTPS else ""
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}muster_session"
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}csrftoken"
SESSION_COOKIE_AGE = 8 * 60 * 60  # After what a person did last; see `sliding_sessions`.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_SSL_REDIRECT = HTTPS
# Probes, nodes, other web processes and the command line come as they were told to: a redirect
# would only have them say their secrets first.
SECURE_REDIRECT_EXEMPT = [r"^(api|nodes|internal)/", r"^(healthz|readyz)$"]
SECURE_HSTS_SECONDS = 30 * 24 * 3600 if HTTPS else 0
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # Other hosts below our name are not ours to decide about,
    "security.W021",  # nor is what browsers are shipped with.
]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],  # The websocket of the same origin included.
        "form-action": [SELF],
        "manifest-src": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}

# --- what it is made of ------------------------------------------------------------------------

INSTALLED_APPS = [
    "orchestrator",
    "nodes",
    "dashboard",
    "channels",
    "django_q",
    "django_htmx",
    "pgtrigger",
    "ninja",
    "csp",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "orchestrator.server.middleware.known_hosts",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "orchestrator.server.middleware.nothing_hidden",
    "orchestrator.server.middleware.no_floods",
    "orchestrator.server.middleware.sliding_sessions",
    "orchestrator.server.middleware.no_nul_in_the_administration",
    "orchestrator.server.middleware.one_thread_hop",
]
ROOT_URLCONF = "orchestrator.server.urls"
ASGI_APPLICATION = "orchestrator.server.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # Straight from the packages: nothing to collect, nothing to forget.
WHITENOISE_AUTOREFRESH = DEBUG

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
PASSWORD_HASHERS = [
    f"django.contrib.auth.hashers.{name}PasswordHasher" for name in ("Argon2", "PBKDF2")
]  # What the second made becomes the first's at the next sign-in.
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- the database ------------------------------------------------------------------------------

LIMITS: dict[Role, dict[str, str]] = {
    Role.WEB: {
        "statement_timeout": "15s",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "10s",
    },
    Role.WORKER: {
        "statement_timeout": "60s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "5s",
    },
    Role.COMMAND: {},  # A migration takes as long as it takes.
}
"""How long one statement, one lock and one forgotten transaction may last, by role of process.

A process that is stopped in the middle of a transaction keeps others from its rows no longer.
"""

OVER_TCP = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""How soon a server that vanished is noticed: of a silent connection after 19 seconds, of one on
which something was said after 20.  Without the last, in milliseconds, the kernel repeats what was
said for a quarter of an hour, and asks for no sign of life meanwhile."""

EMBEDDED = VAR / "postgres" if ENVIRONMENT.database_url is None else None
"""Where the database of our own lies; None when there is one elsewhere."""

PLACE = None if EMBEDDED is None else postgres.place(EMBEDDED)
DATABASE_DISK = None if PLACE is None else PLACE.data
"""The directory whose disk our own database fills."""

DATABASE_ROOM = postgres.SEGMENT
"""Bytes without which our own database ends."""


def _address() -> str:
    """Where the database elsewhere is, and as whom it is reached: commands come as the owner."""
    migrate_url = ENVIRONMENT.migrate_url if ROLE is Role.COMMAND else None
    return migrate_url or ENVIRONMENT.database_url or ""


def _application_role() -> str | None:
    """The database role of web and workers, where it is not the schema's owner."""
    if PLACE is not None:
        return postgres.APPLICATION
    if ENVIRONMENT.migrate_url is None:
        return None
    ours, owner = (
        dj_database_url.parse(url or "").get("USER")
        for url in (ENVIRONMENT.database_url, ENVIRONMENT.migrate_url)
    )
    return None if ours == owner else ours


APPLICATION_ROLE = _application_role()
"""Whom migrations let read and write rows; None where one role does everything."""


def _database() -> dict[str, Any]:
    if PLACE is None:
        found: dict[str, Any] = dict(dj_database_url.parse(_address()))
    else:
        found = {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": str(PLACE.sockets),
            "NAME": postgres.DATABASE,
            "USER": postgres.OWNER if ROLE is Role.COMMAND else postgres.APPLICATION,
            "OPTIONS": {"passfile": str(PLACE.passwords)},
        }
    found["OPTIONS"] = options = {
        "application_name": f"muster {ROLE}",
        "connect_timeout": 5,
        **OVER_TCP,
        **found.get("OPTIONS", {}),
    }
    # Parameters travel beside the statement, so that a statement met before is not planned again:
    # planning is half the time of what a worker does for one job.
    options |= {"server_side_binding": True, "prepare_threshold": 3}
    limits = " ".join(f"-c {name}={value}" for name, value in LIMITS[ROLE].items())
    options["options"] = f"{options.get('options', '')} {limits}".strip()
    if ROLE is Role.WEB:
        # One pool for the threads of one process. The workers fork, and a pool does not survive
        # that; they keep one connection each instead.
        options["pool"] = {"min_size": 2, "max_size": 16, "timeout": 2}
    found |= {"CONN_MAX_AGE": 0 if ROLE is Role.WEB else None, "CONN_HEALTH_CHECKS": True}
    return found


DATABASES = {"default": _database()}

# --- the workers -------------------------------------------------------------------------------

Q_CLUSTER = {
    "name": "muster",
    "label": "Workers",
    "broker_class": "orchestrator.server.cluster.evaluation_broker.EvaluationBroker",
    "orm": "default",
    "workers": ENVIRONMENT.workers,
    "queue_limit": 1,  # A ticket never waits behind others, so leases begin when work begins.
    "bulk": 1,
    "poll": 1,  # Behind LISTEN, which is what normally wakes the broker.
    "timeout": 60,
    "retry": 120,
    "max_attempts": 1,
    "ack_failures": True,
    "save_limit": -1,  # Writing results costs more than the work.
    "catch_up": False,
    "recycle": 10_000,
    "log_level": "WARNING",
}

# --- what they say -----------------------------------------------------------------------------

LOGGING = logging_config(level=ENVIRONMENT.log_level, style=ENVIRONMENT.log_format)
