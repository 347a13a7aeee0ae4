"""Running containers, from the worker's and the ticker's side: start, stop, restart, freeze, thaw, observe, limits.

The supervisors do the work; what is here asks them, and tells what the kernel shows. Every function may be called
again after a crash: what is done already is left as it is.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..cgroups import detect
from ..errors import (
    Cancelled,
    CoreError,
    InvalidTransition,
    NotFound,
    TimedOut,
)
from ..host import Host
from ..hoststore import claims, more_ids, store
from ..kernel import halt
from ..model.attachments import Attachments
from ..model.exits import LastExit
from ..model.spec import Limits, Spec
from ..model.states import Status
from ..network import lending
from ..plans.extras import Extras
from ..plans.start_plan import StartPlan
from ..proc import records, rtnl
from ..proc.records import RunFile
from ..sentences import say
from ..storage import disks, overlay
from . import fulldisk, runs
from .hooking import ending_sec
from .launching import NetworkPort, Progress, RunState, launch

__all__ = [
    "NetworkPort",
    "Observation",
    "RunState",
    "freeze",
    "observe",
    "observe_one",
    "reboot",
    "restart",
    "start",
    "stop",
    "sweep",
    "thaw",
    "update_limits",
]

FREEZE_SEC: Final = 30.0
_NOTHING: Final = Attachments()
_NONE: Final = Extras()
_LOOK_SEC: Final = 0.05
_SIGNAL_AGAIN_SEC: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the host shows of a container now. reason: why it is not running, or what is wrong, for people."""

    status: Status
    reason: str = ""
    init_pid: int | None = None
    started_at: str | None = None
    last_exit: LastExit | None = None


def _no_progress(_percent: int, _message: str) -> None:
    pass


def _never() -> bool:
    return False


def start(
    host: Host,
    spec: Spec,
    *,
    network: NetworkPort,
    attachments: Attachments = _NOTHING,
    extras: Extras = _NONE,
    progress: Progress = _no_progress,
    cancelled: Callable[[], bool] = _never,
    stdio: str = "",
) -> RunState:
    """Start a stopped container and return once its init has been exec'ed. One that runs already is left running.

    attachments: what the spec's mounts and devices come to on this host (core.rules.grants). extras: what else it uses.
    stdio: as in StartPlan, for an application.
    Raises SetupFailed (step, path, errno, console) and leaves nothing behind, NotFound and SetupFailed for missing
    layers, Cancelled, Busy.
    """
    with store.lock(host, "container", spec.id):
        run = runs.living(host, spec.id)
        if run is not None:
            return RunState(init_pid=run.init.pid, started_at=run.started_at)
        runs.settle(host, spec.id)
        root = overlay.plan(host, spec)
        if root.disk:
            disks.mend(Path(root.disk))
        plan = StartPlan(
            state_dir=str(host.state_dir),
            instance=host.instance,
            spec=spec,
            id_base=None if spec.privileged else claims.id_base(host, spec.slot),
            lowers=root.lowers,
            upper=root.upper,
            work=root.work,
            disk=root.disk,
            attachments=attachments,
            extras=extras,
            more_ids=more_ids.of(host, spec),
            stdio=stdio if spec.init.application else "",
        )
        progress(10, "Making the namespaces")
        return fulldisk.started(plan, lambda asked: launch(asked, network, progress, cancelled))


def stop(
    host: Host,
    container_id: str,
    *,
    timeout_sec: float = 30.0,
    force: bool = True,
    kill: bool = False,
    progress: Progress = _no_progress,
    cancelled: Callable[[], bool] = _never,
) -> LastExit | None:
    """Stop a container and return how it ended; one that is stopped already is fine (None if it never ran).

    Asks init to shut down and waits timeout_sec; then, with force, kills. kill: at once, without asking. A frozen
    container is thawed first, and the time counts once. Raises TimedOut (without force), Cancelled.
    """
    run = runs.living(host, container_id)
    supervisor_fd = run.supervisor.open() if run else None
    if run is None or supervisor_fd is None:
        return records.read_last_exit(host, container_id)
    try:
        ended = not kill and _halt(host, run, supervisor_fd, timeout_sec, cancelled)
        if not ended:
            if not (force or kill):
                runs.expect(host, run, None)
                raise TimedOut(
                    say("The container did not shut down within %(seconds).0f s.", seconds=timeout_sec), step="stop"
                )
            progress(80, "Killing what is left")
            _kill(host, run, supervisor_fd)
    finally:
        os.close(supervisor_fd)
    runs.living(host, container_id)
    runs.settle(host, container_id)
    return records.read_last_exit(host, container_id)


