"""Why a container's init ended, from its wait status. Pure."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Reason = Literal["poweroff", "reboot", "exit", "signal", "oom", "stopped", "killed", "host-reboot", "lost"]
CONSOLE_TAIL_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LastExit:
    """How the last run ended.

    at: UTC, ISO 8601. reason: poweroff (from inside), exit, signal, oom, stopped (asked for, ended by itself), killed
    (asked for, by force), host-reboot (the host was shut down), lost (the supervisor was killed). console: the last
    lines. ran_sec: for how long its init ran, by the monotonic clock; None where nobody knows.
    """

    at: str
    reason: Reason
    exit_code: int | None = None
    signal: int | None = None
    console: str | None = None
    ran_sec: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def classify(
    status: int, *, expected: Reason | None, oom_killed: bool, application: bool = False
) -> tuple[Reason, int | None, int | None]:
    """Return (reason, exit code, signal) of a wait status as waitpid gives it.

    expected: what somebody outside asked for. oom_killed: the kernel killed for want of memory during this run.
    application: process 1 tells by 128 + signal that its command was killed (core.proc.program).
    The kernel ends init by SIGHUP for reboot(RESTART) inside and by SIGINT for HALT and POWER_OFF (reboot(2)).
    """
    by_itself: Reason | None = "stopped" if expected == "killed" else expected
    if not os.WIFSIGNALED(status):
        code = os.waitstatus_to_exitcode(status)
        if application and oom_killed and code == 128 + signal.SIGKILL and expected is None:
            return "oom", code, int(signal.SIGKILL)
        return (by_itself or "exit"), code, None
    number = os.WTERMSIG(status)
    if number == signal.SIGHUP and expected is None:
        return "reboot", None, number
    if number == signal.SIGINT:
        return (by_itself or "poweroff"), None, number
    if number == signal.SIGKILL and expected == "killed":
        return "killed", None, number
    if number == signal.SIGKILL and oom_killed:
        return "oom", None, number
    return (expected or "signal"), None, number
