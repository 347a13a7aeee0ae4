"""Asking for a container of LXC's, and the worker's half of it: rows, rights, what is undone."""

from __future__ import annotations

from typing import Any

import pytest

from containers.asking import importing, nics, services
from containers.asking.importing import ImportRequest
from containers.bookkeeping import specs
from containers.core.errors import (
    AlreadyExists,
    Cancelled,
    HostUnsupported,
    NotFound,
    PolicyDenied,
    SetupFailed,
    SpecError,
)
from containers.models import Container, Host, Network, NetworkInterface, Operation
from containers.operations import runner
from panel.accounts.models import AuditRecord
from tests.web.world import CORE_HOST, FakeRuntime, actor, make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]
MACHINE_ID = "0123456789abcdef0123456789abcdef"
MAC = "10:66:6a:01:02:03"


def ask(**more: Any) -> Operation:
    ordered: list[str] = []
    operation = importing.import_container(ImportRequest(**{"name": "c1", "project": "team", **more}), ordered.append)
    assert ordered == [operation.container_id], "root has written it down before anybody can begin"
    return operation


def run(operation: Operation, runtime: FakeRuntime) -> Operation:
    assert runner.run(operation.pk, runtime, CORE_HOST)
    return Operation.objects.get(pk=operation.pk)


def test_it_is_made_as_the_system_and_audited(alice, runtime):
    values = {"limits": {"memory_bytes": 64 << 20}, "init_command": ["/bin/run"], "halt_signal": "SIGUSR1",
              "environment": {"A": "b"}, "autostart": True, "privileged": False,
              "security": {"no_new_privs": True}}  # fmt: skip
    done = run(ask(values=values, nic="lan0", mac=MAC, machine_id=MACHINE_ID), runtime)
    assert (done.status, done.message, done.actor_name) == ("succeeded", "Imported.", "system")
    row = Container.objects.get()
    assert (row.status, row.layers, row.image, row.image_name) == ("stopped", ["imported"], None, "lxc")
    assert (row.machine_id, row.init_command, row.autostart) == (MACHINE_ID, ["/bin/run"], True)
    spec = runtime.specs[row.pk]
    assert (spec.limits.memory_bytes, spec.security.no_new_privs, spec.halt_signal) == (64 << 20, True, "SIGUSR1")
    assert (spec.nics[0].name, spec.nics[0].mac, spec.nics[0].ipv6) == (
        "lan0",
        MAC,
        "fd00:90:3:0:1266:6aff:fe01:203/64",
    )
    record = AuditRecord.objects.get(action="container.import")
    assert (record.object_name, record.outcome, record.operation_id) == ("c1", "succeeded", done.pk)
    assert runtime.calls[-1][0] == "end_import"


def test_what_another_has_is_not_taken(alice, runtime):
    run(ask(mac=MAC, machine_id=MACHINE_ID), runtime)
    run(ask(name="c2", mac=MAC, machine_id=MACHINE_ID), runtime)
    second = Container.objects.get(name="c2")
    assert second.machine_id != MACHINE_ID
    assert NetworkInterface.objects.get(container=second).mac != MAC
    specs.spec_of(second, CORE_HOST).check()


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"name": "web-1"}, AlreadyExists),
        ({"name": "Bad"}, SpecError),
        ({"project": "none"}, NotFound),
        ({"network": "none"}, SpecError),
        ({"network": "theirs"}, SpecError),
        ({"values": {"privileged": True}}, PolicyDenied),
        ({"values": {"limits": {"memory_bytes": 1}}}, SpecError),
        ({"values": {"mounts": [{"share": "none", "target": "/srv"}]}}, PolicyDenied),
        ({"values": {"nonsense": 1}}, SpecError),
    ],
)
def test_what_is_refused_leaves_nothing(alice, team, host, more, error):
    from panel.accounts.models import Project

    other = Project.objects.create(name="others")
    Network.objects.create(host=host, name="theirs", number=7, ipv4="10.90.9.1/24", project=other)
    make_container(team)
    with pytest.raises(error):
        ask(**more)
    assert Container.objects.count() == 1
    assert not Operation.objects.exists()