def _halt(host: Host, run: RunFile, supervisor_fd: int, timeout_sec: float, cancelled: Callable[[], bool]) -> bool:
    """Ask init to shut down; returns whether the container has ended in time.

    Meanwhile it may have a few processes more than its limit: a shutdown starts programs, and where the limit is
    reached init could not start any.
    """
    deadline = time.monotonic() + timeout_sec
    cgroups = detect.open(host)
    # what cannot be thawed in time is not asked either, but killed
    with contextlib.suppress(NotFound, TimedOut):
        cgroups.thaw(run.id, max(timeout_sec, 0.1))
    runs.expect(host, run, "stopped")
    cgroups.lift_pids(run.id, halt.PIDS_ROOM)
    ended = False
    try:
        ended = _ask_until_gone(host, run, supervisor_fd, deadline, cancelled)
    finally:
        if not ended:
            with contextlib.suppress(NotFound):
                cgroups.apply(run.id, store.load(host, run.id).limits)
    return ended


def _ask_until_gone(
    host: Host, run: RunFile, supervisor_fd: int, deadline: float, cancelled: Callable[[], bool]
) -> bool:
    configured = _halt_signal(host, run.id)
    again_at = time.monotonic()
    while (left := deadline - time.monotonic()) > 0:
        if time.monotonic() >= again_at:
            choice = halt.given_for(configured, run.init.pid) if configured else halt.choose_for(run.init.pid)
            if choice is not None:
                _signal(run, choice.signal)
                again_at += math.inf if choice.sure else _SIGNAL_AGAIN_SEC
        if _gone(supervisor_fd, min(left, _LOOK_SEC)):
            return True
        if cancelled():
            runs.expect(host, run, None)
            raise Cancelled("The stop was cancelled; the container may still be shutting down.")
    return _gone(supervisor_fd, 0)


def _halt_signal(host: Host, container_id: str) -> int | None:
    with contextlib.suppress(NotFound):
        spec = store.load(host, container_id)
        return halt.configured(spec.halt_signal, application=spec.init.application)
    return None


def _signal(run: RunFile, number: int) -> None:
    pidfd = run.init.open()
    if pidfd is not None:
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def _gone(pidfd: int, timeout_sec: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_sec * 1000))


def _kill(host: Host, run: RunFile, supervisor_fd: int) -> None:
    runs.expect(host, run, "killed")
    detect.open(host).kill(run.id)
    _signal(run, signal.SIGKILL)
    _unlink(host, run, supervisor_fd)
    if not _gone(supervisor_fd, runs.BURY_SEC + ending_sec(host, run.id)):
        # the supervisor itself hangs: without it there is nothing to lose any more
        signal.pidfd_send_signal(supervisor_fd, signal.SIGKILL)
        if not _gone(supervisor_fd, runs.BURY_SEC):
            raise TimedOut("Processes of the container do not end: they wait in the kernel.", step="kill")


def _unlink(host: Host, run: RunFile, supervisor_fd: int) -> None:
    """Delete a container's links while its processes end, for which both the kernel mostly waits.

    Its supervisor finds what is left. Where hooks of the end may look at the links it is left all of them; and while
    another works on the container, which may be the next start.
    """
    with contextlib.suppress(CoreError, OSError), store.lock(host, "container", run.id, wait_sec=0):
        spec = store.load(host, run.id)
        # while its supervisor lives, and the lock is held, the links are this run's
        if spec.hooks or _gone(supervisor_fd, 0):
            return
        for nic in spec.nics:
            if nic.host_link:
                rtnl.delete_link(nic.host_link)


def restart(
    host: Host,
    spec: Spec,
    *,
    network: NetworkPort,
    timeout_sec: float = 30.0,
    force: bool = True,
    progress: Progress = _no_progress,
    cancelled: Callable[[], bool] = _never,
) -> RunState:
    """Stop, then start with the spec given. Raises what either raises; a stop that fails leaves it running."""
    stop(host, spec.id, timeout_sec=timeout_sec, force=force, progress=progress, cancelled=cancelled)
    return start(host, spec, network=network, progress=progress, cancelled=cancelled)


