"""One running container's supervisor: makes its init, keeps its console and sessions, and knows how it ended.

Forked by the launcher, standard library only; it outlives the panel. Its life::

    start: cgroups, child, id maps, layers ──▶ "namespaces" to the worker, which attaches the network
           "network-ready" ──▶ run file, exec ──▶ "running" to the worker
    serve: console, sessions, stop requests, until init ends
    end:   reboot(2) inside ──▶ a new init with new namespaces, the NICs moved over
           anything else ──▶ last_exit.json, links and cgroups removed, run file removed last
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import socket
import sys
import time
from contextlib import ExitStack
from typing import Any, Final

from .. import halt
from ..cgroups import detect
from ..cgroups.base import Cgroups, join
from ..errors import CoreError, NotFound, SetupFailed, TimedOut
from ..exits import CONSOLE_TAIL_BYTES, LastExit, Reason, classify
from ..host import Host
from ..nics import build_nic, host_network
from ..pids import boot_id
from ..spec import Spec
from ..start_plan import NETWORK_SEC, StartPlan
from ..syscalls import overwrite_cmdline, set_process_name, signal_fd
from . import attach, hooking, records, rtnl, seccomp_files, serving, setup, spawn
from .clients import Client
from .console import CONSOLE
from .loop import Loop
from .luggage import Luggage
from .records import Process, RunFile
from .telling import freezes_told

OOM_SCORE_ADJ: Final = -900
HOST_SHUTDOWN_SEC: Final = 60.0
"""How long a container may take to halt when the host does; systemd then waits 90 s for what is left."""
_ASK_AGAIN_SEC: Final = 1.0
_CRASH_LOOP_SEC: Final = 1.0
_SIGNALFD_BYTES: Final = 128


class Supervisor:
    """The process around one container. plan: what the worker asked for."""

    def __init__(self, plan: StartPlan, cgroups: Cgroups) -> None:
        self.plan = plan
        self.host = plan.host
        self.id = plan.spec.id
        self.cgroups = cgroups
        security = plan.spec.security
        self.bpf = seccomp_files.read(
            self.host, nesting=security.nesting, keyctl=security.keyctl, custom=plan.extras.seccomp
        )
        self.loop = Loop()
        self.expected: Reason | None = None
        self.child: spawn.Child | None = None
        self.started_at = ""
        self._oom_kills = 0
        self._released = 0.0
        self._listening = False
        self.placed: dict[int, int] = {}
        self.luggage = Luggage(self)
        self.hooks = hooking.Hooks(plan, cgroups)
        self.server = serving.make(self)
        # ignored and blocked: kept for the descriptor, and ignored by children, which unblock everything
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self._shutdown_fd = signal_fd({signal.SIGTERM})
        self.loop.watch(self._shutdown_fd, read=self._host_goes_down)

    # -- start ------------------------------------------------------------------------------------------------------

    def start(self, worker: socket.socket) -> None:
        """Start the container for a worker at the other end; raises CoreError with nothing left behind."""
        with ExitStack() as undo:
            undo.callback(self.hooks.end, None, "post-stop", "stop")
            self.hooks.run("pre-start")
            joining = self._joining(undo)
            undo.callback(self._remove_cgroups)
            child = self._clone(undo)
            undo.callback(lambda: self._delete_links(child.netns_fd))
            # the child's mounts and the worker's links are made while the child is moved into its cgroups
            setup.send(worker, {"type": "namespaces", "pid": child.pid}, (child.netns_fd,))
            spec = self.plan.spec
            joined = self.cgroups.create(
                self.id, limits=spec.limits, owner_uid=self.plan.id_base or 0, privileged=spec.privileged
            )
            joining.begin(child.pid, joined.init_procs)
            self._release(child, joining, worker)
            undo.pop_all()
        with contextlib.suppress(OSError):
            # a worker that has gone meanwhile finds the container running
            setup.send(worker, {"type": "running", "pid": child.pid, "started_at": self.started_at})
        records.notify(self.host, self.id, "started")

    def _clone(self, undo: ExitStack) -> spawn.Child:
        child = spawn.clone(spawn.child_plan(self.plan, self.bpf), self.plan.id_base)
        undo.callback(child.close)
        undo.callback(child.kill)
        child.hook = lambda point: self.hooks.run(point, child)
        child.patience_sec = self.hooks.patience_sec()
        spawn.equip(child, self.plan)
        self.child = child
        return child

    def _joining(self, undo: ExitStack) -> spawn.Joining:
        joining = spawn.Joining(self.cgroups.supervisor_procs()[-1])
        undo.callback(joining.close)
        return joining

    def _release(self, child: spawn.Child, joining: spawn.Joining, worker: socket.socket | None) -> None:
        """Let the child exec once it is where it belongs; raises CoreError, with the console's last lines."""
        try:
            spawn.await_consoles(child, len(self.server.consoles))
            if self.luggage.wanted:
                spawn.await_root(child)
                self.luggage.bring(child)
            joining.wait()
            if worker is not None:
                self.take_nics(_await_network(worker))
            self.started_at = records.now()
            self._released = time.monotonic()
            self._oom_kills = self.cgroups.oom_kills(self.id)
            RunFile(
                id=self.id,
                name=self.plan.spec.name,
                instance=self.plan.instance,
                boot_id=boot_id(),
                supervisor=Process.of(os.getpid()),
                init=Process.of(child.pid),
                started_at=self.started_at,
            ).write(self.host)
            self.hooks.run("start-host", child)
            spawn.finish(child)
            self._serve(child)
        except OSError as error:
            failed = spawn.report(child) or SetupFailed.from_oserror("release the container's init", error)
            failed.details["console"] = self._console_tail(child)
            self.host.run_path(self.id).unlink(missing_ok=True)
            raise failed from error
        except CoreError as error:
            if isinstance(error, SetupFailed):
                error.details["console"] = self._console_tail(child)
            self.host.run_path(self.id).unlink(missing_ok=True)
            raise

    def take_nics(self, message: dict[str, Any]) -> None:
        """Take over what the worker attached: {"nics": with what "auto" came to, "placed": [[NIC, link inside]]}."""
        if "nics" in message:
            nics = tuple(build_nic(values) for values in message["nics"])
            self.plan = dataclasses.replace(self.plan, spec=dataclasses.replace(self.plan.spec, nics=nics))
        if "placed" in message:
            self.placed = {nic: index for nic, index in message["placed"] if index}

    def change_nics(self, message: dict[str, Any], client: Client) -> None:
        """Take over what a client of root's has changed in the container that it names by its init's pid."""
        if self.child is None or self.child.pid != message.get("init_pid"):
            client.refuse(NotFound.code, "The container is being started or stopped: try again.")
            return
        self.take_nics(message)
        client.tell(type="ok", placed=list(self.placed.items()))
        client.close_when_sent()

    # -- serve ------------------------------------------------------------------------------------------------------

    def _serve(self, child: spawn.Child) -> None:
        """Let clients in; what they may enter, and the console, are the new child's."""
        self.server.container = serving.target(self, child, self.cgroups.joined(self.id))
        for console, pty in zip(self.server.consoles.values(), child.consoles, strict=True):
            console.attach(*pty)
        if not self._listening:
            self.server.listen(self.host.supervisor_socket(self.id))
            self._listening = True

    def serve(self) -> None:
        """Look after the container until it has ended for good."""
        while self.child is not None:
            child = self.child
            self.loop.watch(child.pidfd, read=self.loop.stop)
            with freezes_told(self.host, self.cgroups, self.id, self.loop):
                self.loop.run()
            self.loop.forget(child.pidfd)
            self.child = None
            self.server.container = None
            self._ended(child)

    def _console_tail(self, child: spawn.Child) -> str | None:
        """Let go of the child's consoles; returns the last lines that /dev/console showed."""
        console = self.server.consoles[CONSOLE]
        if console.master_fd < 0 and child.consoles:
            console.attach(*child.consoles[0])
        for one in self.server.consoles.values():
            one.detach()
        return console.tail(CONSOLE_TAIL_BYTES) or None

    def status(self) -> dict[str, Any]:
        """Return what a client may know."""
        child = self.child
        return {
            "type": "status",
            "id": self.id,
            "name": self.plan.spec.name,
            "init_pid": child.pid if child else None,
            "started_at": self.started_at,
            "expected": self.expected,
        }

    def stop(self, number: int) -> None:
        """Send init a signal that asks it to end, and remember that somebody asked."""
        self.expected = "stopped"
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.child.pidfd, number)

    def _host_goes_down(self) -> None:
        """Halt the container: who sends a supervisor SIGTERM is the host, on its way down."""
        os.read(self._shutdown_fd, _SIGNALFD_BYTES)
        if self.expected == "host-reboot":
            return
        self.expected = "host-reboot"
        with contextlib.suppress(OSError):
            self.cgroups.lift_pids(self.id, halt.PIDS_ROOM)
        self._ask_to_halt()
        self.loop.later(HOST_SHUTDOWN_SEC, lambda: self.cgroups.kill(self.id))

    def _ask_to_halt(self) -> None:
        with contextlib.suppress(CoreError, OSError):
            self.cgroups.thaw(self.id, 0.0)
        child = self.child
        if child is None:
            return
        spec = self.plan.spec
        number = halt.configured(spec.halt_signal, application=spec.init.application)
        choice = halt.given_for(number, child.pid) if number else halt.choose_for(child.pid)
        if choice is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.pidfd, choice.signal)
        if choice is None or not choice.sure:
            self.loop.later(_ASK_AGAIN_SEC, self._ask_to_halt)

    # -- end --------------------------------------------------------------------------------------------------------

    def _ended(self, child: spawn.Child) -> None:
        status = os.waitpid(child.pid, 0)[1]
        ran_sec = round(time.monotonic() - self._released, 3)
        console = self._console_tail(child)
        oom = self.cgroups.oom_kills(self.id) > self._oom_kills
        expected = self.expected or records.expected(self.host, self.id)
        reason, code, number = classify(
            status, expected=expected, oom_killed=oom, application=self.plan.spec.init.application
        )
        self.hooks.end(child, "stop", "reboot" if reason == "reboot" else "stop")
        if reason == "reboot":
            try:
                if not self.hooks.end(child, "post-stop", "reboot"):
                    raise SetupFailed("A hook (post-stop) failed: it is not started again.", step="reboot")
                self._reboot(child)
            except CoreError as error:
                print(f"reboot of {self.id} failed: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the log
                console = f"{console or ''}\n{error.message}"
            else:
                records.notify(self.host, self.id, "rebooted")
                return
        last = LastExit(
            at=records.now(), reason=reason, exit_code=code, signal=number, console=console, ran_sec=ran_sec
        )
        records.write_last_exit(self.host, self.id, last)
        self._remove_cgroups()
        self._delete_links(child.netns_fd)
        if reason != "reboot":
            self.hooks.end(child, "post-stop", "stop")
        child.close()
        self.server.finish()
        records.expect(self.host, self.id, None)
        self.host.run_path(self.id).unlink(missing_ok=True)
        # last: who hears it looks at once
        records.notify(self.host, self.id, "oom" if reason == "oom" else "stopped")

    def _reboot(self, old: spawn.Child) -> None:
        """Start a new init in new namespaces; the limits stay, or follow the spec where it was changed meanwhile."""
        # an init that reboots at once must not keep a core busy
        time.sleep(max(0.0, self._released + _CRASH_LOOP_SEC - time.monotonic()))
        self.cgroups.kill(self.id)
        self.cgroups.wait_empty(self.id, 5.0)
        self.cgroups.clean(self.id, owner_uid=self.plan.id_base or 0)
        with ExitStack() as undo:
            undo.callback(setattr, self, "child", None)
            self.hooks.run("pre-start")
            joining = self._joining(undo)
            child = self._clone(undo)
            joining.begin(child.pid, self.cgroups.joined(self.id).init_procs)
            if not host_network(self.plan.spec.nics):
                self.placed = rtnl.move_over(self.plan, self.placed, old.netns_fd, child.netns_fd)
            self._release(child, joining, None)
            undo.pop_all()
        old.close()

    def _remove_cgroups(self) -> None:
        self.cgroups.kill(self.id)
        try:
            self.cgroups.remove(self.id)
        except (TimedOut, OSError) as error:
            print(f"cgroups of {self.id} stay: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the log

    def _delete_links(self, netns_fd: int = -1) -> None:
        rtnl.clear_away(self.host, self.id, self.plan.spec.nics, self.placed, netns_fd)


def warm(host: Host) -> Cgroups:
    """Do beforehand what every start needs: move this process to where supervisors are, touch what will be used.

    A process that waits for its request has the pages to itself then. Returns what main() wants; raises CoreError,
    OSError.
    """
    cgroups = detect.open(host)
    join(os.getpid(), cgroups.supervisor_procs())
    seccomp_files.read(host, nesting=False)
    spawn.last_capability()
    Process.of(os.getpid())
    return cgroups


def main(connection: socket.socket, warmed: Cgroups | CoreError | OSError) -> None:
    """Serve the one request of an accepted connection; returns when the container has ended.

    warmed: what warm() returned, or raised: then this process cannot be a supervisor, and that is the answer.
    """
    message, fds = setup.receive(connection, fds_max=1)
    if message is None or not fds:
        return
    with open(fds[0], "rb") as file:
        plan = StartPlan.from_json(file.read())
    _become_supervisor(plan.instance, plan.spec)
    supervisor = None
    try:
        if isinstance(warmed, Exception):
            raise warmed
        supervisor = Supervisor(plan, warmed)
        supervisor.start(connection)
    except CoreError as error:
        if supervisor is not None:
            supervisor.host.supervisor_socket(plan.spec.id).unlink(missing_ok=True)
            supervisor.host.run_path(plan.spec.id).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            setup.send(connection, {"type": "error", **error.kept()})
        return
    except OSError as error:
        with contextlib.suppress(OSError):
            failed = SetupFailed.from_oserror("start", error)
            setup.send(connection, {"type": "error", **failed.kept()})
        return
    finally:
        connection.close()
    supervisor.serve()


def _become_supervisor(instance: str, spec: Spec) -> None:
    os.setsid()
    attach.become_reaper()
    overwrite_cmdline(f"supervisor {instance} {spec.name} {spec.id}")
    set_process_name("boxroom-superv")
    # lowering it needs CAP_SYS_RESOURCE, which some hosts withhold
    with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE_ADJ))


def _await_network(worker: socket.socket) -> dict[str, Any]:
    poll = select.poll()
    poll.register(worker, select.POLLIN)
    if not poll.poll(NETWORK_SEC * 1000):
        raise TimedOut("The network was not attached in time.", step="attach the network")
    message, _ = setup.receive(worker)
    if message is None or message.get("cmd") != "network-ready":
        raise NotFound("The worker went away before the network was attached.")
    return message
