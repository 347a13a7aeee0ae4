"""The verbs: who may, what is refused at once, what is reserved, and that a refusal leaves nothing."""

from __future__ import annotations

import pytest

from containers.asking import queue, services
from containers.asking.services import ContainerRequest, Forbidden
from containers.core.errors import (
    AlreadyExists,
    Busy,
    InUse,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    SpecError,
)
from containers.models import Container, Network, NetworkInterface, Operation, Snapshot, local_host
from panel.accounts.models import ApiToken, AuditRecord, Project
from tests.web.world import actor, make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]


def request(name="web-1", **more):
    return ContainerRequest(**{"name": name, "image": "busybox", "project": "team", **more})


def test_create_reserves_everything_in_one_go(alice):
    operation = services.create_container(actor(alice), request(limits={"memory_bytes": 64 * 1024**2}, start=True))
    container = Container.objects.get(name="web-1")
    nic = container.interfaces.get()
    assert (container.status, container.limits) == ("absent", {"memory_bytes": 64 * 1024**2})
    assert nic.ipv4.startswith("10.90.3.")
    assert nic.ipv6.startswith("fd00:90:3:")
    assert (operation.action, operation.status, operation.container) == ("create", "queued", container)
    record = AuditRecord.objects.get(operation_id=operation.pk)
    assert (record.action, record.outcome, record.source_ip) == ("container.create", "pending", "192.0.2.7")
    assert queue.unfinished(container) == operation


def test_slots_and_addresses_are_never_shared(alice):
    for number in range(12):
        services.create_container(actor(alice), request(f"c-{number}"))
    assert Container.objects.values("slot").distinct().count() == 12
    assert NetworkInterface.objects.values("ipv4").distinct().count() == 12
    assert not NetworkInterface.objects.filter(ipv4="10.90.3.1").exists()


def test_a_freed_slot_rests_before_it_is_used_again(alice):
    services.create_container(actor(alice), request("one"))
    first = Container.objects.get(name="one").slot
    Container.objects.all().delete()
    services.create_container(actor(alice), request("two"))
    assert Container.objects.get(name="two").slot != first


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": "Web"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"image": "nope"}, "image"),
        ({"network": "nope"}, "network"),
        ({"limits": {"memory_bytes": 1}}, "limits.memory_bytes"),
        ({"limits": {"memory_bytes": 2**60}}, "limits.memory_bytes"),
        ({"limits": {"cpus": 0}}, "limits.cpus"),
        ({"limits": {"cpus": float("nan")}}, "limits.cpus"),
        ({"limits": {"pids": 7}}, "limits.pids"),
        ({"limits": {"disk_bytes": 2**30}}, "limits.disk_bytes"),
        ({"limits": {"wings": 2}}, "limits.wings"),
        ({"init_command": ("sh",)}, "init_command"),
        ({"environment": {"A B": "c"}}, "environment"),
        ({"halt_signal": "SIGNOPE"}, "halt_signal"),
        ({"restart": "sometimes"}, "restart"),
        ({"tags": ("a b",)}, "tags"),
        ({"description": "x" * 501}, "description"),
    ],
)
def test_what_is_no_container_is_refused_and_leaves_nothing(alice, more, field):
    with pytest.raises(SpecError) as caught:
        services.create_container(actor(alice), request(**more))
    assert caught.value.field == field
    assert not Container.objects.exists()
    assert not Operation.objects.exists()


def test_privileged_is_the_policy_s_to_allow(root, team, host):
    with pytest.raises(PolicyDenied):
        services.create_container(actor(root), request(privileged=True))
    host.facts = {**host.facts, "policy": {"privileged": True}}
    host.save()
    services.create_container(actor(root), request(privileged=True))
    Operation.objects.update(status="succeeded")
    Container.objects.update(status="stopped")
    host.facts = {**host.facts, "policy": {"privileged": False}}
    host.save()
    with pytest.raises(PolicyDenied):
        services.act(actor(root), "web-1", "start")


