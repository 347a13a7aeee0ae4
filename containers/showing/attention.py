"""What somebody should look at: errors, crashes, limits nearly reached, and what the host lacks.

Queries are bounded whatever the number of containers; the ticker is asked once, and not waited for long.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from panel.accounts.models import User

from ..clients import ticker_client
from ..core.units import format_bytes
from ..models import Container, Event, Host, Operation
from . import sentences, words
from .rows import Filters

SHOWN_MAX: Final = 12
FAILED_MAX: Final = 5
HIGH: Final = 0.9
"""A limit counts as nearly reached from this share on."""
GRAVE: Final = 0.97
"""From here on a full disk or memory is an error."""
LOOP: Final = 3
"""So many starts in a row by the restart policy are a loop."""
RECENT: Final = dt.timedelta(hours=24)
OOM_RECENT: Final = dt.timedelta(hours=1)
SILENT_SEC: Final = 15
"""The worker answers a canary every three seconds."""
_TICKER_SEC: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Concern:
    """One thing to look at. grave: an error, and not only a warning. at: since when, where that is known."""

    subject: str
    href: str
    text: str
    grave: bool
    at: dt.datetime | None = None


@dataclass(frozen=True)
class Measured:
    """The ticker's latest samples: by container id, and the host's; both empty where it does not answer."""

    containers: dict[str, dict[str, Any]]
    host: dict[str, Any]


def measure() -> Measured:
    """Ask the ticker what is used now."""
    try:
        found = ticker_client.ask(timeout_sec=_TICKER_SEC, cmd="latest", containers="all")
    except ticker_client.TickerUnavailable:
        return Measured({}, {})
    return Measured(found.get("containers") or {}, found.get("host") or {})


def concerns(user: User, host: Host, project: str = "") -> list[Concern]:
    """Return what needs attention, the gravest first; of containers and operations only what the user may see."""
    measured = measure()
    failed = _of_operations(user, project)
    found = [*_of_host(host, measured.host), *_of_containers(user, project, measured.containers, failed)]
    known = {concern.subject for concern in found}
    found += [concern for name, concern in failed.items() if name not in known][:FAILED_MAX]
    return sorted(found, key=lambda concern: not concern.grave)


def _of_host(host: Host, sample: dict[str, Any]) -> list[Concern]:
    where = reverse("pages:host")
    found = []

    def add(text: str, *, grave: bool, at: dt.datetime | None = None) -> None:
        found.append(Concern(subject=host.name, href=where, text=text, grave=grave, at=at))

    # in the future: the clock was put back since, and nobody has looked at it
    if host.seen_at is None or abs((timezone.now() - host.seen_at).total_seconds()) > SILENT_SEC:
        add(_("its worker does not answer; what is asked for waits"), grave=True, at=host.seen_at)
    if not sample:
        add(_("its measurements are not available"), grave=True)
    for finding in host.facts.get("doctor") or []:
        if isinstance(finding, dict) and not finding.get("ok") and finding.get("level") in ("required", "recommended"):
            add(sentences.translated(sentences.of_finding(finding, "what")), grave=finding["level"] == "required")
    memory = (sample.get("memory_limit_bytes") or 0) - (sample.get("memory_bytes") or 0)
    for used, free, text in (
        (sample.get("disk_used_bytes"), sample.get("disk_free_bytes"), _("its disk is %(pct)d %% full: %(free)s free")),
        (sample.get("memory_bytes"), memory, _("%(pct)d %% of its memory is used: %(free)s free")),
    ):
        if used and free is not None and used > HIGH * (used + free):
            share = used / (used + free)
            add(text % {"pct": 100 * share, "free": format_bytes(free)}, grave=share > GRAVE)
    return found


def _of_containers(
    user: User, project: str, samples: dict[str, dict[str, Any]], failed: dict[str, Concern]
) -> list[Concern]:
    """failed: what failed lately, by the object's name; it says better than the container why that did not start."""
    visible = Filters(project=project).apply(Container.objects.visible_to(user))
    crashed = Q(last_exit__reason__in=words.BAD_EXITS) | Q(last_exit__reason="exit", last_exit__exit_code__gt=0)
    troubled = visible.filter(Q(status="error") | Q(restart_count__gte=LOOP) | Q(status="stopped") & crashed)
    found = [
        failed[row.name]
        if row.name in failed and (row.last_exit or {}).get("reason") == "start-failed"
        else _trouble(row)
        for row in troubled.order_by("-status_at")[:50]
    ]
    known = {concern.subject for concern in found}
    since = timezone.now() - OOM_RECENT
    killed = dict(
        Event.objects.filter(kind="oom", at__gte=since, container__in=visible.filter(status__in=("running", "frozen")))
        .order_by()
        .values_list("container__name")
        .annotate(n=Count("pk"))[:50]
    )
    for name, count in killed.items():
        if name not in known:
            text = ngettext(
                "the kernel ended a process for lack of memory in the last hour",
                "the kernel ended %(n)d processes for lack of memory in the last hour",
                count,
            )
            found.append(Concern(subject=name, href=_page(name, "graphs"), text=text % {"n": count}, grave=False))
    near = _near_limits(samples)
    for pk, name in visible.filter(pk__in=list(near)[:500]).values_list("pk", "name"):
        if name in known:
            continue
        found.append(Concern(subject=name, href=_page(name, "graphs"), text=near[pk], grave=False))
    return found


def _near_limits(samples: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return by container id the words for what has nearly reached its memory limit."""
    near = {}
    for container_id, sample in samples.items():
        used, limit = sample.get("memory_bytes"), sample.get("memory_limit_bytes")
        if used and limit and used > HIGH * limit:
            near[container_id] = _("%(pct)d %% of its memory limit of %(limit)s is used") % {
                "pct": 100 * used / limit,
                "limit": format_bytes(limit),
            }
    return near


def _trouble(row: Container) -> Concern:
    """Return what is the matter with a container that is in error, crashed, or starts again and again."""
    href = _page(row.name, "detail")
    last = row.last_exit or {}
    ended = words.exit_words(last)
    if row.restart_count >= LOOP:
        text = _("started again %(n)d times in a row: %(why)s") % {"n": row.restart_count, "why": ended}
        return Concern(subject=row.name, href=href, text=text, grave=True, at=row.status_at)
    reason = sentences.translated(row.status_reason)
    text = reason if row.status == "error" and reason else ended
    return Concern(subject=row.name, href=href, text=text, grave=row.status == "error", at=row.status_at)


def _of_operations(user: User, project: str) -> dict[str, Concern]:
    """Return by the object's name what failed in the last day, where nothing on that object succeeded since."""
    since = timezone.now() - RECENT
    rows: Any = Operation.objects.visible_to(user).filter(finished_at__gte=since).defer("log").order_by("-finished_at")
    if project:
        rows = rows.filter(project__name=project)
    found: dict[str, Concern] = {}
    seen: set[str] = set()
    for row in rows.filter(status__in=("failed", "succeeded"))[:200]:
        name = row.object_name
        if name not in seen and row.status == "failed":
            text = f"{words.ACTIONS.get(row.action, row.action)}: {sentences.explain(row.error, row.message)}"
            href = reverse("pages:operation", args=[row.pk])
            found[name] = Concern(subject=name, href=href, text=text, grave=True, at=row.finished_at)
        seen.add(name)
    return found


def _page(name: str, tab: str) -> str:
    return reverse(f"containers:{tab}", args=[name])
