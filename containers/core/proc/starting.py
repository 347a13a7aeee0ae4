"""The start of a container, in a process beside its supervisor (see core.proc.supervisor).

A start touches much of the interpreter's memory, and a page that is touched after a fork is a process's own. So it is
another process that starts, and hands over what is to be kept: descriptors and a few numbers. Most starts are the work
of one that stays (core.proc.standing); the others, and every start after a reboot inside, of a child of the
supervisor's, which ends with it. The container's init is the supervisor's child either way.

    worker        starter (warm, waits in accept)       supervisor (waits for the starter)
    plan ──────▶  cgroups, child, id maps, layers
    network  ◀──  "namespaces"
    ready ─────▶  run file, exec; the run ───────────▶  takes over: consoles, socket
                  lets go ◀─────────────────────────── "serving"
             ◀──────────────────────────────────────── "running"

Either may be killed at any time. Before the run is handed over, a starter that is left takes everything back, and a
supervisor that is left ends, and init with it (PR_SET_PDEATHSIG); from then on the supervisor is all that it takes, and
so it is the one that tells the worker. What remains of a start whose run file was written is lifecycle.runs.bury()'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import ExitStack
from typing import Any, Final

from ..cgroups import detect
from ..cgroups.base import Cgroups
from ..cgroups.places import join
from ..errors import Cancelled, CoreError, SetupFailed, TimedOut
from ..host import Host
from ..kernel import spare_files
from ..kernel.pids import boot_id
from ..kernel.syscalls import signal_fd
from ..model.exits import CONSOLE_TAIL_BYTES
from ..model.nics import build_nic, host_network
from ..plans.start_plan import NETWORK_SEC, StartPlan
from . import child_plan, cloning, hooking, messages, records, rights, rtnl, seccomp_files, serving, sessions, spawn
from .console import CONSOLE, Console
from .handing import Keeper, Post, Run
from .loop import Loop
from .luggage import Luggage
from .records import Process, RunFile
from .stdio import hand_over as hand_over_stdio

OOM_SCORE_ADJ: Final = -900
ROOM_BYTES: Final = 32 * 1024**2
"""A container with less memory has a first process with memory of its own from the beginning: the kernel ends whoever
shares it where that container's memory is used up."""


