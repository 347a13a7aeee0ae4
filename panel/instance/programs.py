"""What the processes of an instance are started with: one function per process."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from containers.core.host import WEB_USER, Host
from containers.core.interpreter import interpreter
from containers.core.plans.start_plan import TITLE_ROOM

from . import code, redis_server
from .layout import Bind, read_json, redis_user, web_group

MESSAGE_MAX = str(1024**2)
"""Bytes of a WebSocket message that daphne takes in; the consumers refuse in words what is too large for them."""


PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy")
LOOPBACK: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Program:
    """How to start one process. options: see tether.py. stdin: made anew at each start."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    stdin: Callable[[], str] | None = None
    stop_sec: float = 10.0


def environment(host: Host, role: str) -> dict[str, str]:
    """Return a clean environment for a process of the instance."""
    kept = ["LANG", "LC_ALL", "TZ", "BOXROOM_FAILPOINTS", "BOXROOM_DEBUG", "BOXROOM_REDIS_URL"]
    if role == "worker":  # it downloads what images are made of
        kept += PROXIES
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONUNBUFFERED": "1",
        "BOXROOM_STATE_DIR": str(host.state_dir),
        "BOXROOM_ROLE": role,
        "DJANGO_SETTINGS_MODULE": "panel.settings",
    }


def redis(host: Host) -> Program:
    """Return the private Redis, run as Debian's redis user in the web's group."""
    return Program(
        "redis",
        ["/usr/bin/redis-server", "-"],
        environment(host, "command"),
        {"uid": redis_user().pw_uid, "gid": web_group()},
        lambda: redis_server.config(host),
    )


def launcher(host: Host, project: Path) -> Program:
    """Return the launcher: a warm, single-threaded interpreter that forks supervisors."""
    script = str(project / "containers/core/proc/launcher.py")
    # -I -S: no site packages, no user's files, no PYTHON* variables; the real interpreter, not the environment's
    command = [interpreter(), "-I", "-S", "-B", script, str(host.state_dir), TITLE_ROOM]
    return Program("launcher", command, environment(host, "command"))


def worker(host: Host, project: Path, name: str) -> Program:
    """Return the root worker on the host's queue."""
    command = [sys.executable, "-m", "celery", "-A", "panel", "worker", "-Q", f"host.{name}", "-n", f"worker@{name}",
               "-P", "threads", "-c", "8", "--without-gossip", "--without-mingle",
               "--without-heartbeat", "-l", "INFO"]  # fmt: skip
    settings = {**environment(host, "worker"), "PYTHONPATH": str(project)}
    return Program("worker", command, settings, stop_sec=15.0)


def ticker(host: Host, project: Path) -> Program:
    """Return the ticker: samples, reconciles, rings again."""
    return Program("ticker", [sys.executable, str(project / "manage.py"), "ticker"], environment(host, "ticker"))


def web(host: Host, project: Path, bind: Bind) -> Program:
    """Return daphne as the unprivileged web user, with the code, its environment and its data bound where it can read.

    It sees a copy of the code in the run directory (readable whatever the clone's modes are), the virtual environment
    read-only, and of the state directory the web's part and, read-only, what root has made for it.
    """
    user = pwd.getpwnam(WEB_USER)
    mounts = host.run_dir / "mnt"
    for name in ("venv", "panel", "web"):
        (mounts / name).mkdir(parents=True, exist_ok=True)
    app = code.copy(host, project)
    settings = {
        **environment(host, "web"),
        "BOXROOM_PANEL_DIR": str(mounts / "panel"),
        "BOXROOM_WEB_DIR": str(mounts / "web"),
        "PYTHONPATH": str(app),
        "HOME": "/nonexistent",
        "ASGI_THREADS": "16",
        # a thread per request: with an arena for each, hundreds at once would leave hundreds of megabytes behind
        "MALLOC_ARENA_MAX": "2",
    }
    command = [str(mounts / "venv/bin/python"), "-m", "daphne", "-b", bind.host, "-p", str(bind.port),
               "--no-server-name",
               "--websocket-max-message-size", MESSAGE_MAX, "--websocket-max-frame-size", MESSAGE_MAX,
               "--websocket_timeout", "-1", "--websocket_connect_timeout", "10", "--ping-interval", "20",
               "--ping-timeout", "30", "--application-close-timeout", "10",
               # an access log would hold sign-in links; who did what is in the audit trail
               "--access-log", "/dev/null", "--verbosity", "1"]  # fmt: skip
    if read_json(host.panel_dir / "web.json").get("extra_origins") and bind.host in LOOPBACK:
        # a reverse proxy on this machine stands before us: nobody else can reach us and claim to be one
        command += ["--proxy-headers", "--proxy-headers-host", "X-Real-IP"]
    command.append("panel.asgi:application")
    options = {
        "uid": user.pw_uid,
        "gid": user.pw_gid,
        "binds": [[str(host.web_dir), str(mounts / "web")]],
        "read_only_binds": [
            [str(project / ".venv"), str(mounts / "venv")],
            [str(host.panel_dir), str(mounts / "panel")],
        ],
    }
    return Program("web", command, settings, options, stop_sec=5.0)


def tethered(project: Path, program: Program) -> list[str]:
    """Return the command line that starts a program under tether.py."""
    script, options = str(project / "panel/instance/tether.py"), json.dumps(dict(program.options))
    return [interpreter(), "-I", "-S", "-B", script, options, *program.command]
