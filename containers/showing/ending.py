"""How a container that does not run came to its end: when, why, who asked for it, and what to do next."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext as _

from panel.accounts import audit

from ..core.model.states import Status
from ..models import Event
from . import sentences, words
from .rows import Row


@dataclass(frozen=True, kw_only=True)
class Ending:
    """at: None where it has never run, or nobody knows. why: a sentence. ran: for how long, None where unknown.

    steps: what to do next, as (words, address); the address "" where the words are all.
    """

    at: dt.datetime | None
    why: str
    who: str
    ran: dt.timedelta | None
    again_at: dt.datetime | None
    steps: list[tuple[str, str]]


def ending(row: Row) -> Ending | None:
    """Return how the last run ended, None for a container that runs."""
    container = row.container
    if container.status in (Status.RUNNING, Status.FROZEN):
        return None
    last = container.last_exit or {}
    at, started = row.exit_at, container.started_at
    event = Event.objects.filter(container=container, kind="status", new__in=(Status.STOPPED, Status.ERROR)).first()
    return Ending(
        at=at,
        why=_why(row, last),
        who=event.actor_name if event and last and event.actor_name != audit.SYSTEM_NAME else "",
        ran=at - started if at and started and at > started else None,
        again_at=container.restart_at if container.restarts else None,
        steps=_steps(row, str(last.get("reason") or "")),
    )


def _why(row: Row, last: dict[str, object]) -> str:
    if row.container.status == Status.ERROR and row.container.status_reason:
        return sentences.translated(row.container.status_reason)
    if not last:
        return _("It has not run yet.")
    told = words.exit_words(last) or str(words.EXITS.get(str(last.get("reason")), last.get("reason") or ""))
    return f"{told[:1].upper()}{told[1:]}." if told else ""


def _steps(row: Row, reason: str) -> list[tuple[str, str]]:
    """Return what helps after such an end, as far as the viewer may do it."""
    name = row.name
    log = (_("Read what it wrote to its console"), reverse("containers:log", args=[name]))
    settings = reverse("containers:settings", args=[name])
    steps: list[tuple[str, str]] = []
    if reason == "oom":
        steps.append((_("Give it more memory, in its settings"), settings))
        steps.append((_("See how its memory grew"), reverse("containers:graphs", args=[name])))
    elif reason == "start-failed":
        steps += [log, (_("Look at its init command, environment and devices, in its settings"), settings)]
    elif reason in ("exit", "signal", "supervisor-lost"):
        steps.append(log)
        if row.container.restart == "no" and row.may("update"):
            steps.append((_("Have it started again when it ends by itself, in its settings"), settings))
    elif reason == "host-reboot" and not row.container.autostart and row.may("update"):
        steps.append((_("Have it start with the host, in its settings"), settings))
    elif reason:
        steps.append(log)
    if row.power.reason and not row.may("start"):
        steps.append((row.power.reason, ""))
    return steps
