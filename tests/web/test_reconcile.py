"""Rows and host: what changes by itself, what the policies do, what is found again, and that twice is once."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from django.utils import timezone

from containers.asking import services
from containers.core.errors import InvalidTransition, SetupFailed
from containers.core.model import restarts
from containers.messaging import doorbell
from containers.models import (
    Container,
    Event,
    Host,
    Image,
    Network,
    Operation,
    Snapshot,
    local_host,
)
from containers.operations import runner
from containers.upkeep import rebuild, reconcile
from panel.accounts.models import AuditRecord, Project
from tests.web.world import CORE_HOST, actor, exited, make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]


@pytest.fixture
def rung(monkeypatch):
    found = []
    monkeypatch.setattr(doorbell, "ring_now", lambda operation_id, _host: found.append(operation_id))
    return found


def quick(runtime):
    reconcile.quick(CORE_HOST, runtime)


def events(row):
    return list(row.events.order_by("pk").values_list("kind", "old", "new", "reason"))


def everything():
    """Return all that reconciling could have written."""
    models = (Container, Event, Host, Image, Network, Operation, Snapshot, AuditRecord)
    return [list(model.objects.order_by("pk").values()) for model in models]


def pass_time(seconds):
    """Have what was set a while ago be due."""
    for row in Container.objects.exclude(restart_at=None):
        Container.objects.filter(pk=row.pk).update(restart_at=row.restart_at - dt.timedelta(seconds=seconds))


def test_a_poweroff_inside(team, runtime):
    row = make_container(team, runtime=runtime, status="running")
    runtime.end(row.pk, "poweroff")
    quick(runtime)
    row.refresh_from_db()
    assert (row.status, row.status_reason, row.init_pid) == ("stopped", "poweroff", None)
    assert row.last_exit["reason"] == "poweroff"
    assert events(row) == [("status", "running", "stopped", "poweroff")]
    before = everything()
    quick(runtime)
    assert everything() == before


def test_a_supervisor_s_word_is_taken_at_once(team, runtime):
    row = make_container(team, runtime=runtime, status="running")
    runtime.end(row.pk, "oom")
    reconcile.on_events(CORE_HOST, [{"id": row.pk, "event": "oom"}], runtime)
    reconcile.on_events(CORE_HOST, [{"id": row.pk, "event": "stopped"}], runtime)
    reconcile.on_events(CORE_HOST, [{"id": "ffffffffffff", "event": "stopped"}], runtime)
    assert events(row) == [("oom", "", "", ""), ("status", "running", "stopped", "oom")]


def test_a_reboot_inside_is_an_event(team, runtime):
    row = make_container(team, runtime=runtime, status="running")
    runtime.run(row.pk)
    reconcile.on_events(CORE_HOST, [{"id": row.pk, "event": "rebooted"}], runtime)
    quick(runtime)
    assert events(row) == [("rebooted", "", "", "")]
    row.refresh_from_db()
    assert row.init_pid == runtime.seen[row.pk].init_pid


def test_a_supervisor_that_was_killed(team, runtime):
    row = make_container(team, runtime=runtime, status="running")
    runtime.end(row.pk, "supervisor-lost")
    quick(runtime)
    row.refresh_from_db()
    assert (row.status, row.last_exit["reason"]) == ("stopped", "supervisor-lost")


def test_a_host_that_was_restarted(team, runtime, host):
    rebuild.save_facts(host, {"boot_id": "the-boot-before"})
    old = exited("poweroff")
    row = make_container(team, runtime=runtime, status="running", last_exit=old)
    runtime.end(row.pk)
    # all that is left is what the run before the last wrote
    from containers.core.model.states import Status
    from containers.operations.runtime import Observed

    runtime.seen[row.pk] = Observed(status=Status.STOPPED, reason="poweroff", last_exit=old)
    quick(runtime)
    row.refresh_from_db()
    assert (row.status_reason, row.last_exit["reason"]) == ("host-reboot", "host-reboot")
    before = everything()
    quick(runtime)
    assert everything() == before


def test_frozen_and_thawed_from_outside(team, runtime):
    row = make_container(team, runtime=runtime, status="running")
    runtime.freeze(row.pk)
    quick(runtime)
    runtime.thaw(row.pk)
    quick(runtime)
    assert [(old, new) for _kind, old, new, _why in events(row)] == [("running", "frozen"), ("frozen", "running")]


def test_what_an_operation_works_on_is_its_own(alice, team, runtime):
    from containers.bookkeeping import records
    from containers.operations import owner

    row = make_container(team, runtime=runtime, status="running")
    operation = services.act(actor(alice), "web-1", "restart")
    records.claim(operation.pk, owner.this_process())
    runtime.end(row.pk, "stopped")
    quick(runtime)
    reconcile.on_events(CORE_HOST, [{"id": row.pk, "event": "stopped"}], runtime)
    row.refresh_from_db()
    assert row.status == "running"


@pytest.mark.parametrize(
    ("restart", "reason", "exit_code", "again"),
    [
        ("no", "oom", None, False),
        ("always", "poweroff", None, True),
        ("always", "exit", 0, True),
        ("always", "stopped", None, False),
        ("always", "killed", None, False),
        ("on-failure", "exit", 1, True),
        ("on-failure", "exit", 0, False),
        ("on-failure", "poweroff", None, False),
        ("on-failure", "signal", None, True),
        ("on-failure", "oom", None, True),
        ("on-failure", "supervisor-lost", None, True),
        ("on-failure", "reboot", None, True),
        ("on-failure", "stopped", None, False),
    ],
)
def test_the_restart_policy(team, runtime, restart, reason, exit_code, again):
    row = make_container(team, runtime=runtime, status="running", restart=restart)
    runtime.end(row.pk, reason, exit_code)
    for _second in range(3):
        quick(runtime)
        pass_time(10)
    operations = list(Operation.objects.values_list("action", "actor_name"))
    assert operations == ([("start", "system")] if again else [])


def test_restarts_wait_longer_each_time(team, runtime):
    row = make_container(team, runtime=runtime, status="running", restart="always")
    for seconds in (1, 2, 4, 8):
        runtime.end(row.pk, "exit", 1)
        before = timezone.now()
        quick(runtime)
        row.refresh_from_db()
        assert before <= row.restart_at - dt.timedelta(seconds=seconds) <= timezone.now()
        pass_time(1000)
        quick(runtime)
        assert runner.run(Operation.objects.get(status="queued").pk, runtime, CORE_HOST)
    assert restarts.back_off_sec(100) == 300
    Container.objects.update(started_at=timezone.now() - dt.timedelta(hours=1))
    runtime.end(row.pk, "exit", 1)
    quick(runtime)
    row.refresh_from_db()
    assert row.restart_count == 0


def test_a_second_in_which_nothing_is_to_be_done_asks_three_questions(
    team, runtime, rung, monkeypatch, django_assert_num_queries
):
    make_container(team, runtime=runtime, restart="always")
    # what other tests have left to be done soon is none of it
    for name, value in (("canary", float("-inf")), ("tidy", float("-inf")), ("order", 0.0)):
        monkeypatch.setitem(reconcile._rung, name, value)
    reconcile.each_second(CORE_HOST, runtime, changed=())
    assert rung == [doorbell.CANARY]
    with django_assert_num_queries(3):
        reconcile.each_second(CORE_HOST, runtime, changed=())
    assert rung == [doorbell.CANARY]


def test_a_start_is_nothing_that_policies_wait_for(team, runtime, monkeypatch):
    row = make_container(team, runtime=runtime, status="running")
    looked = []
    monkeypatch.setattr(reconcile, "follow_policies", looked.append)
    for event, times in (("started", 0), ("rebooted", 1), ("stopped", 2)):
        reconcile.on_events(CORE_HOST, [{"id": row.pk, "event": event}], runtime)
        assert len(looked) == times


def test_many_that_tell_at_once_cost_their_own_writes_and_little_more(team, runtime, django_assert_max_num_queries):
    rows = [make_container(team, runtime=runtime, name=f"many-{number}") for number in range(20)]
    held = rows[0]
    Operation.objects.create(
        host=held.host, action="start", container=held, project=team, status=Operation.Status.RUNNING
    )
    for row in rows:
        runtime.start(runtime.stored()[row.pk], lambda *_: None, lambda: False)
    news = [{"id": row.pk, "event": "started"} for row in rows]
    # a row each, its event, and what makes them one; not what is asked once for all
    with django_assert_max_num_queries(8 + 19 * 4):
        reconcile.on_events(CORE_HOST, [{"id": "no such", "event": "started"}, *news, news[0]], runtime)
    assert [row.status for row in Container.objects.order_by("name") if row.pk != held.pk] == ["running"] * 19
    assert [len(events(row)) for row in rows] == [0] + [1] * 19
    held.refresh_from_db()
    assert held.status == "stopped"


def test_a_second_follows_the_policies(team, runtime):
    row = make_container(team, runtime=runtime, status="running", restart="always")
    runtime.end(row.pk, "exit", 1)
    reconcile.each_second(CORE_HOST, runtime, changed=[row.pk])
    row.refresh_from_db()
    assert (row.status, row.restart_at is not None) == ("stopped", True)
    pass_time(restarts.back_off_sec(0))
    reconcile.each_second(CORE_HOST, runtime, changed=())
    assert Operation.objects.get().action == "start"


def test_a_second_rings_for_what_waits(alice, team, runtime, rung):
    make_container(team, runtime=runtime)
    operation = services.act(actor(alice), "web-1", "start")
    Operation.objects.update(rung_at=None)  # the doorbell was lost
    reconcile.each_second(CORE_HOST, runtime, changed=())
    assert operation.pk in rung


def test_a_second_goes_on_with_the_autostart(team, runtime, host):
    row = make_container(team, runtime=runtime, autostart=True)
    rebuild.save_facts(host, {"autostart": {"left": [row.pk], "starting": [], "until": None}})
    reconcile.each_second(CORE_HOST, runtime, changed=())
    assert Operation.objects.get().action == "start"


def test_a_row_that_moves_while_the_host_is_observed_is_looked_at_the_next_time(team, runtime, monkeypatch):
    row = make_container(team, runtime=runtime, status="running")
    runtime.end(row.pk, "poweroff")
    observe = runtime.observe

    def slow(container_id=None):
        found = observe(container_id)
        Container.objects.update(init_pid=4242)
        return found

    monkeypatch.setattr(runtime, "observe", slow)
    quick(runtime)
    row.refresh_from_db()
    assert (row.status, row.init_pid) == ("running", 4242)
    quick(runtime)
    row.refresh_from_db()
    assert row.status == "stopped"


def test_a_run_is_long_by_the_monotonic_clock(team, runtime):
    row = make_container(team, runtime=runtime, status="running", restart="always", restart_count=3)
    Container.objects.update(started_at=timezone.now() - dt.timedelta(hours=1))  # the clock was set forward
    runtime.end(row.pk, "exit", 1, ran_sec=0.2)
    quick(runtime)
    row.refresh_from_db()
    assert row.restart_count == 3
    Container.objects.update(restart_at=None)
    runtime.run(row.pk)
    quick(runtime)
    runtime.end(row.pk, "exit", 1, ran_sec=61.0)
    quick(runtime)
    row.refresh_from_db()
    assert row.restart_count == 0


YEAR = dt.timedelta(days=365)


def test_an_end_after_the_clock_was_set_back_is_what_it_was(team, runtime):
    row = make_container(team, runtime=runtime, status="running", restart="on-failure")
    later = {**exited("oom"), "at": (timezone.now() + YEAR).isoformat()}
    Container.objects.filter(pk=row.pk).update(last_exit=later, started_at=timezone.now() + YEAR)
    runtime.end(row.pk, "poweroff")
    quick(runtime)
    row.refresh_from_db()
    assert (row.status_reason, row.last_exit["reason"]) == ("poweroff", "poweroff")
    before = everything()
    quick(runtime)
    assert everything() == before


def test_a_failed_start_after_the_clock_was_set_back_is_not_hidden_by_an_older_end(alice, team, runtime):
    row = make_container(team, runtime=runtime)
    runtime.end(row.pk, "poweroff")
    seen = runtime.seen[row.pk]
    later = {**(seen.last_exit or {}), "at": (timezone.now() + YEAR).isoformat()}
    runtime.seen[row.pk] = dataclasses.replace(seen, last_exit=later)
    quick(runtime)

    def fail() -> None:
        raise SetupFailed("no such program", step="exec")

    runtime.before["start"] = fail
    services.act(actor(alice), "web-1", "start")
    runner.run(Operation.objects.get().pk, runtime, CORE_HOST)
    quick(runtime)
    row.refresh_from_db()
    assert row.last_exit["reason"] == "start-failed"


@pytest.mark.parametrize("step", [YEAR, -YEAR], ids=["forward", "back"])
def test_a_step_of_the_clock_delays_nothing(alice, team, runtime, rung, monkeypatch, step):
    """What was to come soon is due at once after a step, in either direction, and never a year away."""
    monkeypatch.setattr(reconcile, "RING_AGAIN_SEC", 600.0)
    row = make_container(team, runtime=runtime, status="running", restart="always")
    other = make_container(team, "web-2", runtime=runtime)
    waiting = services.act(actor(alice), other.name, "start")
    runtime.end(row.pk, "exit", 1)
    quick(runtime)
    pass_time(step.total_seconds())
    Operation.objects.update(rung_at=timezone.now() - step)
    reconcile.on_events(CORE_HOST, [{"id": row.pk, "event": "oom"}], runtime)
    Event.objects.filter(kind="oom").update(at=timezone.now() - step)
    quick(runtime)
    reconcile.on_events(CORE_HOST, [{"id": row.pk, "event": "oom"}], runtime)
    assert Operation.objects.filter(container=row, action="start").exists()
    assert rung.count(waiting.pk) == 1
    assert Event.objects.filter(kind="oom").count() == 2


def test_who_stops_what_waits_to_be_started_again_has_it_stay_stopped(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running", restart="always")
    with pytest.raises(InvalidTransition):
        services.act(actor(alice), make_container(team, "plain", runtime=runtime).name, "stop")
    runtime.end(row.pk, "exit", 1)
    quick(runtime)
    services.act(actor(alice), "web-1", "stop")
    runner.run(Operation.objects.get().pk, runtime, CORE_HOST)
    for _second in range(3):
        quick(runtime)
        pass_time(1000)
    row.refresh_from_db()
    assert (row.status, row.last_exit["reason"], row.restart_at, row.restarts) == ("stopped", "exit", None, False)
    assert list(Operation.objects.values_list("action", flat=True)) == ["stop"]
    with pytest.raises(InvalidTransition):
        services.act(actor(alice), "web-1", "stop")


def test_one_that_ends_while_it_is_asked_to_stop_stays_stopped(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running", restart="always")
    services.act(actor(alice), "web-1", "stop")
    runtime.end(row.pk, "oom")
    runner.run(Operation.objects.get().pk, runtime, CORE_HOST)
    for _second in range(3):
        quick(runtime)
        pass_time(1000)
    row.refresh_from_db()
    assert (row.status, row.last_exit["reason"]) == ("stopped", "oom")
    assert list(Operation.objects.values_list("action", flat=True)) == ["stop"]


def test_an_ephemeral_one_goes_when_it_stops(team, runtime):
    row = make_container(team, runtime=runtime, status="running", ephemeral=True)
    make_container(team, "never-ran", runtime=runtime, ephemeral=True)
    runtime.end(row.pk)
    quick(runtime)
    quick(runtime)
    operation = Operation.objects.get()
    assert (operation.action, operation.object_name) == ("delete", "web-1")
    runner.run(operation.pk, runtime, CORE_HOST)
    assert [left.name for left in Container.objects.all()] == ["never-ran"]


@pytest.mark.lxc("An ephemeral container is not removed while it is restored", "D#2217")
def test_lxd_5906_an_ephemeral_one_is_not_removed_while_it_is_restored(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running", ephemeral=True)

    def ask(action, arguments):
        operation = services.act(actor(alice), "web-1", action, arguments)
        runner.run(operation.pk, runtime, CORE_HOST)
        operation.refresh_from_db()
        return operation.status

    def look():
        assert runtime.observe([row.pk])[row.pk].status == "stopped"
        for _second in range(3):
            quick(runtime)
            pass_time(1000)

    assert ask("snapshot", {"name": "good"}) == "succeeded"
    runtime.before["restore"] = look
    assert ask("restore", {"snapshot": "good"}) == "succeeded"
    quick(runtime)
    row.refresh_from_db()
    assert row.status == "running"
    assert sorted(Operation.objects.values_list("action", flat=True)) == ["restore", "snapshot"]


def test_what_waits_is_rung_again(alice, team, runtime, rung, monkeypatch):
    monkeypatch.setattr(reconcile, "RING_AGAIN_SEC", 600.0)
    make_container(team, runtime=runtime)
    operation = services.act(actor(alice), "web-1", "start")
    quick(runtime)
    assert operation.pk not in rung
    Operation.objects.update(rung_at=timezone.now() - dt.timedelta(seconds=601))
    quick(runtime)
    quick(runtime)
    assert rung.count(operation.pk) == 1


def test_a_host_that_could_not_be_put_in_order_is_tried_again_soon(team, runtime, monkeypatch):
    def refuse():
        raise SetupFailed("nft refused", step="packet filter")

    now = 1000.0
    monkeypatch.setattr(reconcile.time, "monotonic", lambda: now)
    runtime.before["ensure_networks"] = refuse
    reconcile.full(CORE_HOST, runtime)
    del runtime.before["ensure_networks"]
    quick(runtime)
    assert runtime.count("ensure_networks") == 1
    now += reconcile.AGAIN_SEC
    quick(runtime)
    quick(runtime)
    assert runtime.count("ensure_networks") == 2


def test_a_start_makes_a_bridge_that_went_away(alice, team, runtime):
    make_container(team, runtime=runtime)
    runtime.bridges_gone = True
    operation = services.act(actor(alice), "web-1", "start")
    runner.run(operation.pk, runtime, CORE_HOST)
    operation.refresh_from_db()
    assert (operation.status, runtime.bridges_gone) == ("succeeded", False)


def test_rows_are_made_again_from_the_store(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running", limits={"pids": 99}, tags=["blue"])
    address, mac = row.interfaces.get().ipv4, row.interfaces.get().mac
    runtime.taken[row.pk] = {"snap0": {"layers": ["a"], "note": "n", "size_bytes": 3}}
    Container.objects.all().delete()
    Network.objects.all().delete()
    Project.objects.all().delete()
    assert [entry["kind"] for entry in reconcile.disagreements(CORE_HOST, runtime)] == ["container", "image"]
    mended = reconcile.full(CORE_HOST, runtime)
    again = Container.objects.get()
    assert (again.pk, again.name, again.project.name, again.status) == (row.pk, "web-1", "team", "running")
    assert (again.limits, again.tags, again.slot) == ({"pids": 99}, ["blue"], row.slot)
    assert (again.interfaces.get().ipv4, again.interfaces.get().mac) == (address, mac)
    assert (Network.objects.get().ipv4, Network.objects.get().number) == ("10.90.3.1/24", 0)
    assert again.snapshots.get().note == "n"
    assert mended
    before = everything()
    assert reconcile.full(CORE_HOST, runtime) == []
    assert everything() == before


def test_what_the_host_has_lost_is_said(team, runtime):
    row = make_container(team, runtime=runtime, status="running")
    del runtime.seen[row.pk], runtime.specs[row.pk]
    reconcile.full(CORE_HOST, runtime)
    row.refresh_from_db()
    assert (row.status, row.status_reason) == ("absent", "lost from the host's store")
    assert [entry["name"] for entry in reconcile.disagreements(CORE_HOST, runtime)] == ["web-1"]


def test_rows_and_host_agree_when_all_is_well(alice, team, runtime):
    Host.objects.all().delete()
    rebuild.setup(CORE_HOST, runtime)
    from containers.asking.services import ContainerRequest

    data = ContainerRequest(name="web-1", image="busybox", project="team", start=True)
    operation = services.create_container(actor(alice), data)
    runner.run(operation.pk, runtime, CORE_HOST)
    assert reconcile.disagreements(CORE_HOST, runtime) == []


def test_setup_makes_a_new_installation_and_is_done_once(runtime):
    for model in (Network, Image, Host):
        model.objects.all().delete()
    rebuild.setup(CORE_HOST, runtime)
    made = dict(Image.objects.values_list("name", "state"))
    assert made.pop("busybox") == "ready"
    assert made == dict.fromkeys(("debian-12", "debian-13", "debian-sid", "debian-12-sysvinit"), "available")
    network = Network.objects.get()
    assert (network.name, network.number, network.ipv4) == ("default", 0, "10.90.100.1/24")
    assert Project.objects.filter(name="default").exists()
    assert local_host().facts["memory_bytes"]
    before = everything()
    rebuild.setup(CORE_HOST, runtime)
    assert everything() == before
    assert runtime.count("build_image") == 1
