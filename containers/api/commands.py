"""Calls that reach a running container's supervisor, or the ticker: exec, sessions, stats, history."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Annotated, Any, Final, NamedTuple

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Query, Router, Status
from pydantic import BaseModel, ConfigDict, Field

from containers.asking import services
from containers.clients import cgroupfile, consolelog, history, hostlink
from containers.core.errors import CoreError, InvalidTransition, SpecError
from containers.core.model.states import Action, after
from containers.core.model.states import Status as ContainerStatus
from containers.models import Container
from panel.accounts import audit
from panel.accounts.models import AuditRecord

from .auth import actor
from .errors import TooMany
from .schemas import ExecIn

router = Router(tags=["containers"])

EXECS_MAX: Final = 64
"""Commands that may run through one web process at once."""
EXECS_PER_USER_MAX: Final = 16
SESSION_ID_MAX: Final = 64

_running: dict[int, int] = {}
"""User's id → how many commands of his run now."""


@router.post("/containers/{name}/exec", summary="Run a command")
async def execute(request: HttpRequest, name: str, body: ExecIn) -> HttpResponse:
    """Run a command inside, wait for its end, and answer with what it wrote."""
    stdin = _stdin(body)
    user_id = actor(request).user.pk
    if sum(_running.values()) >= EXECS_MAX or _running.get(user_id, 0) >= EXECS_PER_USER_MAX:
        raise TooMany("Too many commands run at once; wait for one to end.")
    _running[user_id] = _running.get(user_id, 0) + 1
    begun, ended = None, _Ended(audit.Outcome.FAILED, {})
    try:
        row, begun = await sync_to_async(_begin)(request, name, body)
        result = await hostlink.execute(
            row.pk,
            body.command,
            user=body.user,
            cwd=body.cwd,
            environment=body.environment,
            stdin=stdin,
            timeout_sec=body.timeout,
            max_output_bytes=body.max_output_bytes,
        )
        ended = _Ended(audit.Outcome.SUCCEEDED, {"exit_code": result.exit_code})
    except CoreError as error:
        ended = _Ended(audit.Outcome.FAILED, {"code": error.code})
        raise
    except asyncio.CancelledError:
        ended = _Ended(audit.Outcome.CANCELLED, {})
        raise
    finally:
        _running[user_id] -= 1
        if not _running[user_id]:
            del _running[user_id]
        if begun is not None:
            # on its way even where the caller has hung up
            await asyncio.shield(sync_to_async(audit.end)(begun, ended.outcome, ended.detail))
    return JsonResponse(result.as_json(body.encoding))


def _stdin(body: ExecIn) -> bytes:
    if body.stdin is None:
        return b""
    if body.encoding == "utf-8":
        return body.stdin.encode()
    try:
        return base64.b64decode(body.stdin, validate=True)
    except (binascii.Error, ValueError):
        raise SpecError("This is not base64.", field="stdin") from None


def _running_container(request: HttpRequest, name: str, action: str) -> Container:
    """Return a container that the caller may do the action on, and that runs; raises InvalidTransition otherwise."""
    row = services.find_container(actor(request), name, action)
    after(ContainerStatus(row.status), Action.EXEC)
    return row


class _Ended(NamedTuple):
    """How a command ended, for the audit trail."""

    outcome: str
    detail: dict[str, Any]


def _begin(request: HttpRequest, name: str, body: ExecIn) -> tuple[Container, AuditRecord]:
    """Find the container, and tell the audit trail which program is to run, before it does.

    Its arguments may hold secrets and are not kept.
    """
    row = _running_container(request, name, "exec")
    detail = {"program": body.command[0][:255], "user": body.user}
    return row, audit.record(
        actor(request), "container.exec", "container", row.name, project=row.project.name,
        outcome=audit.Outcome.PENDING, detail=detail,
    )  # fmt: skip


@router.get("/containers/{name}/sessions", summary="Open terminals")
async def list_sessions(request: HttpRequest, name: str) -> dict[str, Any]:
    """The terminals that are open in a container, watched or not."""
    row = await sync_to_async(services.find_container)(actor(request), name, "terminal")
    try:
        items = await hostlink.sessions(row.pk)
    except InvalidTransition:
        items = []  # what does not run has no terminals
    return {"items": items, "next": None}


@router.delete("/containers/{name}/sessions/{session}", summary="End a terminal", response={204: None})
async def end_session(request: HttpRequest, name: str, session: str) -> Status[Any]:
    """End a terminal, with everything that was started in it."""
    row = await sync_to_async(services.find_container)(actor(request), name, "terminal")
    session = session[:SESSION_ID_MAX]
    await hostlink.close_session(row.pk, session)
    detail = {"session": session}
    await sync_to_async(audit.record)(
        actor(request), "session.close", "container", row.name, project=row.project.name, detail=detail
    )
    return Status(204, None)


@router.get("/containers/{name}/stats", summary="What a container uses now")
def get_stats(request: HttpRequest, name: str) -> dict[str, Any]:
    """The latest sample, at most a second or two old. 409 while the container does not run."""
    row = services.find_container(actor(request), name)
    # of what has just ended the ticker knows a moment longer
    runs = row.status in (ContainerStatus.RUNNING, ContainerStatus.FROZEN)
    sample = history.latest(row) if runs else None
    if sample is None:
        raise InvalidTransition("The container is not running: there is nothing to measure.", status=row.status)
    return sample


@router.get("/containers/{name}/cgroup", summary="A file of a container's cgroup")
def get_cgroup_file(
    request: HttpRequest, name: str, file: Annotated[str, Query(max_length=200, description="Such as memory.max.")]
) -> dict[str, Any]:
    """A file's text as the kernel gives it, by the names of the host's cgroup version. 409 while it does not run."""
    row = services.find_container(actor(request), name, "cgroup")
    return {"file": file, "value": cgroupfile.read(row, file)}


@router.get("/containers/{name}/console", summary="What a container wrote to its console")
def get_console(
    request: HttpRequest, name: str, tail_bytes: Annotated[int, Query(ge=1, le=consolelog.TAIL_MAX_BYTES)] = 65536
) -> dict[str, Any]:
    """The end of the console's log, of all runs that are kept. `size_bytes` is how much there is in all."""
    found = consolelog.read(services.find_container(actor(request), name), tail_bytes)
    return {"text": found.text, "size_bytes": found.size_bytes}


class Span(BaseModel):
    """From when to when (Unix time), in how many points."""

    model_config = ConfigDict(frozen=True)

    begin: Annotated[int, Field(alias="from", ge=0, le=2**32)]
    end: Annotated[int, Field(alias="to", ge=0, le=2**32)]
    points: Annotated[int, Field(ge=1, le=history.POINTS_MAX)] = 600


@router.get("/containers/{name}/history", summary="What a container used")
def get_history(request: HttpRequest, name: str, span: Annotated[Span, Query()]) -> dict[str, Any]:
    """Samples over time: one second apart for an hour, ten for a day, a minute for a week, ten for a year."""
    row = services.find_container(actor(request), name)
    return history.history(row, span.begin, span.end, span.points)


@router.get("/host/history", summary="What the host used")
def get_host_history(request: HttpRequest, span: Annotated[Span, Query()]) -> dict[str, Any]:
    """The host's own samples over time."""
    return history.host_history(span.begin, span.end, span.points)


@router.get("/host/stats", summary="What the host uses now")
def get_host_stats(request: HttpRequest) -> dict[str, Any]:
    """The host's latest sample."""
    return history.host_latest()
