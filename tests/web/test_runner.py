"""The worker's half: claim, look again, run, record; and what becomes of an operation whose worker dies."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest
from django.db import connection, connections
from django.utils import timezone

from containers.asking import services
from containers.asking.services import ContainerRequest
from containers.bookkeeping import records, specs
from containers.core.errors import Cancelled, InUse, PolicyDenied, SetupFailed, TimedOut
from containers.core.model.states import Status
from containers.messaging import doorbell, notices
from containers.models import Container, Event, Image, Network, Operation, Snapshot
from containers.operations import kernel, owner, runner
from panel.accounts.models import AuditRecord, Membership, User
from tests.kernel.conftest import make_spec
from tests.web.world import CORE_HOST, actor, make_container, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]
DEAD = {"boot_id": "another", "pid": 1, "start_time": 1}


def die():
    """End as a killed process does: nothing of ours catches it."""
    raise KeyboardInterrupt


def create(alice, **more):
    data = ContainerRequest(**{"name": "web-1", "image": "busybox", "project": "team", **more})
    return services.create_container(actor(alice), data)


def test_create_and_start(alice, runtime):
    done = run(create(alice, start=True), runtime)
    row = Container.objects.get()
    assert (done.status, done.progress_pct, done.message) == ("succeeded", 100, "Created and started.")
    assert row.status == "running"
    assert row.init_pid
    assert row.started_at
    assert [(e.old, e.new) for e in Event.objects.filter(kind="status").order_by("pk")] == [
        ("absent", "stopped"),
        ("stopped", "running"),
    ]
    assert AuditRecord.objects.get(operation_id=done.pk).outcome == "succeeded"
    assert runtime.specs[row.pk].nics[0].ipv4_gateway == "10.90.3.1"


def test_what_was_claimed_has_its_container_with_project_and_host_at_hand(alice, django_assert_num_queries):
    claimed = records.claim(create(alice).pk, DEAD)
    with django_assert_num_queries(0):
        assert (claimed.container.project.name, claimed.container.host.pk) == ("team", claimed.host_id)


def test_the_packet_filter_is_told_of_a_container_while_that_is_made(host, monkeypatch):
    both, spec = threading.Barrier(2, timeout=30), make_spec("0" * 32)
    told = []

    def make(_host, own, **_more):
        both.wait()
        return own

    monkeypatch.setattr(kernel.store, "load_image", lambda _host, _name: Image(layers=spec.layers))
    monkeypatch.setattr(kernel.KernelRuntime, "check_policy", lambda *_: None)
    monkeypatch.setattr(kernel.stored, "create", make)
    monkeypatch.setattr(kernel.networks, "expect", lambda _host, own: (both.wait(), told.append(own.id)))
    monkeypatch.setattr(kernel.networks, "register", lambda _host, own: told.append(own.id))
    assert kernel.KernelRuntime(CORE_HOST).create(spec, lambda *_: None) == spec
    assert told == [spec.id, spec.id]


def test_a_finished_operation_is_not_run_twice(alice, team, runtime):
    make_container(team, runtime=runtime)
    operation = services.act(actor(alice), "web-1", "start")
    run(operation, runtime)
    assert runner.run(operation.pk, runtime, CORE_HOST) is False
    assert runtime.count("start") == 1


def test_lifecycle(alice, team, runtime):
    row = make_container(team, runtime=runtime)
    for action, status in (
        ("start", "running"), ("freeze", "frozen"), ("unfreeze", "running"), ("restart", "running"),
        ("stop", "stopped"),
    ):  # fmt: skip
        assert run(services.act(actor(alice), "web-1", action), runtime).status == "succeeded", action
        row.refresh_from_db()
        assert row.status == status
    assert row.last_exit["reason"] == "stopped"
    assert run(services.act(actor(alice), "web-1", "delete"), runtime).container_name == "web-1"
    assert not Container.objects.exists()
    assert not runtime.specs
    assert not runtime.registered


def test_a_right_withdrawn_before_it_began(olga, team, runtime):
    make_container(team, runtime=runtime)
    operation = services.act(actor(olga), "web-1", "start")
    Membership.objects.filter(user=olga).update(role="viewer")
    done = run(operation, runtime)
    assert (done.status, done.error["code"]) == ("failed", "forbidden")
    assert runtime.count("start") == 0
    assert AuditRecord.objects.get(operation_id=done.pk).outcome == "failed"


def test_a_user_who_is_gone_or_disabled_starts_nothing(olga, alice, team, runtime):
    make_container(team, runtime=runtime)
    operation = services.act(actor(olga), "web-1", "start")
    User.objects.filter(pk=olga.pk).delete()
    assert run(operation, runtime).error["code"] == "forbidden"
    operation = services.act(actor(alice), "web-1", "start")
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert run(operation, runtime).error["code"] == "forbidden"


def test_the_policy_has_the_last_word_on_the_merged_spec(alice, team, runtime):
    row = make_container(team, runtime=runtime)

    def forbid(spec):
        if spec.privileged:
            raise PolicyDenied("No.", field="privileged")

    runtime.policy = forbid
    operation = services.act(actor(alice), "web-1", "start")
    # whoever writes into the web's database still does not get past the worker
    Container.objects.filter(pk=row.pk).update(privileged=True)
    done = run(operation, runtime)
    assert done.error["code"] == "policy"
    assert runtime.count("start") == 0


def test_what_the_policy_keeps_from_starting_is_not_stopped_for_a_restart(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running")

    def forbid(_spec):
        raise PolicyDenied("No.")

    runtime.policy = forbid
    done = run(services.act(actor(alice), "web-1", "restart"), runtime)
    row.refresh_from_db()
    assert (done.error["code"], row.status, runtime.count("stop")) == ("policy", "running", 0)


def test_a_start_that_fails_says_why(alice, team, runtime):
    row = make_container(team, runtime=runtime)

    def fail():
        raise SetupFailed("No such file", step="exec", path="/sbin/init", errno=2, console="sh: not found")

    runtime.before["start"] = fail
    done = run(services.act(actor(alice), "web-1", "start"), runtime)
    error = done.error
    assert (done.status, error["code"], error["step"], error["path"], error["errno"], error["console"]) == (
        "failed", "setup-failed", "exec", "/sbin/init", 2, "sh: not found",
    )  # fmt: skip
    row.refresh_from_db()
    assert (row.status, row.last_exit["reason"], row.last_exit["console"]) == (
        "stopped", "start-failed", "sh: not found",
    )  # fmt: skip


def test_a_create_that_fails_leaves_nothing(alice, runtime):
    def full():
        raise OSError(28, "No space left on device", "/x")

    runtime.before["create"] = full
    done = run(create(alice), runtime)
    assert (done.status, done.error["code"], done.error["errno"]) == ("failed", "storage-full", 28)
    assert done.message.endswith("Rolled back.")
    assert not Container.objects.exists()
    assert done.container_name == "web-1"


def test_create_and_start_keeps_what_was_created(alice, runtime):
    def fail():
        raise SetupFailed("No init", step="exec")

    runtime.before["start"] = fail
    assert run(create(alice, start=True), runtime).status == "failed"
    assert Container.objects.get().status == "stopped"


def test_an_unexpected_error_ends_the_operation_too(alice, team, runtime):
    make_container(team, runtime=runtime)

    def surprise():
        raise ZeroDivisionError

    runtime.before["start"] = surprise
    done = run(services.act(actor(alice), "web-1", "start"), runtime)
    assert (done.status, done.error["step"]) == ("failed", "unexpected")


def test_the_image_is_made_on_first_use(alice, runtime):
    done = run(create(alice, image="debian-12"), runtime)
    image = Image.objects.get(name="debian-12")
    row = Container.objects.get()
    assert (done.status, image.state, row.layers, row.halt_signal) == (
        "succeeded", "ready", ["base-debian-12"], "SIGUSR2",
    )  # fmt: skip
    assert "I: unpacking" in done.log
    build = Operation.objects.get(action="image-build")
    assert build.status == "succeeded"
    assert build.arguments["implicit"]


def test_a_cancelled_build_leaves_neither_image_nor_container(alice, runtime):
    operation = create(alice, image="debian-12")

    def cancel():
        services.cancel_operation(actor(alice), operation.pk)
        raise Cancelled("stopped")

    runtime.before["build_image"] = cancel
    done = run(operation, runtime)
    assert (done.status, done.error["code"]) == ("cancelled", "cancelled")
    assert Image.objects.get(name="debian-12").state == "available"
    assert Operation.objects.get(action="image-build").status == "cancelled"
    assert not Container.objects.exists()


def test_a_build_that_fails_fails_the_create(alice, runtime):
    def fail():
        raise SetupFailed("mirror is gone", step="debootstrap", console="E: 404")

    runtime.before["build_image"] = fail
    done = run(create(alice, image="debian-12"), runtime)
    assert (done.error["step"], done.error["console"]) == ("debootstrap", "E: 404")
    assert Image.objects.get(name="debian-12").state == "failed"
    assert not Container.objects.exists()
    runtime.before.clear()
    assert run(create(alice, image="debian-12"), runtime).status == "succeeded"


def test_snapshot_restore_of_a_running_one(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running")
    assert run(services.act(actor(alice), "web-1", "snapshot", {"note": "before"}), runtime).status == "succeeded"
    snapshot = Snapshot.objects.get()
    assert (snapshot.name, snapshot.note, snapshot.created_by, snapshot.size_bytes) == (
        "snap0",
        "before",
        "alice",
        4096,
    )
    runtime.calls.clear()
    assert run(services.act(actor(alice), "web-1", "restore", {"snapshot": "snap0"}), runtime).status == "succeeded"
    assert [verb for verb, _ in runtime.calls] == ["stop", "restore", "start"]
    row.refresh_from_db()
    assert (row.status, row.layers) == ("running", ["base", "layer-snap0"])
    assert run(services.act(actor(alice), "web-1", "snapshot-delete", {"snapshot": "snap0"}), runtime)
    assert list(Snapshot.objects.values_list("name", flat=True)) == ["undo0"]


def test_a_restore_that_fails_starts_it_again(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running")
    run(services.act(actor(alice), "web-1", "snapshot"), runtime)

    def fail():
        raise SetupFailed("no", step="restore")

    runtime.before["restore"] = fail
    assert run(services.act(actor(alice), "web-1", "restore", {"snapshot": "snap0"}), runtime).status == "failed"
    row.refresh_from_db()
    assert row.status == "running"


def test_clone(alice, team, runtime):
    make_container(team, runtime=runtime, status="running")
    assert run(services.act(actor(alice), "web-1", "clone", {"name": "web-2"}), runtime).status == "succeeded"
    clone = Container.objects.get(name="web-2")
    assert clone.status == "stopped"
    assert runtime.specs[clone.pk].hostname == "web-2"


def test_a_clone_that_fails_leaves_the_source_alone(alice, team, runtime):
    make_container(team, runtime=runtime, status="running")

    def fail():
        raise SetupFailed("no", step="copy")

    runtime.before["clone"] = fail
    assert run(services.act(actor(alice), "web-1", "clone", {"name": "web-2"}), runtime).status == "failed"
    assert [row.name for row in Container.objects.all()] == ["web-1"]


def test_limits_change_live_or_not_at_all(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running", limits={"pids": 64})
    assert run(services.act(actor(alice), "web-1", "update", {"limits": {"cpus": 0.5}}), runtime).status == "succeeded"
    row.refresh_from_db()
    assert row.limits == {"pids": 64, "cpus": 0.5}
    assert runtime.limits[row.pk].cpus == 0.5
    assert runtime.specs[row.pk].limits.cpus == 0.5
    assert Event.objects.filter(kind="limits").exists()

    def too_small():
        raise InUse("in use")

    runtime.before["apply_limits"] = too_small
    done = run(services.act(actor(alice), "web-1", "update", {"limits": {"memory_bytes": 2**23}}), runtime)
    assert done.error["code"] == "in-use"
    row.refresh_from_db()
    assert row.limits == {"pids": 64, "cpus": 0.5}
    assert runtime.specs[row.pk].limits.memory_bytes is None


def test_rename_while_stopped(alice, team, runtime):
    row = make_container(team, runtime=runtime)
    assert run(services.act(actor(alice), "web-1", "rename", {"name": "web-9"}), runtime).status == "succeeded"
    assert Container.objects.get().name == "web-9"
    assert runtime.specs[row.pk].hostname == "web-9"


def test_networks(alice, runtime, team):
    done = run(services.create_network(actor(alice), "lab", project="team"), runtime)
    lab = Network.objects.get(name="lab")
    assert (done.status, lab.ipv4, lab.ipv6) == ("succeeded", "10.90.102.1/24", "fd00:90:102::1/64")
    assert 1 in runtime.networks
    assert run(services.delete_network(actor(alice), "lab"), runtime).status == "succeeded"
    assert not Network.objects.filter(name="lab").exists()

    def fail():
        raise InUse("routed elsewhere")

    runtime.before["ensure_network"] = fail
    assert run(services.create_network(actor(alice), "lab", project="team"), runtime).error["code"] == "in-use"
    assert not Network.objects.filter(name="lab").exists()


def test_a_network_is_changed_or_as_it_was(alice, runtime, team):
    run(services.create_network(actor(alice), "lab", project="team"), runtime)
    before = runtime.networks[1]
    done = run(services.change_network(actor(alice), "lab", nat=False, description="for trials"), runtime)
    lab = Network.objects.get(name="lab")
    assert (done.status, lab.nat, lab.description) == ("succeeded", False, "for trials")
    assert runtime.networks[1] == dataclasses.replace(before, nat=False)
    assert AuditRecord.objects.get(action="network.change").outcome == "succeeded"

    def fail():
        raise InUse("routed elsewhere")

    calls = iter((fail, lambda: None))
    runtime.before["change_network"] = lambda: next(calls)()
    asked = services.change_network(actor(alice), "lab", nat=True, ipv4="10.99.0.0/24", ipv6="none", description="")
    assert run(asked, runtime).error["code"] == "in-use"
    lab.refresh_from_db()
    assert (lab.nat, lab.description, lab.ipv4, lab.ipv6) == (False, "for trials", before.ipv4, before.ipv6)
    assert runtime.networks[1] == dataclasses.replace(before, nat=False), "taken back on the host too"
    del runtime.before["change_network"]
    run(services.change_network(actor(alice), "lab", ipv4="none"), runtime)
    assert run(services.change_network(actor(alice), "lab", ipv4="auto", ipv6="auto"), runtime).status == "succeeded"
    lab.refresh_from_db()
    assert (lab.ipv4 != "", lab.ipv6) == (True, before.ipv6), "auto keeps what there is, and chooses what is missing"


def test_a_stop_that_may_not_kill_fails_and_leaves_it_running(alice, team, runtime):
    row = make_container(team, runtime=runtime, status="running")

    def late():
        raise TimedOut("too late", step="stop")

    runtime.before["stop"] = late
    done = run(services.act(actor(alice), "web-1", "stop", {"timeout": 1, "kill": False}), runtime)
    assert (done.status, done.error["code"]) == ("failed", "timed-out")
    row.refresh_from_db()
    assert row.status == "running"


@pytest.mark.parametrize(
    ("action", "arguments", "dies_in", "status"),
    [
        ("start", {}, "start", "running"),
        ("restart", {}, "start", "running"),
        ("stop", {}, "stop", "stopped"),
        ("restore", {"snapshot": "snap0"}, "restore", "running"),
        ("restore", {"snapshot": "snap0"}, "start", "running"),
        ("snapshot", {}, "snapshot", "running"),
        ("update", {"limits": {"cpus": 1}}, "save", "running"),
        ("clone", {"name": "web-2"}, "clone", "running"),
    ],
)
def test_a_killed_worker_s_operation_is_resumed(alice, team, runtime, action, arguments, dies_in, status):
    from containers.upkeep import reconcile

    row = make_container(team, runtime=runtime, status="stopped" if action == "start" else "running")
    if action == "restore":
        run(services.act(actor(alice), "web-1", "snapshot"), runtime)
    operation = services.act(actor(alice), "web-1", action, arguments)
    runtime.before[dies_in] = die
    with pytest.raises(KeyboardInterrupt):
        runner.run(operation.pk, runtime, CORE_HOST)
    Operation.objects.filter(pk=operation.pk).update(owner=DEAD)
    runtime.before.clear()
    reconcile.recover(row.host)
    assert Operation.objects.get(pk=operation.pk).status == "queued"
    done = run(operation, runtime)
    assert (done.status, done.attempts) == ("succeeded", 2)
    assert "resumed" in done.message
    row.refresh_from_db()
    assert row.status == status


def test_a_create_that_kills_every_worker_is_rolled_back(alice, runtime, host):
    from containers.upkeep import reconcile

    operation = create(alice)
    runtime.before["create"] = die
    for _attempt in range(runner.ATTEMPTS_MAX):
        with pytest.raises(KeyboardInterrupt):
            runner.run(operation.pk, runtime, CORE_HOST)
        Operation.objects.filter(pk=operation.pk).update(owner=DEAD)
        reconcile.recover(host)
    done = run(operation, runtime)
    assert done.status == "failed"
    assert "Rolled back" in done.message
    assert not Container.objects.exists()


@pytest.mark.parametrize("made", [False, True])
def test_a_create_that_cannot_be_rolled_back_either_leaves_no_row_of_what_is_not_there(alice, runtime, host, made):
    from containers.upkeep import reconcile

    operation = create(alice)
    Operation.objects.filter(pk=operation.pk).update(
        status="running", attempts=runner.ATTEMPTS_MAX + 2, owner=DEAD, started_at=timezone.now()
    )
    if made:
        row = Container.objects.get()
        runtime.create(specs.spec_of(row, CORE_HOST), lambda *_: None)
    reconcile.recover(host, runtime)
    assert Operation.objects.get(pk=operation.pk).error["code"] == "interrupted"
    assert [row.name for row in Container.objects.all()] == ["web-1"] * made


def test_a_live_worker_s_operation_is_left_alone(alice, team, runtime, host):
    from containers.upkeep import reconcile

    make_container(team, runtime=runtime)
    operation = services.act(actor(alice), "web-1", "start")
    records.claim(operation.pk, owner.this_process())
    reconcile.recover(host)
    assert Operation.objects.get(pk=operation.pk).status == "running"


def test_an_owner_is_a_pid_and_its_start_time():
    me = owner.this_process()
    assert owner.alive(me)
    assert not owner.alive({**me, "start_time": me["start_time"] - 1})
    assert not owner.alive({**me, "boot_id": "another"})
    assert not owner.alive(None)


def in_threads(count, call):
    """Run call(number) in threads at once; return what each returned or raised."""
    results = [None] * count
    gate = threading.Barrier(count)

    def work(number):
        gate.wait()
        try:
            results[number] = call(number)
        except Exception as error:  # noqa: BLE001  it is the result
            results[number] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_many_clicks_on_start_make_one_start(alice, team, runtime):
    make_container(team, runtime=runtime)
    results = in_threads(8, lambda _n: services.act(actor(alice), "web-1", "start"))
    made = [result for result in results if isinstance(result, Operation)]
    assert len(made) == 1
    assert {getattr(r, "code", "") for r in results if not isinstance(r, Operation)} == {"busy"}
    # and many doorbells for it, too
    ran = in_threads(4, lambda _n: runner.run(made[0].pk, runtime, CORE_HOST))
    assert sorted(ran) == [False, False, False, True]
    assert runtime.count("start") == 1


@pytest.mark.django_db(transaction=True)
def test_the_same_key_at_once_is_one_operation(alice, team):
    make_container(team)
    results = in_threads(6, lambda _n: services.act(actor(alice), "web-1", "start", idempotency_key="k"))
    assert len({result.pk for result in results}) == 1


@pytest.mark.django_db(transaction=True)
def test_creating_at_once_shares_neither_slot_nor_address(alice):
    results = in_threads(6, lambda number: create(alice, name=f"c-{number}"))
    assert all(isinstance(result, Operation) for result in results), results
    assert Container.objects.values("slot").distinct().count() == 6


@pytest.mark.django_db(transaction=True)
def test_a_busy_database_is_waited_for(alice, team):
    if connection.vendor != "sqlite":
        pytest.skip("row locks: nothing of the kind happens")
    make_container(team)
    held = threading.Event()

    def hold(number):
        if number == 0:
            import sqlite3

            writer = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
            writer.execute("BEGIN IMMEDIATE")
            held.set()
            time.sleep(1.0)
            writer.execute("COMMIT")
            writer.close()
            return None
        held.wait()
        return services.act(actor(alice), "web-1", "start")

    assert isinstance(in_threads(2, hold)[1], Operation)


@pytest.mark.django_db(transaction=True)
def test_a_second_creator_waits_for_the_same_build(alice, runtime):
    first, second = create(alice, image="debian-12"), create(alice, name="web-2", image="debian-12")
    runtime.before["build_image"] = lambda: time.sleep(0.7)
    in_threads(2, lambda number: runner.run((first, second)[number].pk, runtime, CORE_HOST))
    assert {op.status for op in Operation.objects.all()} == {"succeeded"}
    assert runtime.count("build_image") == 1
    assert {row.status for row in Container.objects.all()} == {Status.STOPPED.value}


@pytest.mark.django_db(transaction=True)
def test_without_redis_a_request_succeeds_at_once(alice, team, settings, tmp_path, monkeypatch):
    settings.REDIS_URL = f"redis+socket://web:secret@{tmp_path}/nothing.sock"
    make_container(team)
    asked, tried = threading.Event(), []

    def publish(*what):
        tried.append(asked.wait(60))  # nobody may wait for this
        ring(*what)

    ring = doorbell.publish
    monkeypatch.setattr(doorbell, "publish", publish)
    assert services.act(actor(alice), "web-1", "start").status == "queued"
    assert tried == []
    asked.set()
    assert doorbell._outbox.flush(60)
    assert tried == [True]
    notices.flush(60)
