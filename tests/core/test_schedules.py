"""When snapshots are taken by the clock, and which are kept: over changes of the clock, and for any times at all."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containers.core.errors import SpecError
from containers.core.model.schedules import Every, Keep, kept, next_run, next_runs, parse, zone

BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("when", "after", "then"),
    [
        ("0 3 * * *", "2026-01-01T02:59", "2026-01-01T03:00"),
        ("0 3 * * *", "2026-01-01T03:00", "2026-01-02T03:00"),
        ("*/15 * * * *", "2026-01-01T00:01", "2026-01-01T00:15"),
        ("0 0 1 * *", "2026-01-01T00:00", "2026-02-01T00:00"),
        ("30 6 * * mon-fri", "2026-01-02T07:00", "2026-01-05T06:30"),
        ("0 0 * * 7", "2026-01-01T00:00", "2026-01-04T00:00"),
        ("0 0 13 * fri", "2026-01-01T00:00", "2026-01-02T00:00"),
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("5,10-12 0 1 jan,jul *", "2026-01-01T00:10", "2026-01-01T00:11"),
        ("0 8/6 * * *", "2026-01-01T09:00", "2026-01-01T14:00"),
        ("every 6h", "2026-01-01T05:00", "2026-01-01T06:00"),
        ("every 15m", "2026-01-01T05:00", "2026-01-01T05:15"),
    ],
)
def test_the_next_run(when, after, then):
    assert next_run(parse(when), utc(after)) == utc(then)


@pytest.mark.parametrize(
    ("when", "after", "then"),
    [
        # 29 March 2026: 02:00 becomes 03:00 (01:00 UTC); 25 October: 03:00 becomes 02:00 (01:00 UTC)
        ("30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("*/20 2 29 3 *", "2026-03-28T12:00", ["2026-03-29T01:00", "2027-03-29T00:00"]),
        ("0 * * * *", "2026-03-28T23:30", ["2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T02:00"]),
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("0 * * * *", "2026-10-24T23:30", ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"]),
    ],
)
def test_when_the_clocks_change(when, after, then):
    assert next_runs(parse(when), utc(after), BERLIN, len(then)) == [utc(text) for text in then]


@pytest.mark.parametrize(
    "when",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *",
     "a * * * *", "0 0 30 2 *", "every", "every 0h", "every 30s", "every 367d", "1,,2 * * * *", "-1 * * * *"],
)  # fmt: skip
def test_what_is_no_time(when):
    with pytest.raises(SpecError) as caught:
        parse(when)
    assert caught.value.field == "when"
    with pytest.raises(SpecError):
        zone("../../etc/passwd")


moments = st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2030, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001
zones = st.sampled_from(
    [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")]
)
fields = st.tuples(
    st.sampled_from(["*", "0", "30", "*/7", "59", "15,45"]),
    st.sampled_from(["*", "2", "*/5", "1-3", "23", "0"]),
    st.sampled_from(["*", "1", "31", "*/10"]),
    st.sampled_from(["*", "3", "10", "jan-jun"]),
    st.sampled_from(["*", "0", "mon-fri"]),
)


@settings(max_examples=200)
@given(fields, moments, zones)
def test_a_run_is_later_the_earliest_and_does_not_depend_on_who_asks_when(texts, after, where):
    when = parse(" ".join(texts))
    run = next_run(when, after, where)
    assert run > after
    # asked again at any moment before it, the answer is the same: no run is left out, none is invented
    assert next_run(when, after + (run - after) * 0.5, where) == run
    assert next_run(when, run - dt.timedelta(microseconds=1), where) == run
    local = run.astimezone(where)
    assert when.on(local.date())


@given(st.integers(1, 400), st.sampled_from("mhd"), moments)
def test_every_is_even_in_time(count, unit, after):
    try:
        when = parse(f"every {count}{unit}")
    except SpecError:
        assert count > 366
        return
    assert isinstance(when, Every)
    first, second = next_runs(when, after, dt.UTC, 2)
    assert (second - first).total_seconds() == when.seconds
    assert dt.timedelta() < first - after <= dt.timedelta(seconds=when.seconds)


rule = st.none() | st.integers(1, 12)
keeps = st.builds(Keep, last=rule, hourly=rule, daily=rule, weekly=rule, monthly=rule)
lists = st.lists(moments, max_size=60, unique=True).map(lambda found: [(f"s{n}", at) for n, at in enumerate(found)])


@given(keeps, lists, zones)
def test_what_is_kept(keep, taken, where):
    stay = kept(keep, taken, where)
    names = {name for name, _ in taken}
    assert stay <= names
    rules = keep.given()
    if not rules:
        assert stay == names
        return
    assert len(stay) <= sum(rules.values())
    newest = sorted(taken, key=lambda one: one[1], reverse=True)
    if newest:
        assert newest[0][0] in stay
    assert {name for name, _ in newest[: rules.get("last", 0)]} <= stay
    # pruning what does not stay, and looking again, changes nothing: twice is once
    rest = [one for one in taken if one[0] in stay]
    assert kept(keep, rest, where) == stay
    # order does not matter
    assert kept(keep, taken[::-1], where) == stay


@given(keeps, lists, zones, moments)
def test_a_new_snapshot_takes_nobody_s_place_but_one_of_its_own_period(keep, taken, where, at):
    newer = [*taken, ("new", max([at, *(when for _, when in taken)]) + dt.timedelta(microseconds=1))]
    stay = kept(keep, newer, where)
    assert "new" in stay
    # what was pruned before does not come back into what is kept
    gone = {name for name, _ in taken} - kept(keep, taken, where)
    assert not gone & stay


def test_the_newest_of_each_period_stays():
    taken = [(f"h{hour}", utc(f"2026-01-01T{hour:02}:30")) for hour in range(24)]
    assert kept(Keep(hourly=3), taken) == {"h23", "h22", "h21"}
    assert kept(Keep(daily=2), taken) == {"h23"}
    assert kept(Keep(last=1, daily=1), [*taken, ("next", utc("2026-01-02T00:00"))]) == {"next"}
    assert kept(Keep(daily=2), [*taken, ("next", utc("2026-01-02T00:00"))]) == {"next", "h23"}
    # the hour that comes twice when clocks are put back is two hours
    twice = [("first", utc("2026-10-25T00:30")), ("second", utc("2026-10-25T01:30"))]
    assert kept(Keep(hourly=2), twice, BERLIN) == {"first", "second"}


@pytest.mark.parametrize("values", [{"yearly": 1}, {"last": 0}, {"daily": "1"}, {"last": True}, {"weekly": 1001}])
def test_what_is_no_rule(values):
    with pytest.raises(SpecError) as caught:
        Keep.from_dict(values)
    assert caught.value.field == f"keep.{next(iter(values))}"