class Starter:
    """Starts a container. keeper: the supervisor to be."""

    def __init__(self, plan: StartPlan, cgroups: Cgroups, keeper: Keeper, text: str = "") -> None:
        """text: the plan as JSON, where it is known."""
        self.plan = plan
        self._text = text
        self.host = plan.host
        self.id = plan.spec.id
        self.cgroups = cgroups
        self.loop = Loop()
        self.child: spawn.Init | None = None
        self._post: Post | None = None
        self.placed: dict[int, int] = {}
        self.luggage = Luggage(self)
        self.hooks = hooking.Hooks(plan, cgroups)
        self._keeper = keeper
        security = plan.spec.security
        self.filter_fd = seccomp_files.open_list(
            self.host, nesting=security.nesting, keyctl=security.keyctl, custom=plan.extras.seccomp
        )

    def close(self) -> None:
        """Let go of what it has opened; what has been started has it all by now."""
        if self.child is not None:
            self.child.close()
        if self._post is not None:
            self._post.close()
        os.close(self.filter_fd)
        self.loop.close()

    def start(self, worker: socket.socket) -> None:
        """Start the container for a worker at the other end; raises CoreError with nothing left behind."""
        with ExitStack() as undo:
            undo.callback(self.hooks.end, None, "post-stop", "stop")
            self.hooks.run("pre-start")
            undo.callback(remove_cgroups, self.cgroups, self.id)
            spec = self.plan.spec
            self.cgroups.begin(self.id, limits=spec.limits, owner_uid=self.plan.id_base or 0)
            child = self._clone(undo)
            undo.callback(lambda: self._delete_links(child.netns_fd))
            # the child's mounts and the worker's links are made while the rest of its cgroups is
            messages.send(worker, {"type": "namespaces", "pid": child.pid}, (child.netns_fd,))
            self.cgroups.complete(self.id, limits=spec.limits, privileged=spec.privileged)
            undo.callback(self._forget_run)
            self._release(child, worker)
            undo.pop_all()

    def again(self, old_netns_fd: int, placed: dict[int, int]) -> None:
        """Start a new init for one that has rebooted, in the cgroups that are there; the NICs are moved over.

        Raises CoreError with the new init ended; the rest is the supervisor's to take away.
        """
        self.placed = placed
        # whoever waited for its streams had those of its first boot
        self.plan = dataclasses.replace(self.plan, stdio="")
        with ExitStack() as undo:
            self.hooks.run("pre-start")
            child = self._clone(undo)
            if not host_network(self.plan.spec.nics):
                self.placed = rtnl.move_over(self.plan, placed, old_netns_fd, child.netns_fd)
            self._release(child, None)
            undo.pop_all()

    def _clone(self, undo: ExitStack) -> spawn.Child:
        bpf = seccomp_files.contents(self.filter_fd)
        birth = self.cgroups.birth(self.id, privileged=self.plan.spec.privileged)
        equipment = spawn.Equipment(self.plan)
        plan = child_plan.of(self.plan, bpf, birth.tasks)
        mother, id_base = self._keeper.mother, self.plan.id_base
        child = cloning.clone(plan, id_base, birth.tree, mother=mother, own_memory=not roomy(self.plan))
        undo.callback(child.close)
        undo.callback(child.kill)
        child.hook = lambda point: self.hooks.run(point, child)
        child.patience_sec = self.hooks.patience_sec()
        equipment.hand_to(child)
        self.child = child
        return child

    def _release(self, child: spawn.Child, worker: socket.socket | None) -> None:
        """Let the child exec once it is where it belongs; raises CoreError, with the console's last lines."""
        try:
            # while it makes its mounts
            oom_kills = self.cgroups.oom_kills(self.id)
            supervisor, init = Process.of(self._keeper.pid), Process.of(child.pid)
            post = self._post = self._make_post(child, worker) if worker is not None else None
            spawn.await_consoles(child, 1 + self.plan.spec.console.ttys)
            if self.luggage.wanted:
                spawn.await_root(child)
                self.luggage.bring(child)
            if self.plan.keeps_spare:
                spare_files.keep_in(self.plan.disk)
            spawn.join(child, self.cgroups.birth(self.id, privileged=self.plan.spec.privileged).tasks)
            if worker is not None:
                self._take_nics(_await_network(worker))
            started_at = records.now()
            released = time.monotonic()
            spec = self.plan.spec
            RunFile(
                id=self.id,
                name=spec.name,
                instance=self.plan.instance,
                boot_id=boot_id(),
                supervisor=supervisor,
                init=init,
                started_at=started_at,
            ).write(self.host)
            self.hooks.run("start-host", child)
            first, last = self.hooks.kept_namespaces()
            child.keep_namespaces(*first)
            pipes = spawn.finish(child, stdio=bool(self.plan.stdio))
            with contextlib.suppress(OSError):  # one that has ended by now has left them
                child.keep_namespaces(*last)
            if pipes:
                hand_over_stdio(self.host, self.plan.stdio, pipes, child.pidfd)
            self._keeper.regain()
            run = Run(
                id=self.id,
                name=spec.name,
                child=child,
                filter_fd=self.filter_fd,
                started_at=started_at,
                released=released,
                oom_kills=oom_kills,
                placed=self.placed,
                held=self.luggage.numbered(),
                consoles=spec.console,
                plan=self._text or self.plan.to_json(),
                # hooks of the end may look at them
                links=() if self.plan.extras.hooks else tuple(nic.host_link for nic in spec.nics if nic.host_link),
            )
            self._hand_over(run, post)
        except OSError as error:
            failed = spawn.report(child) or SetupFailed.from_oserror("release the container's init", error)
            failed.details["console"] = self._console_tail(child)
            raise failed from error
        except SetupFailed as error:
            error.details["console"] = self._console_tail(child)
            raise

    def _take_nics(self, message: dict[str, Any]) -> None:
        plan = self.plan
        self.plan, self.placed = take_nics(plan, self.placed, message)
        if self.plan is not plan:
            self._text = ""

    def _make_post(self, child: spawn.Child, worker: socket.socket) -> Post:
        """Make what the supervisor will wait with, but for its socket; it goes with this process."""
        title = f"supervisor {self.host.instance} {self.plan.spec.name} {self.id}"
        return Post(
            title=os.fsencode(title),
            news=b"",
            worker_fd=worker.fileno(),
            listening_fd=-1,
            shutdown_fd=signal_fd({signal.SIGTERM}),
            frozen_fds=self._frozen_files(),
        )

    def _hand_over(self, run: Run, post: Post | None) -> None:
        if post is not None:
            news = {"type": "running", "pid": run.child.pid, "started_at": run.started_at}
            post.news = json.dumps(news).encode()
            # a file, which a starter that was killed would leave: the last that is made
            post.listening_fd = sessions.listen(self.host.supervisor_socket(self.id), serving.web_ids()[1]).detach()
        self._keeper.hand_over(run, post)
        if post is not None:
            records.notify(self.host, self.id, "started")

    def _frozen_files(self) -> tuple[int, ...]:
        """Open the files that tell of a freeze; none where that fails: the ticker finds out all the same, later."""
        fds: list[int] = []
        with contextlib.suppress(OSError):
            for path in self.cgroups.frozen_files(self.id):
                fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                # it tells of what changes from here on
                os.pread(fds[-1], 1, 0)
        return tuple(fds)

    def _console_tail(self, child: spawn.Child) -> str | None:
        """Return the last lines that /dev/console showed, and write them to its log."""
        if not child.consoles:
            return None
        path = self.host.container_dir(self.id) / "console.log"
        console = Console(self.loop, CONSOLE, self.plan.spec.console, path)
        console.attach(*child.consoles[0])
        console.detach()
        tail = console.tail(CONSOLE_TAIL_BYTES)
        console.close()
        return tail or None

    def _forget_run(self) -> None:
        self.host.supervisor_socket(self.id).unlink(missing_ok=True)
        self.host.run_path(self.id).unlink(missing_ok=True)

    def _delete_links(self, netns_fd: int) -> None:
        rtnl.clear_away(self.host, self.id, self.plan.spec.nics, self.placed, netns_fd)


