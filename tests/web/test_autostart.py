"""What starts with the host: in order, at once what has the same, after the delays; once for each `up`."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from django.utils import timezone

from containers.asking import services
from containers.models import Container, Host, Operation
from containers.operations import runner
from containers.upkeep import autostart, rebuild, reconcile
from tests.web.world import CORE_HOST, make_container, make_host

pytestmark = pytest.mark.django_db


@pytest.fixture
def host():
    return make_host()


@pytest.fixture
def up(host):
    rebuild.save_facts(host, {"autostart": True})


def queued():
    return sorted(Operation.objects.filter(status="queued", action="start").values_list("object_name", flat=True))


def work(runtime, **fail):
    for operation in Operation.objects.filter(status="queued"):
        runner.run(operation.pk, runtime, CORE_HOST)


def make(team, runtime, name, order=0, delay=0, **more):
    boot = {"order": order, "delay_sec": delay}
    return make_container(team, name, runtime=runtime, autostart=True, boot=boot, **more)


@pytest.mark.lxc(
    "What starts with the host does so in its order, and at once where that is the same", "L#465", "lxc-autostart"
)
def test_in_order_and_together_what_has_the_same(team, runtime, up):
    for name, order in (("late", 10), ("db", -5), ("web-a", 0), ("web-b", 0)):
        make(team, runtime, name, order)
    make_container(team, "other", runtime=runtime)
    reconcile.full(CORE_HOST, runtime)
    for expected in (["db"], ["web-a", "web-b"], ["late"], []):
        assert queued() == expected
        reconcile.quick(CORE_HOST, runtime)
        assert queued() == expected, "the next ones wait for these"
        work(runtime)
        reconcile.quick(CORE_HOST, runtime)
    assert Host.objects.get().facts["autostart"] is False
    assert Container.objects.filter(status="running").count() == 4


def test_only_once_for_each_up(team, runtime, up):
    make(team, runtime, "db")
    reconcile.full(CORE_HOST, runtime)
    work(runtime)
    reconcile.quick(CORE_HOST, runtime)
    services.request_by_system(Container.objects.get(name="db"), "stop")
    work(runtime)
    reconcile.full(CORE_HOST, runtime)
    assert queued() == []


def test_the_next_order_begins_when_the_host_says_it_runs(team, runtime, up):
    db, web = make(team, runtime, "db", 1), make(team, runtime, "web", 2)
    reconcile.full(CORE_HOST, runtime)
    runtime.run(db.pk)
    Operation.objects.update(status="running")
    reconcile.on_events(CORE_HOST, [{"id": db.pk, "event": "started"}], runtime)
    assert queued() == ["web"]
    assert web.name == "web"


def test_a_delay_is_waited_after_a_start(team, runtime, up, monkeypatch):
    make(team, runtime, "db", 1, delay=30)
    make(team, runtime, "cache", 1, delay=5)
    make(team, runtime, "web", 2)
    reconcile.full(CORE_HOST, runtime)
    work(runtime)
    now = timezone.now()
    for seconds, expected in ((0, []), (29, []), (31, ["web"])):
        monkeypatch.setattr(timezone, "now", lambda at=now + dt.timedelta(seconds=seconds): at)
        reconcile.quick(CORE_HOST, runtime)
        assert queued() == expected


def test_a_clock_that_is_set_back_does_not_prolong_it(team, runtime, up, monkeypatch):
    make(team, runtime, "db", 1, delay=30)
    make(team, runtime, "web", 2)
    reconcile.full(CORE_HOST, runtime)
    work(runtime)
    reconcile.quick(CORE_HOST, runtime)
    before = timezone.now() - dt.timedelta(days=1)
    monkeypatch.setattr(timezone, "now", lambda: before)
    reconcile.quick(CORE_HOST, runtime)
    assert queued() == ["web"]


def test_one_that_fails_or_is_gone_holds_nobody_up(team, runtime, up):
    broken, gone = make(team, runtime, "broken", 1), make(team, runtime, "gone", 2)
    make(team, runtime, "web", 3)
    reconcile.full(CORE_HOST, runtime)
    runtime.specs.pop(broken.pk)
    gone.delete()
    work(runtime)
    reconcile.quick(CORE_HOST, runtime)
    assert queued() == ["web"]


def test_a_ticker_that_is_killed_goes_on_where_it_was(team, runtime, up):
    for name, order in (("db", 1), ("web", 2)):
        make(team, runtime, name, order)
    reconcile.full(CORE_HOST, runtime)
    work(runtime)
    reconcile.full(CORE_HOST, runtime)
    assert queued() == ["web"]
    assert Operation.objects.filter(object_name="db").count() == 1


@pytest.mark.parametrize("ran_already", [False, True])
def test_a_worker_that_is_killed_during_a_start_is_waited_for_and_starts_nothing_twice(
    team, runtime, up, monkeypatch, ran_already
):
    class Killed(BaseException):
        pass

    start = runtime.start

    def die(*arguments, **more):
        if ran_already:
            start(*arguments, **more)
        raise Killed

    for name, order in (("db", 1), ("web", 2)):
        make(team, runtime, name, order)
    reconcile.full(CORE_HOST, runtime)
    with monkeypatch.context() as dying:
        dying.setattr(runtime, "start", die)
        with pytest.raises(Killed):
            work(runtime)
    Operation.objects.filter(object_name="db").update(owner={"boot_id": "another", "pid": 1, "start_time": 1})
    reconcile.quick(CORE_HOST, runtime)
    # the next one waits while the first may not have come up; the host knows of one that has
    assert queued() == (["db", "web"] if ran_already else ["db"])
    work(runtime)
    reconcile.quick(CORE_HOST, runtime)
    work(runtime)
    reconcile.quick(CORE_HOST, runtime)
    assert Host.objects.get().facts["autostart"] is False
    assert [row.status for row in Operation.objects.filter(action="start")] == ["succeeded"] * 2
    assert Container.objects.filter(status="running").count() == 2


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_ticker_that_is_killed_before_it_notes_a_step_does_it_no_second_time(team, runtime, up, monkeypatch, step):
    class Killed(BaseException):
        pass

    saved, noted = [], rebuild.save_facts

    def save(host, facts):
        saved.append(facts)
        if len(saved) == step:
            raise Killed
        noted(host, facts)

    for name, order in (("db", 1), ("web-a", 2), ("web-b", 2)):
        make(team, runtime, name, order)
    monkeypatch.setattr(autostart.rebuild, "save_facts", save)
    for _ in range(8):
        with contextlib.suppress(Killed):
            reconcile.full(CORE_HOST, runtime)
        work(runtime)
    assert len(saved) > step, "it was killed, and went on"
    assert Host.objects.get().facts["autostart"] is False
    asked = list(Operation.objects.filter(action="start").order_by("created_at").values_list("object_name", flat=True))
    assert asked == ["db", "web-a", "web-b"]
    assert Container.objects.filter(status="running").count() == 3


def test_the_restart_policy_waits_for_its_turn(team, runtime, up):
    make(team, runtime, "db", 1, delay=100)
    web = make(team, runtime, "web", 2, restart="always", last_exit={"at": "1", "reason": "host-reboot"})
    reconcile.full(CORE_HOST, runtime)
    for _ in range(3):
        reconcile.quick(CORE_HOST, runtime)
    web.refresh_from_db()
    assert web.restart_at is None
    assert queued() == ["db"]


def test_nothing_begins_before_the_host_is_in_order(team, runtime, up):
    make(team, runtime, "db")
    reconcile.quick(CORE_HOST, runtime)
    assert queued() == []
