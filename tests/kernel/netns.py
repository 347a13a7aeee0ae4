"""Network namespaces of the tests' own, and commands in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from containers.core.kernel import syscalls

from .patience import patient, wait_until

LEASE_SCRIPT = """#!/bin/sh
case $1 in
bound|renew) ip addr replace $ip/$mask dev $interface; ip route replace default via $router; echo "$dns $domain";;
esac
"""


def run(command: str, *, check: bool = True) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=patient(120), check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


PATIENT: Final = 30
"""How often an echo is tried for that is expected; each that does not come costs a second."""


def reaches_from(run_there: Callable[..., str], address: str, *options: str, tries: int) -> bool:
    """Whether one of so many echoes comes back to whoever runs commands there."""
    command = f"ping -c1 -W1 {' '.join(options)} {address}"
    return any("1 received" in run_there(command, check=False) for _ in range(tries))


class Place:
    """A network namespace, held by a sleeping process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "3600"])
        mine = os.stat("/proc/thread-self/ns/net").st_ino
        wait_until(lambda: os.stat(f"/proc/{self.process.pid}/ns/net").st_ino != mine)
        wait_until(lambda: Path(f"/proc/{self.process.pid}/comm").read_text() == "sleep\n")
        self.netns_fd = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.run("ip link set lo up")

    def run(self, command: str, *, check: bool = True) -> str:
        return run(f"nsenter -t {self.process.pid} -n {command}", check=check)

    def reaches(self, address: str, *options: str, tries: int = 1) -> bool:
        """Whether an echo comes back. tries: PATIENT where one is expected: ping may be held up beyond its time."""
        return reaches_from(self.run, address, *options, tries=tries)

    def close(self) -> None:
        os.close(self.netns_fd)
        self.process.kill()
        self.process.wait()


def set_netns(fd: int) -> None:
    """Move this thread into a network namespace; fd is borrowed."""
    syscalls.setns(fd, syscalls.CLONE_NEWNET)
