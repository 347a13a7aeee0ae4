"""What a supervisor's container has of the host: keeps account of it, and has it changed (see core.proc.carrying)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..cgroups.base import Cgroups
from ..errors import CoreError, NotFound, SetupFailed, TimedOut
from ..model.attachments import Attachments, Bind, Node
from ..plans.devices import DeviceRule, of_node
from ..plans.start_plan import HANDSHAKE_SEC, StartPlan
from ..sentences import say
from . import carrying, messages
from .carrying import Errand, Held
from .clients import Client
from .loop import Loop
from .spawn import Init

CHANGE_SEC: Final = 30.0
"""How long a change may take in a running container, whose own file systems may be slow on purpose."""
TAKE_BACK_SEC: Final = 15.0
"""How long it may take to undo a change that was late."""
_END_SEC: Final = 0.2
_STEP: Final = "bring in what the host shares"


class Owner(Protocol):
    """What it needs of its supervisor."""

    plan: StartPlan
    id: str
    cgroups: Cgroups
    loop: Loop
    child: Init | None


class Luggage:
    """The mounts and device nodes of one container. held: what was attached; what there should be is the plan's."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._id = owner.id
        self.held: tuple[Held, ...] = ()
        self._busy = False

    @property
    def wanted(self) -> Attachments:
        """What there should be, after a reboot too."""
        return self._owner.plan.attachments

    def _want(self, wanted: Attachments) -> None:
        self._owner.plan = dataclasses.replace(self._owner.plan, attachments=wanted)

    def numbered(self) -> list[tuple[int, int]]:
        """Return what is attached as numbers among what is wanted, with the mount ids."""
        wanted = tuple(self.wanted)
        return [(wanted.index(held.what), held.mount_id) for held in self.held]

    def take_over(self, numbered: list[tuple[int, int]]) -> None:
        """Keep account of what somebody else has attached; as numbered() tells it."""
        wanted = tuple(self.wanted)
        self.held = tuple(Held(wanted[number], mount_id) for number, mount_id in numbered)

    # -- at start -----------------------------------------------------------------------------------------------------

    def bring(self, child: Init) -> None:
        """Attach everything to a child that has its root and runs nothing yet. Raises SetupFailed, TimedOut."""
        self.held = ()
        bring = tuple(self.wanted)
        self._allow(self.wanted)
        errand = _Errand(self._errand(child, (), bring))
        patience_sec = _END_SEC
        try:
            said = errand.wait(HANDSHAKE_SEC)
            # it has done its work: nobody would reap one that outlives this process
            patience_sec = HANDSHAKE_SEC
        finally:
            errand.close(self._owner.loop, patience_sec)
        self._note(said, bring)
        if said["type"] == "error":
            raise _failure(said)

    def _errand(self, child: Init, take: tuple[Held, ...], bring: tuple[Bind | Node, ...]) -> Errand:
        plan = self._owner.plan
        scratch = str(plan.host.run_dir)
        return Errand(
            init_pid=child.pid,
            init_pidfd=child.pidfd,
            id_base=plan.id_base,
            scratch=scratch,
            take=take,
            bring=bring,
        )

    def _allow(self, *wanted: Attachments) -> None:
        """Let the container use the nodes of all of these, and no others."""
        nodes = {node for attachments in wanted for node in attachments.nodes}
        rules: set[DeviceRule] = set()
        for node in nodes:
            # what is no device is told by the errand, with its step
            with contextlib.suppress(OSError):
                rules.add(of_node(node.path))
        try:
            self._owner.cgroups.allow_devices(self._id, sorted(rules, key=DeviceRule.v1))
        except OSError as error:
            raise SetupFailed.from_oserror("set the device rules", error) from error

    def _note(self, said: dict[str, Any], bring: tuple[Bind | Node, ...]) -> None:
        gone = set(said.get("taken", ()))
        self.held = tuple(held for held in self.held if held.mount_id not in gone)
        for what, mount_id in zip(bring, said.get("held", ()), strict=False):
            if mount_id is None and said["type"] == "carried":
                print(f"{self._id}: {what.step}: it is missing, and optional", file=sys.stderr, flush=True)  # noqa: T201 - the log
            elif mount_id is not None:
                self.held = (*self.held, Held(what, mount_id))

    # -- later --------------------------------------------------------------------------------------------------------

    def answer(self, message: dict[str, Any], client: Client) -> None:
        """Change what a running container has, as a client of root's asks."""
        try:
            wanted = Attachments.from_dict(message["attachments"])
        except (AttributeError, KeyError, TypeError):
            client.refuse("bad-frame", "This supervisor does not know what is asked for.")
            return

        def done(error: CoreError | None) -> None:
            if error is None:
                client.tell(type="ok")
                client.close_when_sent()
            else:
                values = error.kept()
                client.refuse(values.pop("code"), values.pop("message"), **values)

        try:
            self.change(wanted, done)
        except CoreError as error:
            done(error)

    def change(self, wanted: Attachments, done: Callable[[CoreError | None], None]) -> None:
        """Attach and take away until the container has what is wanted; done is called from the loop.

        Raises CoreError where it cannot begin. Where a step fails, what was new is taken back.
        """
        child = self._owner.child
        if child is None or self._busy:
            raise NotFound("The container is being started or stopped: try again.")
        there = {held.what for held in self.held}
        take = tuple(held for held in reversed(self.held) if held.what not in set(wanted))
        bring = tuple(what for what in wanted if what not in there)
        if not take and not bring:
            self._want(wanted)
            done(None)
            return
        self._allow(self.wanted, wanted)

        def finished(said: dict[str, Any]) -> None:
            error: CoreError | None = _failure(said) if said["type"] != "carried" else None
            if error is None:
                self._want(wanted)
            try:
                self._allow(self.wanted)
            except CoreError as failed:
                error = error or failed
            done(error)

        def carried(said: dict[str, Any]) -> None:
            new = tuple(held for held in reversed(self.held) if held.what in set(bring))
            if said["type"] == "late" and new:
                # some of it is there: it goes again, unless the container holds that up too; the next change tries it
                self._send(self._errand(child, new, ()), TAKE_BACK_SEC, lambda _: finished(said))
            else:
                finished(said)

        self._send(self._errand(child, take, bring), CHANGE_SEC, carried)

    def _send(self, what: Errand, seconds: float, ended: Callable[[dict[str, Any]], None]) -> None:
        """Have an errand done, for some seconds at most; ended is called from the loop, with what came of it."""
        loop = self._owner.loop
        errand = _Errand(what)
        self._busy = True

        def end(said: dict[str, Any]) -> None:
            timer.cancel()
            loop.forget(errand.fd)
            errand.close(loop)
            self._busy = False
            self._note(said, what.bring)
            ended(said)

        def heard() -> None:
            said = errand.hear()
            if said is not None:
                end(said)

        def late() -> None:
            # it tells of each thing before it attaches that: what it does not tell of now will not be there
            errand.kill()
            said: dict[str, Any] | None = None
            while said is None and errand.waits():
                said = errand.hear()
            if said is None or said.get("early"):
                said = {"type": "late", "held": errand.attached()}
            end(said)

        timer = loop.later(seconds, late)
        loop.watch(errand.fd, read=heard)


