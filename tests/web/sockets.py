"""A WebSocket to the panel's consumers. Channels' own gives up after a second, which any process may pause for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from channels.testing import WebsocketCommunicator

WAIT_SEC: Final = 60.0
"""How long something that is sure to come is waited for."""


class Socket(WebsocketCommunicator):
    """The same, with a patience that only something which never comes uses up."""

    async def connect(self, timeout: float = WAIT_SEC) -> Any:
        return await super().connect(timeout)

    async def wait(self, timeout: float = WAIT_SEC) -> None:
        await super().wait(timeout)

    async def receive_output(self, timeout: float = WAIT_SEC) -> Any:
        return await super().receive_output(timeout)

    async def receive_from(self, timeout: float = WAIT_SEC) -> Any:
        return await super().receive_from(timeout)

    async def receive_json_from(self, timeout: float = WAIT_SEC) -> Any:
        return await super().receive_json_from(timeout)

    async def disconnect(self, code: int = 1000, timeout: float = WAIT_SEC) -> None:
        await super().disconnect(code, timeout)


async def until(so: Callable[[], object]) -> None:
    """Wait until something is so; fails the test where it never is."""
    async with asyncio.timeout(WAIT_SEC):
        while not so():
            await asyncio.sleep(0.01)