def reboot(host: Host, container_id: str, *, timeout_sec: float = 60.0, cancelled: Callable[[], bool] = _never) -> None:
    """Ask a container's init to boot again, and return once a new one runs; its supervisor, and its limits, stay.

    A frozen one is thawed first. Raises InvalidTransition where it does not run, is an application, or ended instead;
    TimedOut, and then it may still be on its way; Cancelled.
    """
    run = runs.living(host, container_id)
    supervisor_fd = run.supervisor.open() if run else None
    if run is None or supervisor_fd is None:
        raise InvalidTransition("The container is not running.", status=str(Status.STOPPED), action="restart")
    try:
        spec = store.load(host, container_id)
        if spec.init.application:
            raise InvalidTransition("An application cannot boot again: restart it.", status="running", action="restart")
        signal_name = spec.init.reboot_signal
        configured = halt.parse(signal_name) if signal_name else None
        deadline = time.monotonic() + timeout_sec
        detect.open(host).thaw(container_id, max(timeout_sec, 0.1))
        again_at = time.monotonic()
        while True:
            now = RunFile.read(host.run_path(container_id))
            if now is not None and now.init != run.init:
                return
            if _gone(supervisor_fd, 0):
                raise InvalidTransition("The container has ended instead.", status="stopped", action="restart")
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    say("The container did not boot again within %(seconds)s s.", seconds=f"{timeout_sec:.0f}"),
                    step="reboot",
                )
            if cancelled():
                raise Cancelled("The restart was cancelled; the container may still be on its way.")
            if time.monotonic() >= again_at:
                choice = halt.choose_for(run.init.pid, reboot=True)
                choice = halt.given_for(configured, run.init.pid) if configured else choice
                if choice is not None:
                    _signal(run, choice.signal)
                    again_at += math.inf if choice.sure else _SIGNAL_AGAIN_SEC
            _gone(supervisor_fd, min(left, _LOOK_SEC))
    finally:
        os.close(supervisor_fd)


def freeze(host: Host, container_id: str) -> None:
    """Freeze a running container; a frozen one is fine. Raises InvalidTransition when it does not run, TimedOut."""
    if runs.living(host, container_id) is None:
        raise InvalidTransition("The container is not running.", status=str(Status.STOPPED), action="freeze")
    detect.open(host).freeze(container_id, FREEZE_SEC)


def thaw(host: Host, container_id: str) -> None:
    """Let a frozen container run on; a running one is fine. Raises InvalidTransition when it does not run."""
    if runs.living(host, container_id) is None:
        raise InvalidTransition("The container is not running.", status=str(Status.STOPPED), action="unfreeze")
    detect.open(host).thaw(container_id)


def update_limits(host: Host, container_id: str, limits: Limits) -> bool:
    """Put limits in force on a running container; returns False where it does not run.

    The caller stores the spec. Raises InUse where memory in use cannot be reclaimed.
    """
    if runs.living(host, container_id) is None:
        return False
    detect.open(host).apply(container_id, limits)
    return True


def observe(host: Host, container_ids: Iterable[str] | None = None) -> dict[str, Observation]:
    """Return what containers of the host's store are doing now, by id: all, or those of these that it has.

    Changes nothing.
    """
    cgroups = detect.open(host)
    if container_ids is None:
        wanted = store.container_ids(host)
    else:
        wanted = [container_id for container_id in container_ids if store.exists(host, container_id)]
    return {container_id: _observe(host, cgroups, container_id) for container_id in wanted}


def observe_one(host: Host, container_id: str) -> Observation | None:
    """Return what one container is doing now; None where the host's store has none of that id."""
    return observe(host, [container_id]).get(container_id)


def _observe(host: Host, cgroups: Any, container_id: str) -> Observation:
    try:
        run, alive = runs.look(host, container_id)
        if run is not None and alive:
            status = Status.FROZEN if cgroups.frozen(container_id) else Status.RUNNING
            return Observation(status=status, init_pid=run.init.pid, started_at=run.started_at)
        last = records.read_last_exit(host, container_id)
    except (OSError, ValueError, TypeError, KeyError) as error:
        return Observation(status=Status.ERROR, reason=f"its state cannot be read: {error}")
    if run is not None:
        last = LastExit(at=records.now(), reason="lost")
    return Observation(status=Status.STOPPED, reason=last.reason if last else "", last_exit=last)


def sweep(host: Host) -> tuple[str, ...]:
    """Clear away what killed supervisors left; returns the ids of their containers. For the reconciler."""
    dead = []
    with contextlib.suppress(FileNotFoundError):
        names = [name for name in os.listdir(host.supervisor_dir()) if name.endswith(".json")]
        for name in sorted(names):
            run, alive = runs.look(host, name.removesuffix(".json"))
            if run is not None and not alive:
                runs.bury(host, run)
                dead.append(run.id)
    for container_id in lending.borrowers(host):
        # while it is started its worker holds the lock; where that was lost the supervisor may be gone as well
        with contextlib.suppress(CoreError, OSError), store.lock(host, "container", container_id, wait_sec=0):
            run, alive = runs.look(host, container_id)
            if run is not None and not alive:
                # it ended since the first look
                runs.bury(host, run)
                dead.append(run.id)
            elif run is None:
                lending.tell(container_id, lending.give_back(host, container_id))
    return tuple(dead)