def _failure(said: dict[str, Any]) -> CoreError:
    if said["type"] == "late":
        return TimedOut("The container's file systems do not answer.", step=_STEP)
    return SetupFailed.from_oserror(said["step"], OSError(said["errno"], said["message"], said["path"]))


class _Errand:
    """A process on an errand. Owned: close() kills what is still there, and has it reaped."""

    def __init__(self, errand: Errand) -> None:
        self._attached: list[int | None] = [None] * len(errand.bring)
        steps = (*(what.step for what in errand.bring), *map(carrying.taking, errand.take))
        self._steps = {str(step): step for step in steps}
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._pid = os.fork()
        except OSError as error:
            self._connection.close()
            theirs.close()
            raise SetupFailed.from_oserror(_STEP, error) from error
        if self._pid == 0:
            self._connection.close()
            carrying.run(errand, theirs)
        theirs.close()
        self._pidfd = os.pidfd_open(self._pid)
        self.fd = self._connection.fileno()

    def wait(self, seconds: float) -> dict[str, Any]:
        """Return what came of it; raises TimedOut."""
        deadline = time.monotonic() + seconds
        while self.waits(deadline - time.monotonic()):
            said = self.hear()
            if said is not None:
                return said
        raise TimedOut(say("It took longer than %(seconds)s s.", seconds=round(seconds)), step=_STEP)

    def waits(self, seconds: float = 0.0) -> bool:
        """Tell whether there is something to hear, now or within some seconds."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def hear(self) -> dict[str, Any] | None:
        """Return what came of it, once it tells; None where it tells of one thing that it attaches."""
        said: dict[str, Any] | None = None
        with contextlib.suppress(ConnectionError):
            said = messages.receive(self._connection)[0]
        if said is not None and said["type"] == "attached":
            self._attached[said["number"]] = said["mount_id"]
            return None
        early = {"type": "error", "step": _STEP, "path": None, "errno": 0, "message": "it ended early", "early": True}
        if said is not None and "step" in said:
            # what it tells is text; what it stands for is known here, and can be said in other languages
            said["step"] = self._steps.get(said["step"], said["step"])
        return said or early

    def kill(self) -> None:
        """End it, unless it waits in the kernel for a file system of the container's."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def attached(self) -> list[int | None]:
        """Return the mount ids of what may be there so far, None for what is not."""
        return self._attached

    def close(self, loop: Loop, patience_sec: float = _END_SEC) -> None:
        """Let go of it. One that waits in the kernel for a file system of the container's is reaped when it ends."""
        self._connection.close()
        self.kill()
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if poll.poll(patience_sec * 1000):
            self._reap()
            return

        def ended() -> None:
            loop.forget(self._pidfd)
            self._reap()

        loop.watch(self._pidfd, read=ended)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
