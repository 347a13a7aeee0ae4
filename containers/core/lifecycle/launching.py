"""The worker's conversation with the starter that answers for the launcher: one start."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..errors import AlreadyExists, Cancelled, CoreError, HostUnsupported, NotFound, SetupFailed, TimedOut
from ..host import Host
from ..model.spec import Spec
from ..network.plugging import Placed
from ..plans.start_plan import HANDSHAKE_SEC, NETWORK_SEC, StartPlan
from ..proc import messages
from ..sentences import restored, say

Progress = Callable[[int, str], None]
_ANSWER_SEC: Final = HANDSHAKE_SEC + NETWORK_SEC
_ERRORS: Final = {kind.code: kind for kind in (AlreadyExists, HostUnsupported, NotFound, TimedOut)}
_LAUNCHER_SEC: Final = 30.0


class NetworkPort(Protocol):
    """What a start needs of the network. Bound to one host."""

    def attach(self, spec: Spec, netns_fd: int) -> Sequence[Placed] | None:
        """Put the container's NICs into its network namespace; filters are in force before a link is up."""

    def detach(self, spec: Spec) -> None:
        """Take away what attach made; what is gone already is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """A container that runs. started_at: UTC, ISO 8601."""

    init_pid: int
    started_at: str


def launch(plan: StartPlan, network: NetworkPort, progress: Progress, cancelled: Callable[[], bool]) -> RunState:
    """Have a container started, and attach its network on the way.

    Raises what the supervisor reports, and what the network does; then nothing is left behind when this returns.
    """
    deadline = time.monotonic() + _LAUNCHER_SEC
    while True:
        with _launcher(plan.host, deadline) as connection, contextlib.suppress(_NotTaken):
            connection.settimeout(_ANSWER_SEC + sum(call.timeout_sec for call in plan.extras.hooks))
            _ask(connection, plan)
            try:
                return _follow(connection, plan.spec, network, progress, cancelled)
            except _NotTaken:
                raise
            except BaseException:
                # the starter sees the closed connection and takes everything back; what it made is gone when it is
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
                _await_close(connection)
                network.detach(plan.spec)
                raise
        if time.monotonic() >= deadline:
            raise _ended()


class _NotTaken(Exception):
    """Whoever was to start the container ended before it had read what to start: nothing has begun."""


@contextlib.contextmanager
def _launcher(host: Host, deadline: float) -> Iterator[socket.socket]:
    """Connect to the launcher, and wait until then for one that is just being started again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(_ANSWER_SEC)
        while True:
            try:
                connection.connect(str(host.launcher_socket))
                break
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if time.monotonic() >= deadline:
                    raise SetupFailed(
                        "The launcher does not run: see its log, and whether the panel's watcher runs.",
                        step="reach the launcher",
                        path=str(host.launcher_socket),
                        errno=error.errno,
                    ) from error
            time.sleep(0.05)
        yield connection


def _ask(connection: socket.socket, plan: StartPlan) -> None:
    """Send the plan in a memory file: an environment may be larger than a message can be."""
    fd = os.memfd_create("start-plan", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(plan.to_json())
        file.flush()
        file.seek(0)
        try:
            messages.send(connection, {"cmd": "start"}, (fd,))
        except ConnectionError:
            raise _NotTaken from None


def _answer(connection: socket.socket, kind: str) -> tuple[dict[str, Any], list[int]]:
    """Return the supervisor's next message, which must be of this kind; raises what it reports."""
    try:
        message, fds = _next(connection)
    except TimeoutError:
        raise TimedOut("The supervisor did not answer in time.", step=say("wait for %(what)s", what=kind)) from None
    except ConnectionResetError:
        if kind == "namespaces":
            # nobody has read what it is told first (unix(7))
            raise _NotTaken from None
        message, fds = None, []
    if message is None:
        raise _ended()
    if message["type"] == "error":
        raise _error(message)
    if message["type"] != kind:
        raise SetupFailed(
            say("The supervisor said %(said)s instead of %(wanted)s.", said=message["type"], wanted=kind), step="start"
        )
    return message, fds


def _ended() -> SetupFailed:
    return SetupFailed("The supervisor ended during the start; its log tells why.", step="start")


def _next(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    try:
        return messages.receive(connection, fds_max=1)
    except ConnectionResetError:
        # it left with our last message unread; what it said before that is still to be had
        with contextlib.suppress(ConnectionError):
            message, fds = messages.receive(connection, fds_max=1)
            if message is not None:
                return message, fds
        raise


_OF_ITSELF: Final = ("type", "code", "message", "field", "said")


def _error(message: dict[str, Any]) -> CoreError:
    told = restored(message)
    values = {name: value for name, value in message.items() if name not in _OF_ITSELF}
    kind = _ERRORS.get(message["code"])
    if kind is not None:
        return kind(told, **values)
    known = {name: values.get(name) for name in ("path", "errno", "console")}
    return SetupFailed(told, step=values.get("step") or "start", **known)


def _follow(
    connection: socket.socket,
    spec: Spec,
    network: NetworkPort,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> RunState:
    _, (netns_fd,) = _answer(connection, "namespaces")
    try:
        progress(40, "Attaching the network")
        placed = network.attach(spec, netns_fd) or ()
    except (CoreError, OSError) as error:
        # a container that ended meanwhile took its links along: why it ended is the reason
        own = _own_reason(connection)
        if own is None:
            raise
        raise own from error
    finally:
        os.close(netns_fd)
    if cancelled():
        raise Cancelled("The start was cancelled.")
    progress(80, "Starting init")
    try:
        messages.send(connection, {"cmd": "network-ready", **told(spec, placed)})
    except ConnectionError:
        # it has failed meanwhile: the reason is in the next message
        pass
    message, _ = _answer(connection, "running")
    return RunState(init_pid=message["pid"], started_at=message["started_at"])


def _own_reason(connection: socket.socket) -> CoreError | None:
    """Return what a start failed for but its network, when all of it is taken back; None where that was all."""
    try:
        connection.shutdown(socket.SHUT_WR)
        message, _ = _next(connection)
    except OSError:
        return None
    if message is None or message["type"] != "error" or message["code"] == Cancelled.code:
        return None
    return _error(message)


def told(spec: Spec, placed: Sequence[Placed]) -> dict[str, Any]:
    """Return what a supervisor is to know of its container's NICs; nothing where it is as in its plan."""
    known = {nic.index: nic for nic in spec.nics}
    inside = [(one.nic.index, one.index) for one in placed if one.index and one.nic.type != "phys"]
    if not inside and all(known.get(one.nic.index) == one.nic for one in placed):
        return {}
    now = known | {one.nic.index: one.nic for one in placed}
    return {"nics": [dataclasses.asdict(now[index]) for index in known], "placed": inside}


def _await_close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while messages.receive(connection)[0] is not None:
            pass
