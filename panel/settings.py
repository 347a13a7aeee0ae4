"""Django's settings. The environment is read here, once; what is unknown there is refused."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

STATE_DIR = Path(os.environ.get("BOXROOM_STATE_DIR", "/var/lib/boxroom"))
"""The instance's state directory. The web process sees only PANEL_DIR and WEB_DIR of it."""
PANEL_DIR = Path(os.environ.get("BOXROOM_PANEL_DIR", STATE_DIR / "panel"))
"""Written by root only: what stands there, root's processes believe."""
WEB_DIR = Path(os.environ.get("BOXROOM_WEB_DIR", STATE_DIR / "web"))
"""Written by the web process."""
ROLE = os.environ.get("BOXROOM_ROLE", "command")
if ROLE not in ("web", "worker", "ticker", "command", "test"):
    raise ImproperlyConfigured(f"BOXROOM_ROLE={ROLE!r}: use web, worker, ticker, command or test.")


def _json_file(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except PermissionError:
        if ROLE != "command":
            raise
        return {}  # somebody who is not root asks for help, or what this host lacks
    return loaded


_web = _json_file(PANEL_DIR / "web.json")
"""Made by `up`: secret_key, instance, host, origins, own_origins (where it listens), database_url, redis_password (of
the web's ACL user)."""

SECRET_KEY: str = _web.get("secret_key") or ("only-for-tests-and-checks" if ROLE in ("test", "command") else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(f"{PANEL_DIR / 'web.json'} has no secret_key; `manage.py up` makes it.")

BOXROOM_INSTANCE: str = _web.get("instance", "")
BOXROOM_HOST: str = _web.get("host", "local")
BOXROOM_RUN_DIR = Path("/run/boxroom") / (BOXROOM_INSTANCE or "none")
BOXROOM_ORIGINS: list[str] = _web.get("origins", ["http://127.0.0.1:8080", "http://localhost:8080"])
"""Full origins (scheme, host, port) under which the panel is reached."""
SECURE = all(origin.startswith("https://") for origin in BOXROOM_ORIGINS)

DEBUG = os.environ.get("BOXROOM_DEBUG", "0") == "1"


def _host(origin: str) -> str:
    """Return an origin's host as it stands in a request: an IPv6 address in brackets."""
    name = urlparse(origin).hostname or ""
    return f"[{name}]" if ":" in name else name


ALLOWED_HOSTS: list[str] = sorted(
    {_host(origin) for origin in (*BOXROOM_ORIGINS, *_web.get("own_origins", ()))} | {"testserver"}
)
"""Behind a reverse proxy too, programs on this machine reach the panel where it listens; browsers need an origin."""
CSRF_TRUSTED_ORIGINS = BOXROOM_ORIGINS
CSRF_FAILURE_VIEW = "panel.forgery.refused"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "panel.accounts",
    "panel",
    "containers",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "panel.middleware.ContentSecurityPolicy",
    "panel.middleware.ApiErrors",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "panel.urls"
ASGI_APPLICATION = "panel.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "panel.context.page",
            ],
        },
    },
]


def _database(url: str) -> dict[str, Any]:
    """Return Django's settings for a postgresql:// URL, or for the instance's own SQLite where url is empty."""
    if not url:
        return {
            "ENGINE": "panel.sqlite",
            "NAME": str(WEB_DIR / "db.sqlite3"),
            # those of long-lived threads stay; the ticker's keeps the journal files from coming and going, too
            "CONN_MAX_AGE": None if ROLE in ("ticker", "worker") else 0,
            "OPTIONS": {
                "timeout": 30,
                "kept": 4 if ROLE == "web" else 0,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=30000;",
            },
        }
    parts = urlparse(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ImproperlyConfigured("DATABASE_URL must begin with postgresql://, or be empty for SQLite.")
    query = dict(pair.split("=", 1) for pair in parts.query.split("&") if "=" in pair)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or query.get("host", "")),
        "PORT": str(parts.port or query.get("port", "")),
        "CONN_HEALTH_CHECKS": True,
    }


DATABASES = {"default": _database(os.environ.get("DATABASE_URL") or _web.get("database_url", ""))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_ADAPTER = "panel.accounts.adapter.AccountAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]

SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_NAME = "__Host-sessionid" if SECURE else "boxroom_sessionid"
SESSION_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
CSRF_COOKIE_NAME = "__Host-csrftoken" if SECURE else "boxroom_csrftoken"
CSRF_COOKIE_SECURE = SECURE
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Strict"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 9 * 1024**2

CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = None if ROLE == "test" else PANEL_DIR / "static"  # tests ask the finders
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if ROLE == "test"
        else "panel.static_files.StaticFiles"
    },
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

REDIS_URL: str = os.environ.get("BOXROOM_REDIS_URL", "")
if BOXROOM_INSTANCE and not REDIS_URL:
    # the root processes hold the worker's ACL user, the web holds its own
    _root = _json_file(STATE_DIR / "root.json") if os.geteuid() == 0 else {}
    _user, _password = ("worker", _root["redis_password"]) if _root else ("web", _web.get("redis_password", ""))
    REDIS_URL = f"redis+socket://{_user}:{_password}@{BOXROOM_RUN_DIR}/redis/redis.sock"

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}

HOSTNAME = socket.gethostname()
