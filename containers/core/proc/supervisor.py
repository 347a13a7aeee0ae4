"""One running container's supervisor: keeps its console and sessions, and knows how it ended.

Forked by the launcher, standard library only; it outlives the panel. Its life::

    wait:  a starter has it make init, starts the container (core.proc.starting), and hands over consoles, namespaces
    serve: console, sessions, stop requests, until init ends
    end:   reboot(2) inside ──▶ another child starts a new init in new namespaces, the NICs moved over
           anything else ──▶ last_exit.json, links and cgroups removed, run file removed last

It touches as little memory as it can: there are as many as containers. Until something happens it only waits, and has
not even read what it was handed; what serves clients and consoles is made for the first client, or the first output.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Final

from ..cgroups.base import Cgroups
from ..errors import CoreError, NotFound, SetupFailed
from ..host import Host
from ..kernel import halt
from ..kernel.script import Places
from ..kernel.syscalls import block_signal, overwrite_cmdline, set_process_name
from ..model.exits import CONSOLE_TAIL_BYTES, LastExit, Reason, classify
from ..plans.start_plan import StartPlan
from . import attach, handing, hooking, rebooting, records, rtnl, seccomp_files, serving, spawn
from .clients import Client
from .console import CONSOLE
from .handing import Post, Run
from .loop import Loop
from .luggage import Luggage
from .sessions import SessionServer
from .starting import remove_cgroups, take_nics
from .telling import freezes_told

HOST_SHUTDOWN_SEC: Final = 60.0
"""How long a container may take to halt when the host does; systemd then waits 90 s for what is left."""
EMPTY_SEC: Final = 30.0
"""How long what is left of one boot may take to die before the next."""
_ASK_AGAIN_SEC: Final = 1.0
_CRASH_LOOP_SEC: Final = 1.0
_SIGNALFD_BYTES: Final = 128
_NAME: Final = "boxroom-superv"


class Supervisor:
    """The process around one container. run, post: what a starter handed over."""

    def __init__(self, host: Host, cgroups: Cgroups, run: Run, post: Post) -> None:
        """Let clients in. Raises OSError; SIGTERM must be blocked."""
        self.host = host
        self.id = run.id
        self.consoles = run.consoles
        self.cgroups = cgroups
        self.loop = Loop()
        self.expected: Reason | None = None
        self.child: spawn.Init | None = None
        self.placed: dict[int, int] = {}
        self._run = run
        self._unlinking = rtnl.Unlinking()
        self._unlinking.begin_when_over(run.links, run.child.pidfd)
        self._plan: StartPlan | None = None
        self.luggage = Luggage(self)
        self._server: SessionServer | None = None
        self._shutdown_fd = post.shutdown_fd
        self.loop.watch(self._shutdown_fd, read=self._host_goes_down)
        self._take(run)
        self._listening = socket.socket(fileno=post.listening_fd)
        self.loop.watch(self._listening.fileno(), read=self._furnish)

    @property
    def plan(self) -> StartPlan:
        """What the container was started from. Most never need it again: it is read when somebody asks."""
        if self._plan is None:
            self._plan = StartPlan.from_json(self._run.plan)
        return self._plan

    @plan.setter
    def plan(self, plan: StartPlan) -> None:
        self._plan = plan

    @property
    def bpf(self) -> bytes:
        """The system call filter of those who enter."""
        return seccomp_files.contents(self._run.filter_fd)

    def change_nics(self, message: dict[str, Any], client: Client) -> None:
        """Take over what a client of root's has changed in the container that it names by its init's pid."""
        if self.child is None or self.child.pid != message.get("init_pid"):
            client.refuse(NotFound.code, "The container is being started or stopped: try again.")
            return
        self.plan, self.placed = take_nics(self.plan, self.placed, message)
        self._run.links = ()
        client.tell(type="ok", placed=list(self.placed.items()))
        client.close_when_sent()

    # -- serve ------------------------------------------------------------------------------------------------------

    def _take(self, run: Run) -> None:
        """Keep a run from here on: what clients may enter, and the consoles, are its. Raises OSError."""
        child = run.child
        self._run, self._plan, self.child, self.placed = run, None, child, run.placed
        if run.held or self.luggage.held:
            self.luggage.take_over(run.held)
        if self._server is not None:
            self._let_in(self._server, child)
            return
        for master_fd, _ in child.consoles:
            self.loop.watch(master_fd, read=self._furnish)

    def _let_in(self, server: SessionServer, child: spawn.Init) -> None:
        server.container = lambda: serving.target(self, child, self.cgroups.joined(self.id))
        for console, pty in zip(server.consoles.values(), child.consoles, strict=True):
            console.attach(*pty)

    def _furnish(self) -> None:
        """Make what serves clients and consoles, from the next turn of the loop on."""
        self._server = serving.make(self)
        for console in self._server.consoles.values():
            console.created_at = self._run.started_at
        if self.child is not None:
            self._let_in(self._server, self.child)
        self._server.take(self._listening, self.host.supervisor_socket(self.id))

    def reap(self, starter: socket.socket, pid: int | None) -> None:
        """Wait, beside everything else, until the starter at the other end has gone; a child of one's own is reaped."""

        def ended() -> None:
            self.loop.forget(starter.fileno())
            starter.close()
            if pid is not None:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

        self.loop.watch(starter.fileno(), read=ended)

    def serve(self) -> None:
        """Look after the container until it has ended for good."""
        while self.child is not None:
            child = self.child
            self.loop.watch(child.pidfd, read=self.loop.stop)
            with freezes_told(self.host, self.cgroups, self.id, self.loop):
                self.loop.run()
            self.loop.forget(child.pidfd)
            self.child = None
            if self._server is not None:
                self._server.container = None
            self._ended(child)

    def _console_tail(self, child: spawn.Init) -> str | None:
        """Let go of the child's consoles; returns the last lines that /dev/console showed."""
        if self._server is None:
            for master_fd, _ in child.consoles:
                self.loop.forget(master_fd)
            if not (child.consoles and _speaks(child.consoles[0][0])):
                return None
            self._furnish()
        assert self._server is not None
        console = self._server.consoles[CONSOLE]
        if console.master_fd < 0 and child.consoles:
            console.attach(*child.consoles[0])
        for one in self._server.consoles.values():
            one.detach()
        return console.tail(CONSOLE_TAIL_BYTES) or None

    def status(self) -> dict[str, Any]:
        """Return what a client may know."""
        child = self.child
        return {
            "type": "status",
            "id": self.id,
            "name": self._run.name,
            "init_pid": child.pid if child else None,
            "started_at": self._run.started_at,
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

    def _ended(self, child: spawn.Init) -> None:
        self._unlinking.begin_when_over(self._run.links, child.pidfd)
        status = os.waitpid(child.pid, 0)[1]
        ran_sec = round(time.monotonic() - self._run.released, 3)
        console = self._console_tail(child)
        oom = self.cgroups.oom_kills(self.id) > self._run.oom_kills
        expected = self.expected or records.expected(self.host, self.id)
        reason, code, number = classify(
            status, expected=expected, oom_killed=oom, application=self.plan.spec.init.application
        )
        hooks = hooking.Hooks(self.plan, self.cgroups)
        hooks.end(child, "stop", "reboot" if reason == "reboot" else "stop")
        if reason == "reboot":
            try:
                if not hooks.end(child, "post-stop", "reboot"):
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
        remove_cgroups(self.cgroups, self.id)
        self._unlinking.wait()
        rtnl.clear_away(self.host, self.id, self.plan.spec.nics, self.placed, child.netns_fd)
        if reason != "reboot":
            hooks.end(child, "post-stop", "stop")
        child.close()
        self._close()
        records.expect(self.host, self.id, None)
        self.host.run_path(self.id).unlink(missing_ok=True)
        # last: who hears it looks at once
        records.notify(self.host, self.id, "oom" if reason == "oom" else "stopped")

    def _close(self) -> None:
        """Let nobody in any more."""
        if self._server is not None:
            self._server.finish()
            return
        self.loop.forget(self._listening.fileno())
        self._listening.close()
        self.host.supervisor_socket(self.id).unlink(missing_ok=True)

    def _reboot(self, old: spawn.Init) -> None:
        """Start a new init in new namespaces; the limits stay, or follow the spec where it was changed meanwhile."""
        # an init that reboots at once must not keep a core busy
        time.sleep(max(0.0, self._run.released + _CRASH_LOOP_SEC - time.monotonic()))
        self.cgroups.kill(self.id)
        self.cgroups.wait_empty(self.id, EMPTY_SEC)
        self.cgroups.clean(self.id, owner_uid=self.plan.id_base or 0)
        run = rebooting.restart(self.plan, self.cgroups, old.netns_fd, self.placed)
        os.close(self._run.filter_fd)
        old.close()
        try:
            self._take(run)
        except OSError as error:
            self.child = None
            raise SetupFailed.from_oserror("serve it again", error) from error


def main(host: Host, cgroups: Cgroups, starter: socket.socket, starter_pid: int | None, places: Places) -> None:
    """Take over what a starter starts; returns when the container has ended, or nothing was started.

    starter_pid: where it is a child of this process. places: of scripts, which nobody needs any more.
    """
    # ignored and blocked: kept for the descriptor, and ignored by children, which unblock everything
    block_signal(signal.SIGTERM)
    data, fds = handing.receive(starter)
    if not fds:
        # it has ended, or is about to
        if starter_pid is not None:
            os.waitpid(starter_pid, 0)
        return
    places.close()
    post, fds = handing.unpack_post(data, fds)
    attach.become_reaper()
    overwrite_cmdline(post.title)
    set_process_name(_NAME)
    # whoever was killed meanwhile has done its work, or finds the container running
    for fd, words in ((starter.fileno(), handing.SERVING), (post.worker_fd, post.news)):
        try:
            os.write(fd, words)
        except OSError:
            pass
    os.close(post.worker_fd)
    starter_ended = _wait_quietly(post, fds, starter, starter_pid)
    for fd in post.frozen_fds:
        os.close(fd)
    supervisor = Supervisor(host, cgroups, handing.unpack(fds), post)
    if not starter_ended:
        supervisor.reap(starter, starter_pid)
    supervisor.serve()


def _wait_quietly(post: Post, fds: list[int], starter: socket.socket, starter_pid: int | None) -> bool:
    """Return when something is to be done; meanwhile wait for the starter, and tell whether it has gone.

    fds: the run's, of which what may speak is looked at.
    """
    poll = select.poll()
    for fd in (starter.fileno(), post.shutdown_fd, post.listening_fd, *handing.spoken_by(fds, post.silent)):
        poll.register(fd, select.POLLIN)
    for fd in post.frozen_fds:
        poll.register(fd, select.POLLPRI)
    starter_ended = False
    while True:
        ready = poll.poll()
        if not starter_ended and any(fd == starter.fileno() for fd, _ in ready):
            poll.unregister(starter)
            starter.close()
            if starter_pid is not None:
                os.waitpid(starter_pid, 0)
            starter_ended = True
            if len(ready) == 1:
                continue
        return starter_ended


def _speaks(master_fd: int) -> bool:
    """Whether there is something to be read of a console."""
    poll = select.poll()
    poll.register(master_fd, select.POLLIN)
    return bool(poll.poll(0))
