"""The processes of an instance, and the watcher that restarts what dies.

The watcher is small and holds no database connection. Its children get SIGTERM when it is killed itself
(PR_SET_PDEATHSIG), so a new `up` never meets two of a kind; containers live on in any case.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from containers.core.host import Host

from .programs import Program, tethered

LOG_MAX_BYTES: Final = 8 * 1024**2
TRIM_EVERY_SEC: Final = 10.0
RESTART_DELAYS_SEC: Final = (0.1, 0.3, 1.0, 2.0, 3.0)
HEALTHY_AFTER_SEC: Final = 30.0
NEEDED: Final = ("redis", "launcher")
"""What the others use: stopped after them."""


@dataclass
class Process:
    """One process that is kept running. failures: deaths since it was last healthy."""

    program: Program
    child: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started: float = 0.0
    due: float = 0.0

    @property
    def name(self) -> str:
        """What it is called in logs."""
        return self.program.name


class Watcher:
    """Starts processes in order, restarts what dies, stops them in the opposite order."""

    def __init__(self, host: Host, project: Path, say: Callable[[str], None]) -> None:
        self.host = host
        self.project = project
        self.say = say
        self.processes: list[Process] = []
        self._trimmed = 0.0

    def add(self, program: Program) -> None:
        """Start a program and keep it running."""
        process = Process(program)
        self.processes.append(process)
        self._start(process)

    def log_path(self, name: str) -> Path:
        """Return the path of a process's log."""
        return self.host.log_dir / f"{name}.log"

    def tend(self) -> None:
        """Restart what has died and whose time to start again has come. Call it often."""
        now = time.monotonic()
        for process in self.processes:
            if process.child is not None:
                status = process.child.poll()
                if status is None:
                    if process.failures and now - process.started > HEALTHY_AFTER_SEC:
                        process.failures = 0
                    continue
                delay = RESTART_DELAYS_SEC[min(process.failures, len(RESTART_DELAYS_SEC) - 1)]
                process.child, process.failures, process.due = None, process.failures + 1, now + delay
                self.say(f"{process.name} ended ({describe_status(status)}); starting it again in {delay:g} s.")
            if process.child is None and now >= process.due:
                self._start(process)

        if now - self._trimmed >= TRIM_EVERY_SEC:
            self._trimmed = now
            trim_logs(self.host.log_dir)

    def stop(self) -> None:
        """Stop every process, those that need others before these: SIGTERM, then SIGKILL when its time is up."""
        needed = [process for process in self.processes if process.name in NEEDED]
        for together in ([process for process in self.processes if process not in needed], needed):
            running = [process.child for process in together if process.child and process.child.poll() is None]
            for child in running:
                child.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + max((process.program.stop_sec for process in together), default=0)
            for child in running:
                try:
                    child.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        self.processes.clear()

    def _start(self, process: Process) -> None:
        path = self.log_path(process.name)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > LOG_MAX_BYTES:
                path.rename(path.with_suffix(".log.1"))
        program = process.program
        with _log(path) as log:
            process.child = subprocess.Popen(
                tethered(self.project, program),
                stdin=subprocess.PIPE if program.stdin else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=dict(program.environment),
                start_new_session=True,
            )
        process.started = time.monotonic()
        if program.stdin and process.child.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.child.stdin.write(program.stdin().encode())
                process.child.stdin.close()


def finish(child: subprocess.Popen[str], stopping: Collection[int]) -> tuple[str, str]:
    """Return what a child printed and complained of until its end, which is asked for as soon as stopping holds one."""
    while True:
        try:
            return child.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            if stopping:
                child.terminate()


def _log(path: Path) -> BinaryIO:
    """Open a log; where the disk has no room for it, what is written to it is lost, and the process runs on."""
    try:
        return path.open("ab")
    except OSError:
        return Path("/dev/null").open("ab")


def trim_logs(directory: Path) -> None:
    """Begin the logs anew that are longer than LOG_MAX_BYTES; the one before is kept as NAME.log.1.

    Whoever writes keeps his descriptor, which appends: so the file is copied and emptied, not renamed. What is written
    between the two is lost. On a full disk it is emptied all the same.
    """
    for path in directory.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > LOG_MAX_BYTES:
                with contextlib.suppress(OSError):
                    shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)


def describe_status(status: int) -> str:
    """Say in words how a child ended: an exit status, or a signal's name."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
