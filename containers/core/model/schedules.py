"""When snapshots are taken by the clock, and which of them are kept. Pure: the time is always told.

Source of the five fields: crontab(5). Where clocks are put forward, a fixed hour that does not exist runs when the gap
ends, once; where they are put back, a fixed hour that comes twice runs the first time. With ``*`` for the hour, every
hour that passes counts.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from ..errors import SpecError
from ..sentences import say

KEEP_MAX: Final = 1000
EVERY_MIN_SEC: Final = 60
EVERY_MAX_SEC: Final = 366 * 86400
DAYS_AHEAD: Final = 8 * 366
"""29 February comes after eight years at most."""
_EVERY: Final = re.compile(r"every ([1-9][0-9]{0,5}) ?(m|h|d|w)", re.ASCII)
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _DAYS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """Five fields. any_hour, any_day, any_weekday: whether the field was ``*``."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_hour: bool
    any_day: bool
    any_weekday: bool

    def on(self, day: dt.date) -> bool:
        """Whether it runs on a day: where both day fields are narrowed, either will do."""
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return of_month and of_week
        return of_month or of_week


@dataclass(frozen=True, slots=True)
class Every:
    """Again and again, counted from 1970: the same whenever somebody looks."""

    seconds: int


def parse(text: str) -> Cron | Every:
    """Return when a schedule runs; raises SpecError (field ``when``)."""
    words = " ".join(text.lower().split())
    if words.startswith("every"):
        found = _EVERY.fullmatch(words)
        seconds = int(found[1]) * _UNITS[found[2]] if found else 0
        if not EVERY_MIN_SEC <= seconds <= EVERY_MAX_SEC:
            raise SpecError("Give a time from every 1m to every 366d: every 15m, every 6h, every 1d.", field="when")
        return Every(seconds)
    fields = words.split(" ")
    if len(fields) != len(_FIELDS):
        raise SpecError("Give five fields (minute, hour, day, month, weekday), or every 6h.", field="when")
    sets = [_set(field, *limits) for field, limits in zip(fields, _FIELDS, strict=True)]
    cron = Cron(
        minutes=sets[0],
        hours=sets[1],
        days=sets[2],
        months=sets[3],
        weekdays=frozenset(day % 7 for day in sets[4]),
        any_hour=fields[1].startswith("*"),
        any_day=fields[2].startswith("*"),
        any_weekday=fields[4].startswith("*"),
    )
    leap = dt.date(2024, 1, 1)
    if not any(cron.on(leap + dt.timedelta(days)) for days in range(4 * 366 + 1)):
        raise SpecError("There is no such day.", field="when")
    return cron


