"""The start of a container that has rebooted: a child of its supervisor's does it, as at the first start."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import Final, NoReturn

from ..cgroups.base import Cgroups
from ..errors import CoreError, SetupFailed
from ..plans.start_plan import StartPlan
from . import handing
from .handing import Keeper, Run
from .starting import Starter

_STEP: Final = "start it again"


def restart(plan: StartPlan, cgroups: Cgroups, old_netns_fd: int, placed: dict[int, int]) -> Run:
    """Have a child start a rebooted container again; the caller is its supervisor, and owns the run.

    Raises SetupFailed; then the new init, if there was one, has ended, or ends with its cgroup. The descriptor is
    borrowed.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    keeper_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        ours.close()
        theirs.close()
        raise SetupFailed.from_oserror(_STEP, error) from error
    if pid == 0:
        ours.close()
        _be_restarter(plan, cgroups, old_netns_fd, placed, Keeper(theirs, keeper_pid))
    theirs.close()
    try:
        data, fds = handing.receive(ours)
        if fds:
            with contextlib.suppress(OSError):
                ours.send(handing.SERVING)
            return handing.unpack(fds)
        words = data.decode(errors="replace")
        raise SetupFailed(words or "The process that starts it ended early.", step=_STEP)
    except OSError as error:
        raise SetupFailed.from_oserror(_STEP, error) from error
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _be_restarter(
    plan: StartPlan, cgroups: Cgroups, old_netns_fd: int, placed: dict[int, int], keeper: Keeper
) -> NoReturn:
    """Be the child of restart()."""
    try:
        Starter(plan, cgroups, keeper).again(old_netns_fd, placed)
    except (CoreError, OSError) as error:
        keeper.give_up(error.message if isinstance(error, CoreError) else str(error))
    except BaseException:  # noqa: BLE001 - the fork's last frame
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)
