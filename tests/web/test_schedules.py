"""Schedules: rights, what they ask for, what is pruned and what expires; clocks that are set on the way."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from django.test import Client
from django.utils import timezone

from containers.asking import schedules
from containers.core.errors import AlreadyExists, NotFound, SpecError
from containers.models import Backup, Container, Operation, Schedule, Snapshot
from containers.operations import runner
from containers.operations.runtime import Kept
from containers.upkeep.clocks import DOUBT_SEC, SteadyClock
from containers.upkeep.scheduling import Scheduler
from panel.accounts.actor import Forbidden
from tests.web.api import Api, assert_error
from tests.web.world import CORE_HOST, actor, make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]
START = dt.datetime(2026, 6, 1, 12, 30, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def make(alice, **values):
    row = schedules.create(actor(alice), {"name": "s", "project": "team", "when": "0 * * * *", **values})
    Schedule.objects.filter(pk=row.pk).update(next_at=schedules.next_of(row, START))
    return Schedule.objects.get(pk=row.pk)


def work(runtime):
    """Have everything done that is queued; return what it was."""
    done = []
    for operation in Operation.objects.filter(status="queued").order_by("created_at"):
        assert runner.run(operation.pk, runtime, CORE_HOST)
        operation.refresh_from_db()
        assert operation.status == "succeeded", operation.error
        done.append((operation.action, operation.container_name))
    return done


def test_what_is_due_is_taken_once_of_all_that_have_the_tag(alice, team, runtime):
    make_container(team, "a", runtime=runtime, tags=["db"])
    make_container(team, "b", runtime=runtime, tags=["db"], status="running")
    make_container(team, "c", runtime=runtime)
    row = make(alice, tag="db")
    tick = Scheduler(lambda: True)
    assert tick(START) == 0
    assert tick(START + HOUR) == 2
    assert work(runtime) == [("snapshot", "a"), ("snapshot", "b")]
    assert tick(START + HOUR) == 0
    taken = Snapshot.objects.get(container__name="a")
    assert (taken.name, taken.kind, taken.created_by) == ("s-20260601-1330", "schedule", "system")
    row.refresh_from_db()
    assert (row.next_at, row.last_at) == (START + 1.5 * HOUR, START + HOUR)


def test_what_was_missed_is_made_up_for_once_and_a_clock_put_back_holds_nothing_up(alice, team, runtime):
    make_container(team, "a", runtime=runtime)
    row = make(alice)
    tick = Scheduler(lambda: True)
    assert tick(START + 50 * HOUR) == 1
    assert len(work(runtime)) == 1
    # the clock goes back two days: what was due in two days is due in half an hour again
    assert tick(START) == 0
    row.refresh_from_db()
    assert row.next_at == START + 0.5 * HOUR
    assert tick(START + HOUR) == 1
    work(runtime)
    # and forward to the same minute again: it is there, and nobody complains
    Schedule.objects.filter(pk=row.pk).update(next_at=START + 50 * HOUR)
    assert tick(START + 50 * HOUR) == 0
    assert Snapshot.objects.count() == 2


def test_one_that_is_busy_is_asked_when_it_has_time(alice, team, runtime):
    container = make_container(team, "a", runtime=runtime)
    make(alice)
    held = Operation.objects.create(
        host=container.host, action="start", container=container, object_name="a", actor_name="x", status="running"
    )
    tick = Scheduler(lambda: True)
    assert tick(START + HOUR) == 0
    Operation.objects.filter(pk=held.pk).update(status="succeeded")
    assert tick(START + HOUR + dt.timedelta(seconds=9)) == 1
    work(runtime)
    Operation.objects.filter(pk=held.pk).update(status="running")
    assert tick(START + 2 * HOUR) == 0
    assert tick(START + 2.3 * HOUR) == 0
    Operation.objects.filter(pk=held.pk).update(status="succeeded")
    # that late it would say something else than its name
    assert tick(START + 2.3 * HOUR + dt.timedelta(minutes=1)) == 0


def test_what_is_not_kept_is_pruned_and_nothing_else(alice, team, runtime):
    container = make_container(team, "a", runtime=runtime)
    row = make(alice, keep={"last": 2})
    tick = Scheduler(lambda: True)
    for hours in range(1, 6):
        tick(START + hours * HOUR)
        work(runtime)
        name = schedules.snapshot_name(row, START + hours * HOUR)
        runtime.taken[container.pk][name]["created_at"] = (START + hours * HOUR).isoformat()
        Snapshot.objects.filter(name=name).update(created_at=START + hours * HOUR)
        if hours == 2:
            Snapshot.objects.filter(name=name).update(pinned=True)
    for kept in (Kept(name="mine"), Kept(name="s-20200101-0000")):
        runtime.snapshot(container.pk, kept)
        Snapshot.objects.create(container=container, name=kept.name, layers=["x"], spec={"a": 1})
    while tick(START + 5.2 * HOUR):
        assert {action for action, _ in work(runtime)} == {"snapshot-delete"}
    left = set(Snapshot.objects.values_list("name", flat=True))
    assert left == {"s-20260601-1430", "s-20260601-1630", "s-20260601-1730", "mine", "s-20200101-0000"}


def test_a_renamed_one_goes_on_looking_after_what_it_made(alice, team, runtime, host):
    container = make_container(team, "a", runtime=runtime)
    row = make(alice, keep={"last": 1})

    def doomed(one) -> set[str]:
        one.refresh_from_db()
        kept = schedules.pruned(one, container.snapshots.all())
        return {snapshot.name for snapshot in kept} | {one.schedule for one in schedules.pruned_backups(one, container)}

    for number, name in enumerate(("s", "t")):
        at = START + number * HOUR
        taken = f"{name}-20260601-1{number}00"
        Snapshot.objects.create(container=container, name=taken, kind="schedule", layers=["x"], created_at=at)
        Backup.objects.create(host=host, project=team, destination="", container="a", container_id=container.pk,
                              file=taken, schedule=name, created_at=at)  # fmt: skip
    assert doomed(row) == set()
    schedules.change(actor(alice), row.pk, {"name": "t"})
    assert doomed(row) == {"s-20260601-1000", "s"}
    schedules.change(actor(alice), row.pk, {"name": "u"})
    assert doomed(row) == {"s-20260601-1000", "s"}
    # another one of a former name has what is called so
    other = schedules.create(actor(alice), {"name": "t", "container": "a", "when": "0 * * * *", "keep": {"last": 1}})
    assert (doomed(row), doomed(other)) == (set(), set())
    row.refresh_from_db()
    assert (row.name, row.former) == ("u", ["s"])


def test_what_has_expired_goes_unless_it_is_pinned_or_the_clock_may_be_wrong(team, runtime):
    container = make_container(team, "a", runtime=runtime)
    brief = make_container(team, "b", runtime=runtime, status="running")
    now = timezone.now()
    for name, pinned in (("old", False), ("pinned", True)):
        runtime.snapshot(container.pk, Kept(name=name))
        Snapshot.objects.create(
            container=container, name=name, layers=["x"], spec={"a": 1}, pinned=pinned, expires_at=now - HOUR
        )
    Container.objects.filter(pk=brief.pk).update(expires_at=now - HOUR)
    assert Scheduler(lambda: False)(now) == 0
    assert Scheduler(lambda: True)(now) == 2
    assert sorted(work(runtime)) == [("delete", "b"), ("snapshot-delete", "a")]
    assert list(Snapshot.objects.values_list("name", flat=True)) == ["pinned"]
    assert Scheduler(lambda: True)(now) == 0


def test_a_clock_that_was_set_is_believed_after_a_day():
    at, ticks = START, 100.0

    def pass_(seconds: float, jump: float = 0) -> bool:
        nonlocal at, ticks
        ticks += seconds
        at += dt.timedelta(seconds=seconds + jump)
        return clock()

    clock = SteadyClock(lambda: (at, ticks))
    assert pass_(0)
    assert pass_(5, jump=10)
    assert not pass_(5, jump=86400 * 400)
    assert not pass_(DOUBT_SEC - 10)
    assert pass_(20)
    assert not pass_(5, jump=-86400)


def test_a_ticker_that_is_started_anew_knows_that_the_clock_was_set(tmp_path, monkeypatch):
    """Killed within the day of doubt, or down while it was set: neither makes a wrong clock right."""
    kept = tmp_path / "clock.json"
    at, ticks = START, 5000.0

    def pass_(seconds: float, jump: float = 0) -> None:
        nonlocal at, ticks
        ticks += seconds
        at += dt.timedelta(seconds=seconds + jump)

    def anew() -> SteadyClock:
        return SteadyClock(lambda: (at, ticks), kept=kept)

    assert anew()()
    pass_(600, jump=20)
    assert anew()(), "NTP may do that"
    pass_(600, jump=86400)
    assert not anew()(), "set while nobody looked"
    pass_(3600)
    assert not anew()(), "and started again within the day"
    kept.with_suffix(".new").mkdir()
    pass_(DOUBT_SEC)
    assert anew()()
    clock = anew()
    assert clock()
    pass_(5, jump=-86400)
    assert not clock(), "it is told even where it cannot be kept"
    monkeypatch.setattr("containers.upkeep.clocks.boot_id", lambda: "another")
    assert anew()(), "the seconds of another boot say nothing"
    kept.write_text("{")
    assert anew()()


def test_rights_and_refusals(alice, olga, bob, charlie, team):
    make_container(team, "a")
    row = make(olga)
    with pytest.raises(Forbidden):
        make(bob, name="t")
    with pytest.raises(NotFound):
        make(charlie, name="t")
    with pytest.raises(AlreadyExists):
        make(alice)
    for wrong, field in (
        ({"when": "x"}, "when"),
        ({"timezone": "Mars"}, "timezone"),
        ({"keep": {"last": 0}}, "keep.last"),
        ({"name": "A"}, "name"),
        ({"name": "a" * 41}, "name"),
        ({"container": "a", "tag": "b"}, "tag"),
    ):
        with pytest.raises(SpecError) as caught:
            make(alice, **{"name": "t", **wrong})
        assert caught.value.field == field
    assert schedules.find(actor(bob), row.pk, "view")
    with pytest.raises(Forbidden):
        schedules.delete(actor(bob), row.pk)
    schedules.delete(actor(olga), row.pk)
    assert not Schedule.objects.exists()


def test_the_api(alice, bob, team, runtime):
    container = make_container(team, "a", runtime=runtime)
    for day in (1, 2):
        at = timezone.now() - dt.timedelta(days=3 - day)
        name = f"nightly-2026010{day}-0300"
        Snapshot.objects.create(container=container, name=name, kind="schedule", layers=["x"], created_at=at)
    api = Api(alice)
    wanted = {
        "name": "nightly",
        "container": "a",
        "when": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "keep": {"last": 2},
    }
    told = api.post("/schedules/preview", {**wanted})[1]
    assert (len(told["next"]), told["containers"]) == (5, ["a"])
    status, made = api.post("/schedules", wanted)
    assert (status, made["project"], made["keep"]) == (201, "team", {"last": 2})
    path = f"/schedules/{made['id']}"
    told = api.get(path)[1]
    assert told["prune"] == [{"container": "a", "snapshots": ["nightly-20260101-0300"]}]
    assert told["next"][0] == told["next_at"]
    changed = api.patch(path, {"enabled": False, "keep": {}})[1]
    assert (changed["enabled"], changed["next_at"], changed["keep"], changed["when"]) == (False, None, {}, "0 3 * * *")
    assert_error(api.post("/schedules", {**wanted, "name": "n", "when": "0 3 30 2 *"}), 422, "invalid-value", "when")
    assert_error(Api(bob).patch(path, {"enabled": True}), 403, "forbidden")
    assert len(Api(bob).get("/schedules")[1]["items"]) == 1
    assert api.delete(path)[0] == 204
    assert_error(api.get(path), 404, "not-found")


def test_the_page(alice, bob, team, runtime, settings, tmp_path):
    settings.STATIC_ROOT = tmp_path
    make_container(team, "a", runtime=runtime)

    def browser(user):
        client = Client()
        client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
        return client

    page = browser(alice)
    form = {"name": "nightly", "where": "container:a", "when": "0 3 * * *", "timezone": "UTC", "keep-daily": "7"}
    assert "Next runs:" in page.post("/schedules/_preview", form).content.decode()
    for name in ("b-10", "b-9"):
        make_container(team, name, runtime=runtime)
    all_of_it = page.post("/schedules/_preview", {**form, "where": "project:team"}).content.decode()
    assert "a, b-9, b-10" in all_of_it
    wrong = page.post("/schedules/", {**form, "when": "never"})
    assert wrong.status_code == 422
    assert "Give five fields" in wrong.content.decode()
    assert page.post("/schedules/", {**form, "keep-daily": "x"}).status_code == 422
    assert page.post("/schedules/", form).status_code == 302
    row = Schedule.objects.get()
    assert (row.container.name, row.keep) == ("a", {"daily": 7})
    shown = page.get("/schedules/").content.decode()
    assert "nightly" in shown
    assert re.search(r"7\s+daily", shown)
    assert 'value="project:team"' in shown
    theirs = browser(bob).get("/schedules/").content.decode()
    assert "nightly" in theirs
    assert "Make a schedule" not in theirs
    assert browser(bob).post(f"/schedules/{row.pk}/delete", headers={"HX-Request": "1"}).status_code == 403
    page.post(f"/schedules/{row.pk}/disable")
    assert "paused" in page.get("/schedules/").content.decode()

    own = " ".join(page.get(f"/schedules/{row.pk}").content.decode().split())
    for field in ('value="container:a" selected', 'value="0 3 * * *"', 'name="keep-daily" value="7"'):
        assert field in own
    changed = {"name": "early", "where": "project:team", "when": "0 4 * * *", "timezone": "UTC", "keep-last": "2"}
    wrong = page.post(f"/schedules/{row.pk}", {**changed, "when": "never"})
    assert wrong.status_code == 422
    assert re.search(r'name="keep-last"\s+value="2"', wrong.content.decode())  # nothing that was entered is lost
    assert page.post(f"/schedules/{row.pk}", changed).status_code == 302
    row.refresh_from_db()
    assert (row.name, row.container, row.when, row.keep) == ("early", None, "0 4 * * *", {"last": 2})
    assert not row.enabled  # it goes on being paused
    assert browser(bob).get(f"/schedules/{row.pk}").status_code == 403
    assert browser(bob).post(f"/schedules/{row.pk}", changed).status_code == 403
    assert page.get("/schedules/999").status_code == 404
    page.post(f"/schedules/{row.pk}/delete")
    assert not Schedule.objects.exists()