def _set(text: str, name: str, least: int, most: int, names: Sequence[str]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step_text = part.partition("/")
        step = int(step_text) if re.fullmatch(r"[1-9][0-9]?", step_text, re.ASCII) else 0 if "/" in part else 1
        if span == "*":
            low, high = least, most
        else:
            first, dash, last = span.partition("-")
            low = _number(first, names, least)
            high = _number(last, names, least) if dash else most if "/" in part else low
        if not step or not least <= low <= high <= most:
            raise SpecError(say("%(part)s is nothing for the field %(field)s.", part=part, field=name), field="when")
        found.update(range(low, high + 1, step))
    return frozenset(found)


def _number(text: str, names: Sequence[str], least: int) -> int:
    if text in names:
        return names.index(text) + least
    return int(text) if re.fullmatch(r"[0-9]{1,2}", text, re.ASCII) else -1


def zone(name: str) -> zoneinfo.ZoneInfo:
    """Return a time zone by its name, as Europe/Berlin; raises SpecError (field ``timezone``)."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise SpecError("Give a time zone as in Europe/Berlin, or UTC.", field="timezone") from None


def next_run(when: Cron | Every, after: dt.datetime, where: dt.tzinfo = dt.UTC) -> dt.datetime:
    """Return the first moment after another at which it runs, in UTC. Raises SpecError where there is none."""
    if isinstance(when, Every):
        count = int(after.timestamp() // when.seconds) + 1
        return dt.datetime.fromtimestamp(count * when.seconds, dt.UTC)
    # a day before: what its last hours are to UTC may come after
    first = after.astimezone(where).date() - dt.timedelta(days=1)
    for days in range(DAYS_AHEAD):
        day = first + dt.timedelta(days=days)
        if when.on(day):
            later = [moment for moment in _moments(when, day, where) if moment > after]
            if later:
                return min(later)
    raise SpecError("It never runs.", field="when")


def _moments(when: Cron, day: dt.date, where: dt.tzinfo) -> Iterator[dt.datetime]:
    for hour in when.hours:
        for minute in when.minutes:
            local = dt.datetime.combine(day, dt.time(hour, minute), where)
            early, late = (local.replace(fold=fold).astimezone(dt.UTC) for fold in (0, 1))
            if early == late:
                yield early
            elif early > late:  # it does not exist: clocks are put forward over it
                if not when.any_hour:
                    yield _gap_end(late, early, where)
            else:
                yield early
                if when.any_hour:
                    yield late


def _gap_end(before: dt.datetime, behind: dt.datetime, where: dt.tzinfo) -> dt.datetime:
    """Return the moment between two at which the offset changes, to the second."""
    low, high = int(before.timestamp()), int(behind.timestamp())
    offset = before.astimezone(where).utcoffset()
    while low + 1 < high:
        middle = (low + high) // 2
        if dt.datetime.fromtimestamp(middle, where).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return dt.datetime.fromtimestamp(high, dt.UTC)


def next_runs(when: Cron | Every, after: dt.datetime, where: dt.tzinfo, count: int) -> list[dt.datetime]:
    """Return the next runs, the first one first."""
    found: list[dt.datetime] = []
    while len(found) < count:
        after = next_run(when, after, where)
        found.append(after)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Which snapshots stay: so many of the newest, and of the newest of each hour, day, week and month. None: no rule.

    Without any rule everything stays.
    """

    last: int | None = None
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build it from JSON values; raises SpecError (field ``keep.NAME``)."""
        for name, value in values.items():
            if name not in cls.__slots__:
                raise SpecError("Use last, hourly, daily, weekly and monthly.", field=f"keep.{name}")
            if value is not None and (
                not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= KEEP_MAX
            ):
                raise SpecError(say("Give a number from 1 to %(most)s, or null.", most=KEEP_MAX), field=f"keep.{name}")
        return cls(**values)

    def given(self) -> dict[str, int]:
        """Return the rules that there are."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


def _hour(at: dt.datetime) -> tuple[int, ...]:
    # the hour that comes twice is two hours
    return (at.year, at.month, at.day, at.hour, int((at.utcoffset() or dt.timedelta()).total_seconds()))


_PERIODS: Final[dict[str, Callable[[dt.datetime], tuple[int, ...]]]] = {
    "hourly": _hour,
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: (at.isocalendar().year, at.isocalendar().week),
    "monthly": lambda at: (at.year, at.month),
}


def kept(keep: Keep, taken: Iterable[tuple[str, dt.datetime]], where: dt.tzinfo = dt.UTC) -> frozenset[str]:
    """Return which of the snapshots stay. taken: (name, when), in any order. Nothing depends on what time it is now.

    Of several in a period the newest stays.
    """
    newest = sorted(taken, key=lambda one: (one[1], one[0]), reverse=True)
    rules = keep.given()
    if not rules:
        return frozenset(name for name, _at in newest)
    stay = {name for name, _at in newest[: rules.get("last", 0)]}
    for rule, period in _PERIODS.items():
        seen: set[tuple[int, ...]] = set()
        for name, at in newest:
            if len(seen) >= rules.get(rule, 0):
                break
            key = period(at.astimezone(where))
            if key not in seen:
                seen.add(key)
                stay.add(name)
    return frozenset(stay)