def test_a_taken_name_is_told_whoever_has_it(alice, root):
    other = Project.objects.create(name="other")
    make_container(other, "web-1")
    with pytest.raises(AlreadyExists) as caught:
        services.create_container(actor(alice), request())
    assert caught.value.field == "name"


def test_the_same_key_is_the_same_operation(alice, team):
    first = services.create_container(actor(alice), request(), idempotency_key="k1")
    again = services.create_container(actor(alice), request(), idempotency_key="k1")
    assert first.pk == again.pk
    make_container(team, "web-2")
    start = services.act(actor(alice), "web-2", "start", idempotency_key="k2")
    assert services.act(actor(alice), "web-2", "start", idempotency_key="k2").pk == start.pk
    with pytest.raises(SpecError):
        services.act(actor(alice), "web-2", "start", idempotency_key="x" * 256)


def test_roles(alice, olga, bob, charlie, root, team):
    make_container(team)
    for user in (bob, charlie):
        with pytest.raises(Forbidden if user is bob else NotFound):
            services.act(actor(user), "web-1", "start")
    with pytest.raises(Forbidden):
        services.act(actor(olga), "web-1", "delete")
    with pytest.raises(Forbidden):
        services.create_container(actor(olga), request("new"))
    with pytest.raises(NotFound):
        services.create_container(actor(charlie), request("new"))
    denied = AuditRecord.objects.filter(outcome="denied").values_list("actor_name", "action")
    assert ("bob", "container.start") in list(denied)
    assert ("olga", "container.delete") in list(denied)
    assert not Operation.objects.exists()
    services.act(actor(olga), "web-1", "start")


def test_a_read_only_token_only_reads(alice, team):
    make_container(team)
    token = ApiToken(user=alice, name="t", digest="d", read_only=True)
    assert services.find_container(actor(alice, token), "web-1").name == "web-1"
    with pytest.raises(Forbidden):
        services.act(actor(alice, token), "web-1", "start")


def test_what_does_not_fit_the_state_makes_no_operation(alice, team):
    make_container(team)
    for action in ("stop", "freeze", "unfreeze", "restart"):
        with pytest.raises(InvalidTransition):
            services.act(actor(alice), "web-1", action)
    Container.objects.update(status="running")
    for action, arguments in (("start", {}), ("unfreeze", {}), ("delete", {}), ("rename", {"name": "b"})):
        with pytest.raises(InvalidTransition):
            services.act(actor(alice), "web-1", action, arguments)
    assert not Operation.objects.exists()
    services.act(actor(alice), "web-1", "delete", {"force": True})


def test_busy_names_the_operation(alice, team):
    make_container(team)
    operation = services.act(actor(alice), "web-1", "start")
    with pytest.raises(Busy) as caught:
        services.act(actor(alice), "web-1", "snapshot")
    assert caught.value.details["operation"] == str(operation.pk)


def test_snapshot_names_are_never_used_again(alice, team):
    container = make_container(team)

    def name(**arguments):
        operation = services.act(actor(alice), "web-1", "snapshot", arguments)
        Operation.objects.update(status="succeeded")
        return operation.arguments["name"]

    assert [name(), name()] == ["snap0", "snap1"]
    assert name(name="snap7") == "snap7"
    assert name() == "snap8"
    Snapshot.objects.create(container=container, name="snap9")
    assert name() == "snap10"
    with pytest.raises(AlreadyExists):
        name(name="snap9")


def test_a_clone_holds_source_and_target(alice, team):
    source = make_container(team, limits={"pids": 64}, autostart=True)
    operation = services.act(actor(alice), "web-1", "clone", {"name": "web-2"})
    clone = Container.objects.get(name="web-2")
    assert operation.target == clone
    assert (clone.status, clone.limits, clone.autostart) == ("absent", {"pids": 64}, True)
    assert clone.machine_id != source.machine_id
    assert clone.slot != source.slot
    assert clone.interfaces.get().mac != source.interfaces.get().mac
    for name in ("web-1", "web-2"):
        with pytest.raises(Busy):
            services.act(actor(alice), name, "delete")


