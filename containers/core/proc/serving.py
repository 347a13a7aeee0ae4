"""Joins a supervisor to its socket: what clients may ask of it, and the container they enter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ..cgroups.base import Cgroups
from ..cgroups.places import Joined
from ..host import WEB_USER, Host
from ..model import passwd
from ..model.behaviour import Consoles
from ..model.exits import Reason
from ..plans.start_plan import StartPlan, environment
from . import confining, rights
from .child_plan import kept, last_capability
from .clients import Client
from .inside import Target
from .loop import Loop
from .luggage import Luggage
from .sessions import SessionServer
from .spawn import Init

_REASONS: tuple[Reason, ...] = ("stopped", "killed")


class Owner(Protocol):
    """What the socket needs of its supervisor."""

    @property
    def plan(self) -> StartPlan:
        """What the container was started from."""

    id: str
    host: Host
    consoles: Consoles
    cgroups: Cgroups
    loop: Loop
    expected: Reason | None
    luggage: Luggage

    @property
    def bpf(self) -> bytes:
        """The system call filter of those who enter."""

    def status(self) -> dict[str, Any]:
        """Return the answer to a status question."""

    def stop(self, number: int) -> None:
        """Send init the signal that asks it to end."""

    def change_nics(self, message: dict[str, Any], client: Client) -> None:
        """Take over what was changed of the container's network interfaces."""


def make(owner: Owner) -> SessionServer:
    """Return the server of a supervisor's clients; it listens on nothing yet."""

    def status(message: dict[str, Any], client: Client) -> None:
        client.tell(**owner.status())
        client.close_when_sent()

    def stop(message: dict[str, Any], client: Client) -> None:
        number = message.get("signal")
        if not isinstance(number, int) or not 1 <= number <= 64:
            client.refuse("invalid-value", "Give a signal's number.", field="signal")
            return
        owner.stop(number)
        client.tell(type="ok")
        client.close_when_sent()

    def expect_stop(message: dict[str, Any], client: Client) -> None:
        reason = message.get("reason")
        if reason not in _REASONS:
            client.refuse("invalid-value", "Use stopped or killed.", field="reason")
            return
        owner.expected = reason
        client.tell(type="ok")
        client.close_when_sent()

    uid, gid = web_ids()
    return SessionServer(
        owner.loop,
        None,
        commands={
            "status": status,
            "stop": _root_only(stop),
            "expect-stop": _root_only(expect_stop),
            "attach": _root_only(owner.luggage.answer),
            "nics": _root_only(owner.change_nics),
        },
        web_uid=uid,
        web_gid=gid,
        log_path=owner.host.container_dir(owner.id) / "console.log",
        consoles=owner.consoles,
    )


def target(owner: Owner, child: Init, joined: Joined) -> Target:
    """Describe a running container to those who enter it."""
    spec = owner.plan.spec
    return Target(
        init_pid=child.pid,
        init_pidfd=child.pidfd,
        privileged=spec.privileged,
        attach_procs=joined.attach_procs,
        own_tree=Path(joined.init_procs[-1]).parent,
        frozen=lambda: owner.cgroups.frozen(spec.id),
        seccomp=owner.bpf,
        capabilities=kept(spec),
        last_capability=last_capability(),
        environment=environment(spec),
        no_new_privs=spec.security.no_new_privs,
        limits=rights.limits_of(spec.security.prlimits),
        oom_score_adj=spec.security.oom_score_adj,
        confinement=confining.of(spec.security, owner.plan.extras.apparmor),
    )


def _root_only(answer: Callable[[dict[str, Any], Client], None]) -> Callable[[dict[str, Any], Client], None]:
    def checked(message: dict[str, Any], client: Client) -> None:
        if client.peer.uid != 0:
            client.refuse("forbidden", "Only root may ask for this.")
            return
        answer(message, client)

    return checked


@functools.cache
def web_ids() -> tuple[int | None, int | None]:
    """Return the web user's ids from the host's own file, looked up once: NSS would bring libraries in."""
    try:
        account = passwd.resolve(WEB_USER, Path("/etc/passwd").read_bytes(), b"")
    except passwd.UnknownUser:
        return None, None
    return account.uid, account.gid
