"""Which `up` runs on a state directory, and what an earlier one left behind when it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time
from pathlib import Path
from typing import Any, Final

from containers.core.host import Host
from containers.core.kernel.pids import opened, start_time

from .layout import read_json, write_json

ROLES: Final = ("daphne", "celery", "redis-server", "ticker", "launcher.py")
"""What the command lines of the panel's processes hold; supervisors and dnsmasq are not the panel's to end."""


class Lock:
    """The lock of the one `up` on a state directory; it dies with its holder. name: another for some parts only."""

    def __init__(self, host: Host, name: str = "up") -> None:
        self._path = host.run_dir / f"{name}.lock"
        self._info = host.run_dir / f"{name}.json"
        self._fd: int | None = None

    def take(self) -> bool:
        """Take the lock; False when another `up` holds it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def announce(self, **info: Any) -> None:
        """Say who holds the lock, and where the panel listens."""
        write_json(self._info, {"pid": os.getpid(), "start_time": start_time(os.getpid()), **info}, mode=0o644)

    def holder(self) -> dict[str, Any] | None:
        """Return what the present holder announced, or None where nobody holds the lock."""
        if self._fd is None and self.take():
            self.release()
            return None
        return read_json(self._info)

    def release(self) -> None:
        """Give the lock back."""
        self._info.unlink(missing_ok=True)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def panel_processes(host: Host) -> list[int]:
    """Return the pids of the panel's processes on this state directory, whoever started them."""
    wanted = f"BOXROOM_STATE_DIR={host.state_dir}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[:1] == [b"supervisor"]:
                continue
            if any(Path(word.decode(errors="replace")).name in ROLES for word in words):
                found.append(int(entry.name))
    return found


def stop_panel(host: Host) -> bool:
    """End `up`, which ends the rest; then whatever an `up` that was killed has left. Returns whether there was any."""
    info = Lock(host).holder() if host.run_dir.exists() else None
    if info and info.get("pid") and start_time(info["pid"], zombies=True) == info["start_time"]:
        end([info["pid"]], timeout_sec=45.0)
    left = panel_processes(host)
    end(left, timeout_sec=5.0)
    return bool(info or left)


def end(pids: list[int], *, timeout_sec: float) -> None:
    """End processes by pidfd: SIGTERM, then SIGKILL when the time is up."""
    fds = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            fds.append(opened(pid))
    try:
        for number, limit in ((signal.SIGTERM, timeout_sec), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + limit
            for fd in fds:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, number)
            for fd in list(fds):
                if select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    fds.remove(fd)
                    os.close(fd)
            if not fds:
                return
    finally:
        for fd in fds:
            os.close(fd)