def test_restore_of_a_snapshot_that_is_not_there(alice, team):
    make_container(team)
    with pytest.raises(NotFound):
        services.act(actor(alice), "web-1", "restore", {"snapshot": "snap0"})


def test_update_merges_limits_and_refuses_the_unknown(alice, team):
    make_container(team, limits={"pids": 64, "cpus": 2})
    operation = services.act(actor(alice), "web-1", "update", {"limits": {"cpus": None, "memory_bytes": 2**26}})
    assert operation.arguments["changes"] == {"limits": {"pids": 64, "memory_bytes": 2**26}}
    Operation.objects.update(status="succeeded")
    with pytest.raises(SpecError) as caught:
        services.act(actor(alice), "web-1", "update", {"slot": 3})
    assert caught.value.field == "slot"


def test_cancel_while_it_waits_leaves_nothing(alice, bob):
    operation = services.create_container(actor(alice), request())
    with pytest.raises(Forbidden):
        services.cancel_operation(actor(bob), operation.pk)
    cancelled = services.cancel_operation(actor(alice), operation.pk)
    assert (cancelled.status, cancelled.container_name) == ("cancelled", "web-1")
    assert not Container.objects.exists()
    assert AuditRecord.objects.get(operation_id=operation.pk).outcome == "cancelled"
    with pytest.raises(InvalidTransition):
        services.cancel_operation(actor(alice), operation.pk)


def test_cancel_of_a_running_one_is_asked_for_where_it_can_be(alice, team):
    make_container(team)
    operation = services.act(actor(alice), "web-1", "start")
    Operation.objects.update(status="running")
    with pytest.raises(InvalidTransition):
        services.cancel_operation(actor(alice), operation.pk)
    Operation.objects.update(cancellable=True)
    assert services.cancel_operation(actor(alice), operation.pk).cancel_requested


def test_networks(alice, root, team):
    with pytest.raises(Forbidden):
        services.create_network(actor(alice), "lab")
    services.create_network(actor(alice), "lab", project="team", ipv4="10.91.0.0/24", ipv6="none")
    lab = Network.objects.get(name="lab")
    assert (lab.ipv4, lab.ipv6, lab.number, lab.project) == ("10.91.0.1/24", "", 1, team)
    with pytest.raises(Busy):
        services.create_container(actor(alice), request(network="lab"))
    with pytest.raises(SpecError) as caught:
        services.create_network(actor(root), "clash", ipv4="10.90.0.0/16")
    assert caught.value.field == "ipv4"
    make_container(team)
    with pytest.raises(InUse) as in_use:
        services.delete_network(actor(root), "default")
    assert in_use.value.details["users"] == ["web-1"]


def test_images(alice, root, team):
    with pytest.raises(Forbidden):
        services.build_image(actor(alice), "debian-12")
    operation = services.build_image(actor(root), "debian-12")
    with pytest.raises(Busy):
        services.build_image(actor(root), "debian-12")
    assert operation.cancellable
    with pytest.raises(AlreadyExists):
        services.build_image(actor(root), "busybox")
    with pytest.raises(SpecError):
        services.build_image(actor(root), "x", {"type": "floppy"})
    local = {"type": "debootstrap", "suite": "sid", "mirror": "http://127.0.0.1/debian"}
    with pytest.raises(PolicyDenied):
        services.build_image(actor(root), "x", local)
    make_container(team)
    with pytest.raises(InUse):
        services.delete_image(actor(root), "busybox")


def test_wait_returns_when_it_has_ended_or_when_the_time_is_up(alice, team):
    make_container(team)
    operation = services.act(actor(alice), "web-1", "start")
    assert not services.wait(operation.pk, 0.05).finished
    Operation.objects.update(status="failed")
    assert services.wait(operation.pk, 5).finished


def test_the_host_is_silent_until_its_worker_answers(host):
    from containers.bookkeeping import records

    assert not services.worker_answers(local_host())
    records.worker_seen()
    assert services.worker_answers(local_host())
