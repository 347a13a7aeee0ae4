"""What a supervisor leaves on disk for others to read: the run file, the last exit, and its notices."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..host import Host
from ..kernel.pids import opened, start_time
from ..model.exits import LastExit, Reason


def now() -> str:
    """Return the time as records hold it: UTC, ISO 8601."""
    # by hand: a supervisor has no use for the rest of datetime
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}+00:00"


@dataclass(frozen=True, slots=True)
class Process:
    """A process, safe against the reuse of its pid. start_time: see core.kernel.pids."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """Describe a process that is there; raises ProcessLookupError."""
        ticks = start_time(pid, zombies=True)
        if ticks is None:
            raise ProcessLookupError(3, f"no process {pid}")
        return cls(pid, ticks)

    def open(self) -> int | None:
        """Return a pidfd (the caller's), or None where the process is gone or the pid is another's by now."""
        try:
            pidfd = opened(self.pid)
        except ProcessLookupError:
            return None
        # checked after opening: from here on the pidfd cannot change its meaning
        if start_time(self.pid, zombies=True) == self.start_time:
            return pidfd
        os.close(pidfd)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """What is known of a running container without asking its supervisor. started_at: UTC, ISO 8601."""

    id: str
    name: str
    instance: str
    boot_id: str
    supervisor: Process
    init: Process
    started_at: str

    def write(self, host: Host) -> None:
        """Put the file in place, whole or not at all."""
        values = {
            **{name: getattr(self, name) for name in ("id", "name", "instance", "boot_id", "started_at")},
            "supervisor": {"pid": self.supervisor.pid, "start_time": self.supervisor.start_time},
            "init": {"pid": self.init.pid, "start_time": self.init.start_time},
        }
        write_json(host.run_path(self.id), values)

    @classmethod
    def read(cls, path: Path) -> RunFile | None:
        """Return what a supervisor wrote, or None where there is nothing; the directory is root's, so it is trusted."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # by hand: all of them are read again and again
            values = json.loads(os.read(fd, _RUN_FILE_MAX_BYTES))
        finally:
            os.close(fd)
        values["supervisor"] = Process(**values["supervisor"])
        values["init"] = Process(**values["init"])
        return cls(**values)


_RUN_FILE_MAX_BYTES: Final = 65536
"""More than names and numbers ever take."""


def _temporary(path: Path) -> str:
    return f"{path.parent}/.{path.name}.tmp"


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file by temporary name and rename."""
    temporary = _temporary(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        os.write(fd, json.dumps(values).encode())
    finally:
        os.close(fd)
    os.replace(temporary, path)


def write_last_exit(host: Host, container_id: str, last_exit: LastExit) -> None:
    """Record how a run ended; a container directory that is gone (an ephemeral one) is accepted."""
    with contextlib.suppress(FileNotFoundError):
        write_json(host.container_dir(container_id) / "last_exit.json", last_exit.as_dict())


def read_last_exit(host: Host, container_id: str) -> LastExit | None:
    """Return how the last run ended, or None where it never ran."""
    try:
        return LastExit(**json.loads((host.container_dir(container_id) / "last_exit.json").read_text()))
    except FileNotFoundError:
        return None


def notify(host: Host, container_id: str, event: str) -> None:
    """Tell the ticker, if it is there; it finds out by itself too."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        # by hand: a supervisor that has told of its start may never need the encoder again
        sock.sendto(f'{{"id": "{container_id}", "event": "{event}"}}'.encode(), str(host.events_socket))


def expect_path(host: Host, container_id: str) -> Path:
    """Return the file by which a stop tells the supervisor that the end to come was asked for."""
    return host.supervisor_dir() / f"{container_id}.expect"


def expect(host: Host, container_id: str, reason: Reason | None) -> None:
    """Tell how the end to come is to be recorded; None takes it back."""
    if reason is None:
        expect_path(host, container_id).unlink(missing_ok=True)
    else:
        write_json(expect_path(host, container_id), {"reason": reason})


def forget_expected(host: Host, container_id: str) -> None:
    """Take back what was told, and what is left of it where who told it was killed.

    The caller holds the lock of the container's run, as who tells it does.
    """
    path = expect_path(host, container_id)
    path.unlink(missing_ok=True)
    Path(_temporary(path)).unlink(missing_ok=True)


def expected(host: Host, container_id: str) -> Reason | None:
    """Return what expect() was told last."""
    try:
        reason: Reason = json.loads(expect_path(host, container_id).read_text())["reason"]
    except FileNotFoundError:
        return None
    return reason
