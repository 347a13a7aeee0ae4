"""Which signal asks a container's init to shut the system down. Pure but for the two reads of /proc."""

from __future__ import annotations

import math
import os
import signal
import time
from typing import Final, NamedTuple

from . import pids

PIDS_ROOM: Final = 64
"""How many processes more than its limit a container may have while it shuts down."""
YOUNG_SEC: Final = 10.0
"""How long an init may take until it hears signals."""
TRAPS_SEC: Final = 3.0
"""How long a script that is init may take until it has set its traps."""
_SYSTEMD: Final = signal.SIGRTMIN + 3
_SYSTEMD_REBOOT: Final = signal.SIGRTMIN + 5


def parse(name: str) -> int:
    """Return the number of SIGPWR, SIGRTMIN+3, SIGRTMAX-2 or 9; raises ValueError."""
    if name.isdigit():
        return int(signal.Signals(int(name)))
    for base, edge in (("SIGRTMIN+", signal.SIGRTMIN), ("SIGRTMAX-", signal.SIGRTMAX)):
        if name.startswith(base):
            offset = int(name.removeprefix(base))
            number = edge + offset if base.endswith("+") else edge - offset
            if not signal.SIGRTMIN <= number <= signal.SIGRTMAX:
                raise ValueError(f"no such signal: {name}")
            return number
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise ValueError(f"no such signal: {name}") from None


def configured(halt_signal: str | None, *, application: bool) -> int | None:
    """Return the signal that a spec says, or that an application's init hands on; None: see choose()."""
    if halt_signal:
        return parse(halt_signal)
    return int(signal.SIGTERM) if application else None


class Choice(NamedTuple):
    """The signal to send. sure: init will get it; else it may have to be sent again."""

    signal: int
    sure: bool


def given(number: int, status: str, age_sec: float) -> Choice:
    """Return the choice of a signal that was configured; status as in choose(), age_sec: of init.

    sure: init blocks or catches it now, or had the time to. Else the kernel may drop it, as init has not come that far.
    What waits by sigtimedwait(2) shows neither; it gets the signal again only while it is young.
    """
    blocked = 0 if _forking(status) else _mask(status, "SigBlk")
    heard = _has(blocked | _mask(status, "SigCgt"), number)
    return Choice(number, sure=heard or age_sec > YOUNG_SEC)


def given_for(number: int, pid: int) -> Choice:
    """Choose a configured signal for a process; one that is gone gets it once."""
    began = pids.start_time(pid)
    try:
        status = _status(pid)
    except (FileNotFoundError, ProcessLookupError):
        return Choice(number, sure=True)
    return given(number, status, _age_sec(began))


def choose(status: str, program: str, age_sec: float = math.inf) -> Choice | None:
    """Return the signal for an init that has no configured one; None while it would ignore every one.

    status: the text of /proc/PID/status. program: the name of its executable file. age_sec: of init. systemd blocks
    SIGRTMIN+3 to read it from a signalfd; sysvinit catches SIGPWR. The kernel drops what PID 1 neither blocks nor
    catches: an init that has not installed its handlers yet has to be asked later. busybox init takes SIGUSR2 as
    poweroff (init/init.c), by sigtimedwait(2), during which the kernel shows nothing as blocked: it cannot be seen
    whether it listens yet. A shell catches SIGINT from its first moment on, to end by it, and SIGTERM once its script
    says so (LXC only ever sends SIGPWR there, which hardly a script hears): SIGINT is for what had the time to say
    anything better.
    """
    if _forking(status):
        return None
    blocked, caught = _mask(status, "SigBlk"), _mask(status, "SigCgt")
    if _has(blocked, _SYSTEMD):
        return Choice(_SYSTEMD, sure=True)
    if program == "busybox" and _field(status, "Name") in ("init", "linuxrc"):
        return Choice(signal.SIGUSR2, sure=False)
    for number in (signal.SIGPWR, signal.SIGTERM):
        if _has(blocked | caught, number):
            return Choice(number, sure=True)
    if _has(blocked | caught, signal.SIGINT) and age_sec > TRAPS_SEC:
        return Choice(signal.SIGINT, sure=True)
    return None


def choose_reboot(status: str, program: str) -> Choice | None:
    """Return the signal that asks for a restart from inside; None while an init would ignore every one.

    As in choose(). systemd reads SIGRTMIN+5 from a signalfd (systemd(1)); busybox init takes SIGTERM as reboot;
    sysvinit and openrc-init catch SIGINT, which the kernel sends for ctrl-alt-del.
    """
    if _forking(status):
        return None
    blocked, caught = _mask(status, "SigBlk"), _mask(status, "SigCgt")
    if _has(blocked, _SYSTEMD_REBOOT):
        return Choice(_SYSTEMD_REBOOT, sure=True)
    if program == "busybox" and _field(status, "Name") in ("init", "linuxrc"):
        return Choice(signal.SIGTERM, sure=False)
    if _has(blocked | caught, signal.SIGINT):
        return Choice(signal.SIGINT, sure=True)
    return None


def choose_for(pid: int, *, reboot: bool = False) -> Choice | None:
    """Choose for a process, to end or to begin anew; None also where it is gone."""
    began = pids.start_time(pid)
    try:
        status = _status(pid)
        # the path is the container's word: it is compared, never opened
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return choose_reboot(status, program) if reboot else choose(status, program, _age_sec(began))


def _status(pid: int) -> str:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return file.read()


def _age_sec(began: int | None) -> float:
    """Return how long ago a time in clock ticks since the boot was, as pids.start_time() has it; None: the boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - (began or 0) / os.sysconf("SC_CLK_TCK")


def _forking(status: str) -> bool:
    """Tell whether it is in the midst of a fork or spawn, for which the C library blocks every signal for a moment.

    Nobody else blocks SIGSEGV, so what is blocked now says nothing of what it waits for.
    """
    return _has(_mask(status, "SigBlk"), signal.SIGSEGV)


def _field(status: str, field: str) -> str:
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return line.split()[1]
    return "0"


def _mask(status: str, field: str) -> int:
    return int(_field(status, field), 16)


def _has(mask: int, number: int) -> bool:
    return bool(mask >> (number - 1) & 1)
