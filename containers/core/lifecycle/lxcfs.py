"""Watches lxcfs, and has running containers follow when it ended or was started again. For the ticker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from ..errors import CoreError
from ..host import Host
from ..kernel import mount_api
from ..proc.records import RunFile
from ..rules import policy_file
from .granting import found_lxcfs

_ANSWER_SEC: Final = 2.0
_HELPER_SEC: Final = 30.0
_TRIES: Final = 5
"""How often a container is tried that does not follow: a helper that hangs holds the ticker's other chores up."""
_SCRIPT: Final = Path(__file__).parents[1] / "proc/lxcfs_again.py"


class Lxcfs:
    """What was seen of lxcfs the last time. One that hangs costs one thread, and changes nothing in containers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seen: str | None = None
        self._asking: threading.Thread | None = None
        self._behind: dict[Path, int] = {}
        """The run files of containers that have not followed, with how often they may be tried again."""

    def look(self) -> int:
        """Look once; returns in how many running containers lxcfs was put in place again, or taken away.

        Raises OSError only where this process has no thread or descriptor left.
        """
        now = self._now()
        if now is None:
            return 0
        if now != self._seen:
            first, self._seen = self._seen is None, now
            # what was started while nobody looked has what was there then, which may be another by now
            self._behind = {} if first and not now else dict.fromkeys(self._runs(), _TRIES)
        return self._follow(now.partition(" ")[2]) if self._behind else 0

    def _runs(self) -> list[Path]:
        return sorted(self._host.supervisor_dir().glob("*.json"))

    def _now(self) -> str | None:
        """Return "MOUNT PLACE" of an lxcfs that answers, "" where there is none, None while it cannot be told."""
        if self._asking is not None and self._asking.is_alive():
            return None
        try:
            place = found_lxcfs(policy_file.load(self._host).containers.lxcfs)
        except CoreError:
            return None
        if not place:
            return ""
        answers: list[bool] = []

        def ask() -> None:
            try:
                os.stat(f"{place}/proc/uptime")
            except OSError:
                answers.append(False)
            else:
                answers.append(True)

        self._asking = threading.Thread(target=ask, daemon=True, name="lxcfs")
        self._asking.start()
        self._asking.join(_ANSWER_SEC)
        if not answers:
            return None
        if not answers[0]:
            return ""
        fd = mount_api.open_path(None, place, 0)
        try:
            return f"{mount_api.mount_id(fd)} {place}"
        finally:
            os.close(fd)

    def _follow(self, place: str) -> int:
        done = 0
        for path, tries in list(self._behind.items()):
            del self._behind[path]
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                run = RunFile.read(path)
                pidfd = run.init.open() if run is not None else None
                if run is None or pidfd is None:
                    continue
                try:
                    followed = _again(pidfd, run.init.pid, place)
                finally:
                    os.close(pidfd)
                done += followed
                if not followed and tries > 1:
                    self._behind[path] = tries - 1
        return done


def _again(pidfd: int, pid: int, place: str) -> bool:
    command = [os.path.realpath(sys.executable), "-I", "-S", str(_SCRIPT), str(pidfd), str(pid), place]
    try:
        done = subprocess.run(
            command, pass_fds=(pidfd,), stdin=subprocess.DEVNULL, capture_output=True, timeout=_HELPER_SEC, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
