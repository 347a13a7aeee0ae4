"""Django's entry for HTTP, with all of a request in one thread.

Django's own entry calls the middlewares from the event loop, and those that are written for threads, which is most of
them, each go to a thread and back twice: sixteen changes of threads for a page, some of its time. Here the request
goes to its thread once. What waits for long does so in the event loop, after the thread has gone. How many have a
thread at once is in slots.py.
"""

from __future__ import annotations

from typing import Any

import django
from asgiref.sync import sync_to_async
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from containers.messaging import notices

from . import held, slots


class Handler(ASGIHandler):
    """An ASGI handler whose chain of middlewares is synchronous."""

    def __init__(self, threads: int = slots.THREADS_MAX, waiting: int = slots.WAITING_MAX) -> None:
        super().__init__()
        self.slots = slots.Slots(threads, waiting)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer a request. From the first one on, the process hears what changes: pages tell where they began."""
        notices.hub().listen()
        slot = slots.Slot(self.slots)
        slots.current.set(slot)
        try:
            await super().__call__(scope, receive, send)
        except slots.Full:
            await slots.tell_full(send)
        finally:
            if slot.claim():
                slot.give()

    async def read_body(self, receive: Any) -> Any:
        """Take the body in, which may be slow in coming, and then a slot; threads come after."""
        body = await super().read_body(receive)
        try:
            await slots.current.get().take()
        except BaseException:
            body.close()
            raise
        return body

    def load_middleware(self, is_async: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Load the middlewares for a thread, whatever is asked for."""
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Have the request answered in its thread; what is held back has none while it waits."""
        held.promise(request)
        answer: Any = await sync_to_async(self._in_slot, thread_sensitive=True)(request, slots.current.get())
        if isinstance(answer, held.Held):
            await answer.finished()
        return answer  # type: ignore[no-any-return]

    def _in_slot(self, request: HttpRequest, slot: slots.Slot) -> HttpResponseBase:
        """Answer in the request's thread, and give the slot back; who sends the answer needs none."""
        if not slot.claim():
            raise RequestAborted  # it has ended meanwhile: nobody hears this
        try:
            return self.get_response(request)
        finally:
            slot.give()


def get_application() -> Handler:
    """Set Django up and return the handler."""
    django.setup(set_prefix=False)
    return Handler()