LAN = {"projects": ["team"], "types": ["macvlan", "routed"], "vlans": [], "addresses": ["192.0.2.17/32"]}


@pytest.mark.parametrize(
    ("nic", "error", "field"),
    [
        ({"type": "routed", "ipv6": "auto"}, SpecError, "nics.1.ipv6"),
        ({"type": "routed", "ipv4": "192.0.2.99"}, PolicyDenied, "nics.1.ipv4"),
        ({"type": "macvlan", "parent": "dmz"}, PolicyDenied, "nics.1.parent"),
        ({"network": "full"}, HostUnsupported, "network"),
        ({"type": "routed", "ipv4": "auto"}, None, None),
    ],
)
def test_what_speaks_against_its_interfaces_is_known_before_it_is_asked_for(alice, host, nic, error, field):
    host.facts["policy"] = {"host_network": False, "parents": {"lan": LAN}}
    host.save()
    Network.objects.create(host=host, name="full", number=7, ipv4="10.90.9.1/30")
    asked = {"name": "c1", "project": "team", "nics": ({"network": "full"}, nic)}
    before = Host.objects.values().get()
    for verb in (lambda: importing.check(ImportRequest(**asked), host), lambda: ask(**asked)):
        assert (Container.objects.count(), NetworkInterface.objects.count()) == (0, 0)
        assert Host.objects.values().get() == before
        if error is None:
            verb()
            continue
        with pytest.raises(error) as caught:
            verb()
        assert getattr(caught.value, "field", None) == field
    assert Container.objects.count() == (error is None)


def test_what_others_have_is_told_of_those_that_are_about_to_have_it_too(alice, team, host):
    row = make_container(team)
    NetworkInterface.objects.create(container=row, index=3, name="up0", type="routed", mac=MAC, ipv6="2001:db8:0::7")
    rows = [{"mac": "10:66:6a:01:02:04", "ipv4": "192.0.2.17", "ipv6": None, "network": None}]
    Operation.objects.create(
        host=host, project=team, action="update", container=row, status="queued", arguments={"nics": rows}
    )
    macs, addresses = nics.held(host)
    assert {MAC, "10:66:6a:01:02:04"} <= macs
    assert {"2001:db8::7", "192.0.2.17"} <= addresses
    run(ask(name="c2", mac="10:66:6a:01:02:04"), FakeRuntime())
    assert NetworkInterface.objects.get(container__name="c2").mac not in macs


@pytest.mark.parametrize(
    ("fails", "status"), [(SetupFailed("x", step="copy"), "failed"), (Cancelled("y"), "cancelled")]
)
def test_what_fails_is_undone(alice, runtime, fails, status):
    def fail() -> None:
        raise fails

    runtime.before["import_lxc"] = fail
    done = run(ask(), runtime)
    assert (done.status, "Rolled back." in done.message) == (status, True)
    assert not Container.objects.exists()
    assert [verb for verb, _about in runtime.calls[-2:]] == ["delete", "end_import"]


def test_one_that_is_cancelled_before_it_begins_leaves_no_row(alice, root):
    operation = ask()
    services.cancel_operation(actor(root), operation.pk)
    assert not Container.objects.exists()


def test_a_worker_that_is_lost_after_the_copy_does_not_copy_again(alice, runtime):
    operation = ask()

    def die() -> None:
        raise KeyboardInterrupt

    runtime.before["end_import"] = die
    with pytest.raises(KeyboardInterrupt):
        runner.run(operation.pk, runtime, CORE_HOST)
    Operation.objects.update(status="queued", owner=None)
    runtime.before.clear()
    runtime.left_of_import = "/l/.c1 could not be removed: busy"
    done = run(operation, runtime)
    assert done.status == "succeeded"
    assert done.message.startswith("Imported. /l/.c1 could not be removed: busy")
    assert runtime.count("import_lxc") == 1
    assert Container.objects.get().layers == ["imported"]


def test_nobody_can_ask_for_it_through_the_web(alice, root, team):
    make_container(team)
    with pytest.raises(NotFound):
        services.act(actor(root), "web-1", "import")
