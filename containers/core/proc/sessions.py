"""The supervisor's socket: who connects, what they may ask, which terminals and commands are running.

    open           a terminal: new, or one that is there; "console" is /dev/console, "tty1" is /dev/tty1
    exec           a command without one
    sessions       the list;  close-session ends one
    anything else  is the supervisor's own (status, stop, …)

Root and the web's user may connect, nobody else. Limits hold for the container as a whole and for each user.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..errors import SpecError
from ..model.behaviour import Consoles
from ..model.spec import check_environment
from ..sentences import say
from . import attach
from .clients import Client
from .console import CONSOLE, Console, names
from .exec import Exec
from .inside import Request, Target
from .loop import Loop
from .streams import SIZE_RULE, VIEWERS_MAX, Viewer, terminal_size
from .terminals import Session
from .typists import Typist, typist

SESSIONS_MAX: Final = 16
SESSIONS_PER_USER_MAX: Final = 8
EXECS_MAX: Final = 64
CLIENTS_MAX: Final = 256
ENDED_KEPT_SEC: Final = 300.0
TIMEOUT_MAX_SEC: Final = 24 * 3600
COMMAND_MAX_BYTES: Final = 48 * 1024
_STALL_CHECK_SEC: Final = 5.0
_DRAIN_LOOKS: Final = 100
_LOOK_SEC: Final = 0.01

Answer = Callable[[dict[str, Any], Client], None]


class SessionServer:
    """Listens on a supervisor's socket and serves its clients.

    container: tells who is entered; None while there is nobody to enter (between two runs). commands: the supervisor's
    own answers to {"cmd": NAME}. web_uid, web_gid: the web's user. log_path: the console's log, None for none.
    consoles: their settings.
    """

    def __init__(
        self,
        loop: Loop,
        container: Callable[[], Target] | None,
        *,
        commands: dict[str, Answer] | None = None,
        web_uid: int | None = None,
        web_gid: int | None = None,
        log_path: Path | None = None,
        consoles: Consoles | None = None,
    ) -> None:
        self._loop = loop
        self.container = container
        settings = consoles or Consoles()
        self.consoles = {
            name: Console(loop, name, settings, log_path if name == CONSOLE else None) for name in names(settings)
        }
        self._commands = {
            **(commands or {}),
            "open": self._open,
            "exec": self._exec,
            "sessions": self._list,
            "close-session": self._close_session,
        }
        self._web_uid = web_uid
        self._web_gid = web_gid
        self._sessions: dict[str, Session] = {}
        self._starting: dict[str, str] = {}
        self._execs: set[Exec] = set()
        self._exec_number = 0
        self._clients: set[Client] = set()
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        loop.later(_STALL_CHECK_SEC, self._drop_stalled)

    # -- the socket --------------------------------------------------------------------------------------------------

    def listen(self, path: Path) -> None:
        """Make the socket and serve it. Raises OSError."""
        self.take(listen(path, self._web_gid), path)

    def take(self, listening: socket.socket, path: Path) -> None:
        """Serve a socket that listen() made; from here on it is owned."""
        self._socket, self._path = listening, path
        self._loop.watch(listening.fileno(), read=self._accept)

    def finish(self) -> None:
        """Give clients a moment to take what they are owed, then close everything. The loop must not be running."""
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self.container = None

        def look(left: int) -> None:
            # counted in turns of our own: while we were held up nobody could take anything
            busy = any(not s.ended for s in self._sessions.values()) or self._execs
            if left and (busy or any(not client.idle for client in self._clients)):
                self._loop.later(_LOOK_SEC, lambda: look(left - 1))
            else:
                self._loop.stop()

        self._loop.later(0, lambda: look(_DRAIN_LOOKS))
        self._loop.run()
        for client in list(self._clients):
            client.shutdown()
        self._clients.clear()
        for console in self.consoles.values():
            console.close()

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        client = Client(self._loop, connection, self._first)
        if client.peer.uid not in (0, self._web_uid) or len(self._clients) >= CLIENTS_MAX:
            client.close()
            return
        self._clients.add(client)
        client.on_gone = self._clients.discard

    def _first(self, client: Client, message: dict[str, Any]) -> None:
        command = message.get("cmd")
        answer = self._commands.get(command) if isinstance(command, str) else None
        if answer is None:
            client.refuse("bad-frame", "Unknown command.")
            return
        try:
            answer(message, client)
        except SpecError as error:
            client.refuse(error.code, error.message, field=error.field)
        except OSError as error:
            print(f"{command}: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the log
            client.refuse("unavailable", f"The host could not do it: {error.strerror or error}.")

    # -- terminals ---------------------------------------------------------------------------------------------------

    def _open(self, message: dict[str, Any], client: Client) -> None:
        size = terminal_size(message.get("cols"), message.get("rows"))
        if size is None:
            raise SpecError(SIZE_RULE, field="cols")
        viewer = _viewer(message)
        wanted = message.get("session")
        if wanted is not None:
            self._join(str(wanted), client, viewer, size)
            return
        if viewer["mode"] != "rw":
            client.refuse("forbidden", "Who may only look cannot open a session.")
            return
        asked = exec_request(message, required=False)
        container = self._enterable(client)
        if container is None or not self._has_place(client, viewer["user"]):
            return
        session_id = os.urandom(8).hex()
        self._starting[session_id] = viewer["user"]

        def started(result: attach.Started | attach.Failure) -> None:
            self._starting.pop(session_id, None)
            if isinstance(result, attach.Failure):
                told = {} if result.exit_code is None else {"exit_code": result.exit_code}
                client.refuse(result.code, result.message, field=result.field, **told)
                return
            session = Session(self._loop, session_id, viewer["user"], self._ended)
            session.begin(result, size)
            self._sessions[session_id] = session
            if not client.gone:
                self._join(session_id, client, viewer, size, created=True)

        request = Request(
            command=asked["command"],
            user=asked["user"],
            cwd=asked["cwd"],
            environment=asked["environment"],
            size=size,
        )
        try:
            attach.Launch(self._loop, container, request, started)
        except OSError:
            self._starting.pop(session_id, None)
            raise

    def _join(
        self, session_id: str, client: Client, who: dict[str, Any], size: tuple[int, int], *, created: bool = False
    ) -> None:
        console = self.consoles.get(session_id)
        stream = console or self._sessions.get(session_id)
        if stream is None:
            client.refuse("not-found", "This session is not there any more.", field="session")
            return
        typing: Typist | None = who["typist"] if who["mode"] == "rw" else None
        if typing is not None:
            stream.drop_typist(typing)
        if console is not None and console.exclusive and who["mode"] == "rw" and console.taken:
            client.refuse("in-use", f"Somebody has {session_id} open, which is for one at a time.")
            return
        if len(stream.viewers) >= VIEWERS_MAX:
            client.refuse("too-many", f"A session has at most {VIEWERS_MAX} viewers.")
            return
        may_type = who["mode"] == "rw"
        viewer = Viewer(client, stream, who["user"], who["user_id"], may_type=may_type, typist=typing)
        viewer.size = size
        replay = 0 if created else stream.ring.end - viewer.position
        taken = {"taken": stream.typists.taken(typing)} if typing is not None else {}
        client.tell(type="opened", session=session_id, created=created, replay=replay, **taken)
        if typing is not None and taken["taken"] is None:
            stream.typists.note(typing, 0)
        if not stream.viewers:
            stream.resized(viewer)
        stream.join(viewer)

    def _has_place(self, client: Client, user: str) -> bool:
        owners = [*self._starting.values(), *(s.user for s in self._sessions.values() if not s.ended)]
        if len(owners) >= SESSIONS_MAX or owners.count(user) >= SESSIONS_PER_USER_MAX:
            most = SESSIONS_MAX if len(owners) >= SESSIONS_MAX else SESSIONS_PER_USER_MAX
            client.refuse("too-many", f"There are {most} open terminals already; close one first.")
            return False
        return True

    def _ended(self, session: Session) -> None:
        self._loop.later(ENDED_KEPT_SEC, lambda: self._forget(session.id))
        ended = [s.id for s in self._sessions.values() if s.ended]
        for session_id in ended[: max(0, len(ended) - SESSIONS_MAX)]:
            self._forget(session_id)

    def _forget(self, session_id: str) -> None:
        session = self._sessions.pop(session_id, None)
        for viewer in list(session.viewers) if session else ():
            viewer.client.close_when_sent()

    def _list(self, message: dict[str, Any], client: Client) -> None:
        items = [console.describe() for console in self.consoles.values()]
        items += [session.describe() for session in self._sessions.values()]
        client.tell(type="sessions", items=items)
        client.close_when_sent()

    def _close_session(self, message: dict[str, Any], client: Client) -> None:
        session = self._sessions.get(str(message.get("session")))
        if session is None:
            client.refuse("not-found", "This session is not there any more.", field="session")
            return
        if session.ended:
            self._forget(session.id)
        else:
            session.hang_up()
        client.tell(type="closed", session=session.id)
        client.close_when_sent()

    def _drop_stalled(self) -> None:
        for stream in (*self.consoles.values(), *self._sessions.values()):
            stream.drop_stalled()
        self._loop.later(_STALL_CHECK_SEC, self._drop_stalled)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _exec(self, message: dict[str, Any], client: Client) -> None:
        request = exec_request(message)
        container = self._enterable(client)
        if container is None:
            return
        if len(self._execs) >= EXECS_MAX:
            client.refuse("too-many", f"{EXECS_MAX} commands are running already.")
            return
        self._exec_number += 1
        name = f"exec-{self._exec_number}"
        self._execs.add(Exec(self._loop, container, client, request, name=name, on_end=self._execs.discard))

    def _enterable(self, client: Client) -> Target | None:
        if self.container is None:
            client.refuse("invalid-transition", "The container is not running.")
            return None
        container = self.container()
        if container.frozen():
            client.refuse("invalid-transition", "The container is frozen; unfreeze it first.")
            return None
        return container


def listen(path: Path, web_gid: int | None) -> socket.socket:
    """Make a socket that listens (0660, the web's group), in the place of what is there. Raises OSError."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    name = str(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        previous = os.umask(0o177)
        try:
            listening.bind(name)
        finally:
            os.umask(previous)
        if web_gid is not None:
            os.chown(name, 0, web_gid)
        os.chmod(name, 0o660)
        listening.listen(64)
    except OSError:
        listening.close()
        raise
    return listening


def exec_request(message: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """Return the checked values of an exec, or of a terminal, which needs no command. Raises SpecError (the field)."""
    cwd, environment, timeout = message.get("cwd"), message.get("environment") or {}, message.get("timeout")
    if cwd is not None and (not isinstance(cwd, str) or not cwd.startswith("/") or "\0" in cwd or len(cwd) > 4096):
        raise SpecError("Give an absolute path.", field="cwd")
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise SpecError("Give names and values as text.", field="environment")
    check_environment(environment, forbidden="\0")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= TIMEOUT_MAX_SEC
    ):
        raise SpecError(say("Give seconds, up to %(most)s.", most=TIMEOUT_MAX_SEC), field="timeout")
    return {
        "command": _command(message.get("command"), required=required),
        "user": _user(message.get("user")),
        "cwd": cwd,
        "environment": environment,
        "timeout": timeout,
    }


def _command(value: object, *, required: bool) -> tuple[str, ...] | None:
    if value is None and not required:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value) or not value[0]:
        raise SpecError("Give the command as a list of texts.", field="command")
    if any("\0" in part for part in value) or sum(len(part) for part in value) > COMMAND_MAX_BYTES:
        raise SpecError("The command is too long, or holds NUL.", field="command")
    return tuple(value)


def _user(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise SpecError("Name a user, a uid or uid:gid.", field="user")
    return value


def _viewer(message: dict[str, Any]) -> dict[str, Any]:
    value = message.get("viewer")
    found = value if isinstance(value, dict) else {}
    user, user_id, mode = found.get("user", ""), found.get("user_id"), found.get("mode", "ro")
    if not isinstance(user, str) or len(user) > 63 or not isinstance(user_id, int | None) or mode not in ("rw", "ro"):
        raise SpecError("Say who looks: user, user_id, mode.", field="viewer")
    try:
        return {"user": user, "user_id": user_id, "mode": mode, "typist": typist(user_id, message.get("typist"))}
    except ValueError:
        raise SpecError("A typist's name is 1 to 64 letters, digits and hyphens.", field="typist") from None