def take_nics(plan: StartPlan, placed: dict[int, int], message: dict[str, Any]) -> tuple[StartPlan, dict[int, int]]:
    """Return plan and links with what was attached: {"nics": what "auto" came to, "placed": [[NIC, link inside]]}."""
    if "nics" in message:
        nics = tuple(build_nic(values) for values in message["nics"])
        plan = dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, nics=nics))
    if "placed" in message:
        placed = {nic: index for nic, index in message["placed"] if index}
    return plan, placed


def remove_cgroups(cgroups: Cgroups, container_id: str) -> None:
    """End what is left of a container, and take its cgroups away; where they stay, the log says so."""
    cgroups.kill(container_id)
    try:
        cgroups.remove(container_id)
    except (TimedOut, OSError) as error:
        print(f"cgroups of {container_id} stay: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the log


def settle(host: Host) -> Cgroups:
    """Move this process to where supervisors are, as all that it forks will be. Raises CoreError, OSError."""
    cgroups = detect.open(host)
    join(os.getpid(), cgroups.supervisor_procs())
    # lowering it needs CAP_SYS_RESOURCE, which some hosts withhold
    with contextlib.suppress(PermissionError):
        rights.set_oom_score(os.getpid(), OOM_SCORE_ADJ)
    return cgroups


def roomy(plan: StartPlan) -> bool:
    """Tell whether a container's first process may have memory of others for a while."""
    most = plan.spec.limits.memory_bytes
    return most is None or most >= ROOM_BYTES


def receive(worker: socket.socket) -> int | None:
    """Return a worker's request, a file with the plan as JSON, which is the caller's; None where there is none."""
    message, fds = messages.receive(worker, fds_max=1)
    return fds[0] if message is not None and fds else None


def read(plan_fd: int) -> str:
    """Return a request's text."""
    return os.pread(plan_fd, os.fstat(plan_fd).st_size, 0).decode()


def serve(
    worker: socket.socket, plan: StartPlan, text: str, cgroups: Cgroups | CoreError | OSError, keeper: Keeper
) -> None:
    """Do what a worker asks for; returns when the supervisor has taken over, or nothing is left.

    text: the plan as JSON. cgroups: what settle() returned, or raised: then nothing can be started from here, and that
    is the answer.
    """
    try:
        if isinstance(cgroups, Exception):
            raise cgroups
        starter = Starter(plan, cgroups, keeper, text)
        try:
            starter.start(worker)
        finally:
            starter.close()
    except (CoreError, OSError) as error:
        failed = error if isinstance(error, CoreError) else SetupFailed.from_oserror("start", error)
        with contextlib.suppress(OSError):
            messages.send(worker, {"type": "error", **failed.kept()})


def _await_network(worker: socket.socket) -> dict[str, Any]:
    poll = select.poll()
    poll.register(worker, select.POLLIN)
    if not poll.poll(NETWORK_SEC * 1000):
        raise TimedOut("The network was not attached in time.", step="attach the network")
    message, _ = messages.receive(worker)
    if message is None or message.get("cmd") != "network-ready":
        # one that is left hears this from nobody, one that failed itself knows why (lifecycle.launching)
        raise Cancelled("The worker went away before the network was attached.")
    return message
