"""Answers that are held back until something has happened: the view returns at once what is to be awaited.

A view has a thread as long as it runs. What waits for long gives its thread back, and the web process's handler
finishes the answer in the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse

Finish = Callable[[], Awaitable[HttpResponse]]


class Held(HttpResponse):
    """An answer without content yet. finish: waits, and makes the real one; raises nothing."""

    def __init__(self, finish: Finish) -> None:
        super().__init__()
        self._finish = finish

    async def finished(self) -> None:
        """Wait without a thread, and take over status, content and headers of the real answer."""
        await _let_thread_go()
        answer = await self._finish()
        self.status_code, self.content = answer.status_code, answer.content
        for name, value in answer.items():
            self[name] = value
        self["Content-Length"] = str(len(self.content))


def promise(request: HttpRequest) -> None:
    """Note that whoever sends the answer to this request finishes what is held."""
    request.finishes_held = True  # type: ignore[attr-defined]


def promised(request: HttpRequest) -> bool:
    """Tell whether a held answer to this request would be finished."""
    return bool(getattr(request, "finishes_held", False))


async def _let_thread_go() -> None:
    """End the request's thread and its connection to the database; what comes later makes others."""
    await sync_to_async(connections.close_all)()
    context = SyncToAsync.thread_sensitive_context.get(None)
    executor = SyncToAsync.context_to_thread_executor.pop(context, None) if context else None
    if executor is not None:
        executor.shutdown(wait=False)
