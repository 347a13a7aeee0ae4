"""Launchers out of one interpreter that has everything imported: half of a test's time on an emulated machine.

Used for all tests where BOXROOM_TEST_WARM=1 says so; elsewhere for those that ask nothing of the launcher itself
(conftest.py, OWN_LAUNCHERS): in the others each is started as the panel starts it. What is forked here does what
launcher.py does when it is run, in the network namespace of the thread that asks for it, and differs in its environment
as /proc shows it, and in having nothing more of the test that asks for it.

Run as a program it reads a line for each launcher, and answers with its pid: {"state_dir", "environment", "netns"}.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
DESCRIPTORS: Final = 1024


class Forked:
    """A launcher that is the nursery's child, with what the tests use of subprocess.Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return 0 once it has ended, with whatever status."""
        return 0 if self._fd < 0 or self._ended(0) else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; raises TimeoutExpired."""
        if self._fd >= 0:
            if not self._ended(timeout):
                raise subprocess.TimeoutExpired("launcher", timeout or 0.0)
            os.close(self._fd)
            self._fd = -1
        return 0

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def _ended(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


class Nursery:
    """The interpreter that forks launchers."""

    def __init__(self, room: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", __file__, room],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def fork(self, state_dir: Path, environment: dict[str, str]) -> Forked:
        """Return a new launcher."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        netns = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        wanted = {"state_dir": str(state_dir), "environment": environment, "netns": netns}
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()))

    def close(self) -> None:
        """End it, and the launchers that were not ended."""
        self._process.communicate()


def main() -> None:
    """Fork a launcher for each line."""
    sys.path.insert(0, str(PROJECT))
    from containers.core.kernel.syscalls import CLONE_NEWNET, PR_SET_PDEATHSIG, overwrite_cmdline, prctl, setns
    from containers.core.proc import launcher

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever has ended is nobody's to reap
    own_pid = os.getpid()
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid:
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
            continue
        status = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # it ends with the nursery, which ends with the run, however that ends
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != own_pid:
                raise SystemExit
            setns(os.open(wanted["netns"], os.O_RDONLY), CLONE_NEWNET)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(2, 1)
            os.closerange(3, DESCRIPTORS)
            os.environ.clear()
            os.environ.update(wanted["environment"])
            overwrite_cmdline(f"launcher.py {wanted['state_dir']}".encode())
            launcher.main(wanted["state_dir"])
            status = 0
        except SystemExit as left:
            status = int(left.code or 0)
        except BaseException:  # noqa: BLE001 - the fork's last frame
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)


if __name__ == "__main__":
    main()
