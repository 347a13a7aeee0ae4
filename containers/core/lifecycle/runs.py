"""Runs of containers, as files tell of them: which one lives, what its end will be called, what a killed one left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from pathlib import Path
from typing import Final

from ..cgroups import Cgroups, detect, events
from ..errors import CoreError
from ..host import Host
from ..hoststore import store
from ..kernel.pids import boot_id, opened, start_time
from ..model.exits import LastExit, Reason
from ..model.spec import Spec
from ..network import lending
from ..proc import records, rtnl
from ..proc.records import RunFile

BURY_SEC: Final = 30.0


def look(host: Host, container_id: str) -> tuple[RunFile | None, bool]:
    """Return a container's run file, and whether its supervisor lives. Changes nothing; raises OSError, ValueError."""
    path = host.run_path(container_id)
    run = RunFile.read(path)
    while run is not None and not _alive(run):
        # it takes its file away before it ends: what is still there now was left by one that was killed
        again = RunFile.read(path)
        if again == run:
            return run, False
        run = again
    return run, run is not None


def _alive(run: RunFile) -> bool:
    """Tell whether the supervisor lives: it is there from before init until everything is cleared away."""
    # one that nobody has reaped yet is gone all the same
    return run.boot_id == boot_id() and start_time(run.supervisor.pid) == run.supervisor.start_time


def living(host: Host, container_id: str) -> RunFile | None:
    """Return the run file of a container whose supervisor lives; what a dead one left is cleared away."""
    run, alive = look(host, container_id)
    if run is None or alive:
        return run
    bury(host, run)
    return None


def bury(host: Host, run: RunFile) -> None:
    """Clear away what a supervisor that was killed left: processes, cgroups, links, files; its end is recorded once.

    Where several do it at once, all return when it is done. Raises Busy.
    """
    with store.lock(host, "run", run.id, wait_sec=2 * BURY_SEC):
        if RunFile.read(host.run_path(run.id)) != run:
            return
        cgroups = detect.open(host)
        _end_starter(host, cgroups, run)
        cgroups.kill(run.id)
        cgroups.wait_empty(run.id, BURY_SEC)
        cgroups.remove(run.id)
        with contextlib.suppress(CoreError):
            _delete_links(host, store.load(host, run.id))
        lending.tell(run.id, lending.give_back(host, run.id))
        records.write_last_exit(host, run.id, LastExit(at=records.now(), reason="lost"))
        host.supervisor_socket(run.id).unlink(missing_ok=True)
        records.forget_expected(host, run.id)
        host.run_path(run.id).unlink(missing_ok=True)


def _delete_links(host: Host, spec: Spec) -> None:
    """Delete the host's ends of a container's links: what the spec names, and what a broken-off change had plugged."""
    named = {nic.host_link for nic in spec.nics if nic.host_link}
    pattern = host.veth_name(spec.slot, 0).removesuffix("0")
    plugged = {name for _index, name in socket.if_nameindex() if name.startswith(pattern)}
    for name in sorted(named | plugged):
        rtnl.delete_link(name)


def _end_starter(host: Host, cgroups: Cgroups, run: RunFile) -> None:
    """Kill the starter of a boot whose supervisor was killed, and the hook that it waits for, and wait for its end.

    It would take back by itself what it made, but at its own time: of the next run as well, which has the same names.
    """
    for pid in cgroups.supervisor_pids():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            pidfd = opened(pid)
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").split()
                if title[:2] == [b"supervisor", host.instance.encode()] and title[-1] == run.id.encode():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    select.select([pidfd], [], [], BURY_SEC)
            finally:
                os.close(pidfd)
    cgroups.end_hook(run.id)


def sweep_cgroups(host: Host) -> list[str]:
    """Remove control groups without a process that nobody's start is about; return whose they were.

    A launcher that is killed while a starter makes them leaves them: there was no run yet that could be buried.
    """
    cgroups = detect.open(host)
    running = [path.stem for path in host.supervisor_dir().glob("*.json")]
    removed = []
    for container_id in cgroups.orphans(running):
        # who starts it holds the lock
        with contextlib.suppress(CoreError, OSError), store.lock(host, "container", container_id, wait_sec=0):
            populated = events.value(cgroups.container_tree(container_id), "populated")
            if not populated and not host.run_path(container_id).exists():
                cgroups.remove(container_id)
                removed.append(container_id)
    return removed


def expect(host: Host, run: RunFile, reason: Reason | None) -> None:
    """Tell a run's supervisor how the end to come is to be recorded; None takes it back. One that is gone is fine."""
    with store.lock(host, "run", run.id, wait_sec=2 * BURY_SEC):
        now = RunFile.read(host.run_path(run.id))
        if now is not None and now.supervisor == run.supervisor:
            records.expect(host, run.id, reason)


def settle(host: Host, container_id: str) -> None:
    """Forget what was expected of a run that had ended when it was told; the next one is not to believe it."""
    with store.lock(host, "run", container_id, wait_sec=2 * BURY_SEC):
        if RunFile.read(host.run_path(container_id)) is None:
            records.forget_expected(host, container_id)
