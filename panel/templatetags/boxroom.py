"""Tags and filters of the pages: icons, times, sizes, states, and the sidebar."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import cache
from typing import Any

from django import template
from django.conf import settings
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.utils import timezone
from django.utils.formats import date_format, get_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.timesince import timesince
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from containers.core.units import format_bytes
from containers.models import Container, Operation
from containers.showing import words
from containers.showing.about import href
from containers.showing.sentences import explain, message_of, step_of, translated
from panel import styles
from panel.accounts.models import Project

register = template.Library()

SPRITE = "vendor/tabler-icons/3.51.0/sprite.svg"


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """Return one icon of the sprite; it is decoration, the word stands beside it or in aria-label."""
    return _icon(static(SPRITE), name, extra)


@cache
def _icon(sprite: str, name: str, extra: str) -> SafeString:
    return format_html('<svg class="icon {}" aria-hidden="true"><use href="{}#{}"></use></svg>', extra, sprite, name)


@register.simple_tag
def fixed(name: str) -> SafeString:
    """Return a template that shows the same to everybody, rendered once for each language."""
    return _fixed(name, get_language())


@cache
def _fixed(name: str, _language: str) -> SafeString:
    return mark_safe(render_to_string(name))  # a template's output, escaped where it was made


@register.simple_tag(takes_context=True)
def style(context: dict[str, Any], *names: str) -> SafeString:
    """Return style sheets of the panel's own in place; by their addresses where only a part of the page is wanted."""
    request: HttpRequest | None = context.get("request")
    if request is None or "HX-Request" in request.headers:
        return format_html_join("", '<link rel="stylesheet" href="{}">', ((static(name),) for name in names))
    found = styles.sheet(*names)
    styles.allow(request, found.source)
    return mark_safe(f"<style>{found.text}</style>")  # a file of ours; a test sees that it does not end the element


@register.filter
def size(count: float | None) -> str:
    """Return bytes in binary units, or an en dash for None."""
    return "–" if count is None else _decimal(format_bytes(count))


def _decimal(text: str) -> str:
    """Return a number's text with the decimal sign of the language."""
    return text.replace(".", get_format("DECIMAL_SEPARATOR"))


@register.filter
def cpus(count: float) -> str:
    """Return a number of CPUs: 1 CPU, 0.5 CPUs."""
    return (_("%s CPU") if count == 1 else _("%s CPUs")) % _decimal(f"{count:g}")


@register.filter
def ago(moment: dt.datetime | None) -> SafeString | str:
    """Return a <time> with the relative time, and the exact one on hover; the page's script keeps it up to date."""
    if moment is None:
        return "–"
    exact = date_format(timezone.localtime(moment), "Y-m-d H:i:s") + " UTC"
    seconds = (timezone.now() - moment).total_seconds()
    text = _("just now") if seconds < 60 else _("%(time)s ago") % {"time": timesince(moment, depth=1)}
    return format_html('<time datetime="{}" title="{}" data-ago>{}</time>', moment.isoformat(), exact, text)


@register.filter
def age(moment: dt.datetime) -> SafeString:
    """Return a <time> with how old something is, short (12 d), and the exact time on hover."""
    exact = date_format(timezone.localtime(moment), "Y-m-d H:i:s") + " UTC"
    minutes = max(0, int((timezone.now() - moment).total_seconds() // 60))
    if minutes < 60:
        text = _("%s min") % minutes
    elif minutes < 48 * 60:
        text = _("%s h") % (minutes // 60)
    else:
        text = _("%s d") % (minutes // 1440)
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact, text)


@register.filter
def duration(operation: Operation) -> str:
    """Return how long an operation took, or has been running."""
    if operation.started_at is None:
        return "–"
    # a clock that was put back meanwhile makes no length of time negative
    seconds = max(0.0, ((operation.finished_at or timezone.now()) - operation.started_at).total_seconds())
    if seconds < 10:
        return _decimal(f"{seconds:.1f} s")
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


@register.filter
def span(time: dt.timedelta) -> str:
    """Return a length of time, roughly: 3 days, 2 minutes, less than a minute."""
    if time.total_seconds() < 60:
        return _("less than a minute")
    now = timezone.now()
    return timesince(now - time, now, depth=1)


@register.filter
def action_word(operation: Operation) -> str:
    """Return what an operation does, as a noun: Start, Take snapshot …"""
    return str(words.ACTIONS.get(operation.action, operation.action))


@register.filter
def about(operation: Operation) -> str:
    """Return the page of what an operation is about; empty where there is none."""
    return href(operation)


@register.filter
def doing(operation: Operation) -> str:
    """Return what an unfinished operation is doing: Starting…"""
    return str(words.DOING.get(operation.action, operation.action))


@register.filter
def state_word(value: str) -> str:
    """Return the word of a container's status or of an operation's outcome."""
    return str(words.STATES.get(value, value))


@register.filter
def audit_word(value: str) -> str:
    """Return the words of an audit record's action."""
    return words.audit_action(value)


@register.filter
def audit_object(record: Any) -> str:
    """Return what an audit record is about."""
    return words.audit_object(record)


@register.filter
def audit_detail(record: Any) -> str:
    """Return what an audit record adds in words."""
    return words.audit_detail(record)


@register.filter
def said(text: str) -> str:
    """Return a sentence of the runtime's in the language of the page."""
    return translated(text)


@register.filter
def told(operation: Operation) -> str:
    """Return what an operation says of itself: why it failed and what became of it, or its message."""
    return explain(operation.error) if operation.error and not operation.said else message_of(operation)


@register.filter
def step(error: Mapping[str, Any]) -> str:
    """Return which step an operation's error came of."""
    return step_of(error)


@register.filter
def telling(operation: Operation) -> str:
    """Return what an operation says of itself, while it runs too."""
    return message_of(operation)


@register.filter
def event_words(event: Any) -> str:
    """Return one sentence for an event of a container."""
    return words.event_sentence(event)


@register.filter
def percent(value: float | None, whole: float | None) -> int:
    """Return value as a whole share of 100; 0 where either is unknown."""
    return min(100, round(100 * value / whole)) if value and whole else 0


@register.inclusion_tag("parts/sidebar.html", takes_context=True)
def sidebar(context: dict[str, Any]) -> dict[str, Any]:
    """Return what the sidebar shows: projects, counts, the user. Three queries at most."""
    request: HttpRequest = context["request"]
    user = request.user
    projects: list[str] = []
    containers = running = 0
    if user.is_authenticated:
        rows = Project.objects.order_by("name")
        if not user.host_admin:
            rows = rows.filter(memberships__user=user)
        projects = list(rows.values_list("name", flat=True))
        chosen = request.GET.get("project", "")
        visible = Container.objects.visible_to(user)
        containers = (visible.filter(project__name=chosen) if chosen else visible).count()
        unfinished = Operation.objects.visible_to(user)
        running = unfinished.filter(status__in=Operation.UNFINISHED).count()
    return {
        "request": request,
        "user": user,
        "csrf_token": context.get("csrf_token"),
        "projects": projects,
        "project": request.GET.get("project", ""),
        "container_count": containers,
        "running_count": running,
        "here": request.path,
        "LANGUAGE_CODE": context.get("LANGUAGE_CODE", ""),
        "languages": settings.LANGUAGES,
    }
