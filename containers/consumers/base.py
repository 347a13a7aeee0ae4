"""What every WebSocket of the panel does: find out who is there, refuse in words, and look again while it is open.

Channels authenticates once, at the handshake; here the session, the user and his rights are looked up again every few
seconds and whenever a notice says that somebody's rights changed. Browsers come with the session's cookie and must
name the panel's full origin (scheme, host and port); programs come with a bearer token.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final, cast

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.http.cookie import parse_cookie

from containers.core.errors import CoreError
from panel.accounts import tokens
from panel.accounts.actor import Actor
from panel.accounts.addresses import valid_ip
from panel.accounts.models import User

RECHECK_SEC: Final = 5.0
TEXT_MAX_BYTES: Final = 16 * 1024
BINARY_MAX_BYTES: Final = 64 * 1024

CLOSE_CODES: Final[dict[str, int]] = {
    "bad-request": 4400,
    "bad-frame": 4400,
    "invalid-value": 4400,
    "unauthenticated": 4401,
    "forbidden": 4403,
    "policy": 4403,
    "setup-failed": 4409,
    "not-found": 4404,
    "invalid-transition": 4409,
    "busy": 4409,
    "in-use": 4409,
    "too-large": 4413,
    "too-many": 4429,
    "unavailable": 1013,
}
"""An error's code → the WebSocket's close code; anything else is 1011."""

log = logging.getLogger(__name__)


class Refusal(CoreError):
    """Ends a socket with a code of CLOSE_CODES and a sentence."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.code = code  # type: ignore[misc]


def identify(headers: dict[bytes, bytes], source_ip: str | None) -> Actor:
    """Return who opens a socket; raises Refusal. Looks at the database anew each time it is called."""
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    if authorization:
        scheme, _, secret = authorization.partition(" ")
        token = tokens.find(secret.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            raise Refusal("unauthenticated", "This token is not valid, or not any more.")
        return Actor(token.user, source_ip, token)
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin not in settings.BOXROOM_ORIGINS:
        raise Refusal("forbidden", "This origin may not open sockets of the panel.")
    key = parse_cookie(headers.get(b"cookie", b"").decode("latin-1")).get(settings.SESSION_COOKIE_NAME)
    # get_user() checks the session's signature of the password as well as the user
    user = get_user(cast("Any", SimpleNamespace(session=SessionStore(key)))) if key else None
    if not isinstance(user, User) or not user.is_active:
        raise Refusal("unauthenticated", "Sign in first.")
    return Actor(user, source_ip)


class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """A socket that denies by default. Subclasses write opened(), and got_text() or got_bytes() where they take any.

    All that runs beside the socket is started with beside() and ends with it; an error in it ends the socket.
    """

    actor: Actor

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one socket; what runs beside ends with it, however it ends."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._end()

    async def connect(self) -> None:
        """Accept, so that a refusal can be told in words, and find out who it is."""
        await self.accept()
        try:
            self.actor = await self._identify()
            await self.opened()
        except CoreError as error:
            await self.refuse(error)
            return
        except Exception:
            log.exception("%s failed", type(self).__name__)
            await self.refuse(_broken())
            return
        self.beside(self._look_again())

    async def opened(self) -> None:
        """Start to serve self.actor; raise a CoreError to refuse. A consumer that says nothing serves nobody."""
        raise Refusal("forbidden", "There is nothing here.")

    async def authorise(self) -> None:
        """Check the rights of self.actor again; raise a CoreError to end the socket. Called while it is open."""

    async def got_text(self, message: dict[str, Any]) -> None:
        """Handle a JSON object from the browser."""
        raise Refusal("bad-request", "This socket takes no messages.")

    async def got_bytes(self, data: bytes) -> None:
        """Handle bytes from the browser."""
        raise Refusal("bad-request", "This socket takes no bytes.")

    async def closed(self) -> None:
        """Release what opened() took. Called once, however the socket ends."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Check the size and the shape of a frame and hand it on."""
        if self._ended:
            return
        try:
            if bytes_data is not None:
                if len(bytes_data) > BINARY_MAX_BYTES:
                    raise Refusal("too-large", f"A frame may hold {BINARY_MAX_BYTES} bytes.")
                await self.got_bytes(bytes_data)
            else:
                await self.got_text(_parse(text_data or ""))
        except CoreError as error:
            await self.refuse(error)
        except Exception:
            log.exception("%s failed", type(self).__name__)
            await self.refuse(_broken())

    async def disconnect(self, code: int) -> None:
        """End what runs beside."""
        await self._end()

    async def tell(self, **message: Any) -> None:
        """Send a JSON object, unless the socket has ended."""
        if not self._ended:
            await self.send(text_data=json.dumps(message, separators=(",", ":")))

    async def refuse(self, error: CoreError) -> None:
        """Say why, and close."""
        if self._ended:
            return
        await self.tell(type="error", **error.as_dict())
        await self._end()
        with contextlib.suppress(RuntimeError):
            await self.close(CLOSE_CODES.get(error.code, 1011))

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work until it ends or the socket does; a CoreError in it closes the socket with its code."""
        if self._ended:
            work.close()
            return
        task = asyncio.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except CoreError as error:
            await self.refuse(error)
        except Exception:
            log.exception("%s failed", type(self).__name__)
            await self.refuse(_broken())

    async def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        mine = asyncio.current_task()
        for task in list(self._tasks):
            if task is not mine:
                task.cancel()
        await self.closed()

    async def _identify(self) -> Actor:
        headers = dict(self.scope.get("headers", ()))
        client = self.scope.get("client") or ("", 0)
        return cast("Actor", await database_sync_to_async(identify)(headers, valid_ip(client[0])))

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SEC)
            fresh = await self._identify()
            if fresh.user.pk != self.actor.user.pk:
                raise Refusal("unauthenticated", "Somebody else is signed in now.")
            self.actor = replace(self.actor, user=fresh.user, token=fresh.token)
            await self.authorise()


class UnknownPath(Consumer):
    """What answers where there is no socket."""

    async def connect(self) -> None:
        """Accept, so that it can be told."""
        await self.accept()
        await self.refuse(Refusal("not-found", "There is no socket here."))


def _broken() -> CoreError:
    return CoreError("Something went wrong here; it is in the panel's log.")


def _parse(text: str) -> dict[str, Any]:
    if len(text) > TEXT_MAX_BYTES:
        raise Refusal("too-large", f"A message may hold {TEXT_MAX_BYTES} bytes.")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal("bad-request", "This is not JSON.") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Refusal("bad-request", "Send an object with a type.", field="type")
    return message


def in_database(function: Any) -> Any:
    """Make a function that talks to the database awaitable."""
    return database_sync_to_async(function)


__all__ = ["CLOSE_CODES", "Consumer", "Refusal", "identify", "in_database"]
