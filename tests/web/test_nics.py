"""Network interfaces: asked for through the API, decided in rows, and brought to the runtime."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from containers.bookkeeping import specs
from containers.core.errors import SetupFailed
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.models import Container, Network, NetworkInterface, Operation
from containers.operations import runner
from containers.operations.runtime import Observed
from containers.upkeep import rebuild
from tests.web.api import Api, assert_error
from tests.web.world import CORE_HOST, FakeRuntime, make_container, make_host

pytestmark = pytest.mark.django_db

PARENT = {"projects": ["team"], "types": ["macvlan", "phys", "routed", "vlan"], "vlans": ["10"],
          "addresses": ["192.0.2.16/29"]}  # fmt: skip


@pytest.fixture(autouse=True)
def host():
    row = make_host()
    row.facts["policy"] = {"host_network": False, "parents": {"lan": PARENT}}
    row.save()
    Network.objects.create(host=row, name="backend", number=1, ipv4="10.91.0.1/24", ipv6="")
    return row


@pytest.fixture
def api(alice):
    return Api(alice)


@pytest.fixture
def web(team, host):
    return make_container(team, status="stopped")


def run(answer, runtime=None):
    """Have an accepted operation done; return it."""
    status, body = answer
    assert status == 202, answer
    runtime = runtime or FakeRuntime()
    for row in Container.objects.exclude(status="absent"):
        runtime.specs.setdefault(row.pk, specs.spec_of(row, CORE_HOST))
        if row.status == "running" and row.pk not in runtime.seen:
            runtime.run(row.pk)
    assert runner.run(body["id"], runtime, CORE_HOST)
    return Operation.objects.get(pk=body["id"])


def nics_of(api, name="web-1"):
    return api.get(f"/containers/{name}")[1]["nics"]


def spec_of(name) -> Spec:
    return specs.spec_of(Container.objects.get(name=name), CORE_HOST)


def create(api, **more):
    return api.post("/containers", {"name": "new-1", "image": "busybox", "project": "team", **more})


def test_a_routed_interface_has_none_of_the_hosts_own_addresses(api, host) -> None:
    host.facts["routed_own"] = ["192.0.2.17", "192.0.2.18"]
    host.save()
    run(create(api, nics=[{"type": "routed", "parent": "lan", "ipv4": "auto"}]))
    assert nics_of(api, "new-1")[0]["ipv4"] == "192.0.2.19/32"
    asked = {"name": "new-2", "image": "busybox", "project": "team"}
    answer = api.post("/containers", {**asked, "nics": [{"type": "routed", "parent": "lan", "ipv4": "192.0.2.18"}]})
    assert_error(answer, 422, "invalid-value", "nics.0.ipv4")


def test_a_new_container_has_those_that_are_asked_for(api) -> None:
    wanted = [
        {"network": "default"},
        {"network": "backend", "ipv4": "10.91.0.77", "static": True, "mtu": 1400},
        {"type": "macvlan", "parent": "lan", "name": "lan0", "mac": "02:ab:xx:xx:xx:xx"},
        {"type": "routed", "parent": "lan", "ipv4": "auto", "routes": ["192.0.2.20/31"]},
    ]
    assert create(api, nics=wanted)[0] == 202
    spec = spec_of("new-1")
    spec.check()
    first, second, third, fourth = spec.nics
    assert [nic.name for nic in spec.nics] == ["eth0", "eth1", "lan0", "eth2"]
    assert [nic.index for nic in spec.nics] == [0, 1, 2, 3]
    assert (first.type, first.ipv4_gateway, first.static) == ("bridge", "10.90.3.1", False)
    assert (second.ipv4, second.ipv4_gateway, second.static, second.mtu) == ("10.91.0.77/24", None, True, 1400)
    assert (third.parent, third.mode, third.mac[:6]) == ("lan", "private", "02:ab:")
    assert (fourth.ipv4, fourth.ipv4_gateway, fourth.routes) == ("192.0.2.17/32", None, ("192.0.2.20/31",))
    assert len({nic.mac for nic in spec.nics}) == 4
    assert spec.nics[3].host_link.endswith(".3")
    shown = api.get("/containers/new-1")[1]
    assert "192.0.2.17" in shown["addresses"]
    assert [one["name"] for one in shown["networks"]] == ["eth0", "eth1"]
    assert shown["nics"][2]["parent"] == "lan"


def test_a_container_without_any(api) -> None:
    assert create(api, nics=[])[0] == 202
    assert spec_of("new-1").nics == ()
    assert api.get("/containers/new-1")[1]["addresses"] == []


@pytest.mark.parametrize(
    ("nic", "status", "code", "field"),
    [
        ({"network": "nowhere"}, 422, "invalid-value", "nics.0.network"),
        ({"type": "macvlan"}, 422, "invalid-value", "nics.0.parent"),
        ({"type": "macvlan", "parent": "other"}, 403, "policy", "nics.0.parent"),
        ({"type": "ipvlan", "parent": "lan"}, 403, "policy", "nics.0.parent"),
        ({"type": "vlan", "parent": "lan", "vlan": 11}, 403, "policy", "nics.0.vlan"),
        ({"type": "host"}, 403, "policy", "nics.0.type"),
        ({"type": "routed", "ipv4": "198.51.100.1"}, 403, "policy", "nics.0.ipv4"),
        ({"type": "routed", "ipv4": "192.0.2.18", "routes": ["10.0.0.0/8"]}, 403, "policy", "nics.0.routes"),
        ({"type": "macvlan", "parent": "lan", "network": "default"}, 422, "invalid-value", "nics.0.network"),
        ({"ipv4": "10.90.3.1"}, 422, "invalid-value", "nics.0.ipv4"),
        ({"ipv4": "10.90.4.1"}, 422, "invalid-value", "nics.0.ipv4"),
        ({"ipv4": "x"}, 422, "invalid-value", "nics.0.ipv4"),
        ({"network": "backend", "ipv6": "fd00::7"}, 422, "invalid-value", "nics.0.ipv6"),
        ({"mac": "01:00:00:00:00:01"}, 422, "invalid-value", "nics.0.mac"),
        ({"mac": "nonsense"}, 422, "invalid-value", "nics.0.mac"),
        ({"name": "lo"}, 422, "invalid-value", "nics.0.name"),
        ({"mtu": 100}, 422, "invalid-value", "nics.0.mtu"),
        ({"type": "none"}, 422, "invalid-value", "nics.0.type"),
        ({"link": "eth0"}, 400, "bad-request", "nics.0.link"),
    ],
)
def test_what_is_refused_names_its_field_and_leaves_nothing(api, nic, status, code, field) -> None:
    got, body = create(api, nics=[nic])
    assert (got, body["code"], body["field"]) == (status, code, field), body
    assert not Container.objects.filter(name="new-1").exists()
    assert not Operation.objects.exists()


def test_the_hosts_network_where_the_policy_allows_it(api, host) -> None:
    host.facts["policy"]["host_network"] = True
    host.save()
    assert create(api, nics=[{"type": "host"}])[0] == 202
    assert [nic.type for nic in spec_of("new-1").nics] == ["host"]


def test_an_address_that_is_chosen_is_one_of_the_cards_own(api, host) -> None:
    first = {**PARENT, "addresses": ["198.51.100.0/29"]}
    host.facts["policy"]["parents"] = {"first": first, "lan": PARENT}
    host.save()
    assert create(api, nics=[{"type": "routed", "parent": "lan", "ipv4": "auto"}])[0] == 202
    assert spec_of("new-1").nics[0].ipv4 == "192.0.2.17/32"


def test_a_name_that_is_chosen_is_none_of_those_that_are_asked_for_further_down(api) -> None:
    assert create(api, nics=[{}, {"network": "backend"}, {"network": "backend", "name": "eth0"}])[0] == 202
    assert [nic.name for nic in spec_of("new-1").nics] == ["eth1", "eth2", "eth0"]


def test_a_patch_knows_its_interfaces_by_name(api, web) -> None:
    (before,) = nics_of(api)
    run(api.patch("/containers/web-1", {"nics": [{"name": "eth0"}, {"network": "backend"}]}))
    kept, added = nics_of(api)
    assert (kept["mac"], kept["ipv4"]) == (before["mac"], before["ipv4"])
    assert (added["name"], added["network"], added["ipv4_gateway"]) == ("eth1", "backend", "none")
    run(api.patch("/containers/web-1", {"nics": [{"name": "eth1", "network": "backend"}]}))
    (left,) = nics_of(api)
    assert (left["mac"], left["ipv4"], left["ipv4_gateway"]) == (added["mac"], added["ipv4"], "none")
    assert NetworkInterface.objects.get(container=web).index == 1, "the link keeps its name on the host"
    assert run(api.patch("/containers/web-1", {"nics": nics_of(api)})).message == "Nothing to change."


def test_a_running_container_is_changed_before_its_row(api, team) -> None:
    make_container(team, status="running")
    runtime = FakeRuntime()
    answer = api.patch("/containers/web-1", {"nics": [{"name": "eth0"}, {"network": "backend"}]})
    assert len(nics_of(api)) == 1
    operation = run(answer, runtime)
    assert operation.status == "succeeded", operation.error
    container = Container.objects.get(name="web-1")
    assert [nic.network for nic in runtime.plugged[container.pk]] == ["default", "backend"]
    assert runtime.specs[container.pk].nics == runtime.plugged[container.pk]
    assert len(nics_of(api)) == 2


def test_what_the_kernel_refuses_leaves_the_rows_as_they_were(api, team) -> None:
    make_container(team, status="running")
    runtime = FakeRuntime()

    def refuse() -> None:
        raise SetupFailed("No.", step="network")

    runtime.before["change_nics"] = refuse
    before = nics_of(api)
    operation = run(api.patch("/containers/web-1", {"nics": []}), runtime)
    assert (operation.status, operation.error["step"]) == ("failed", "network")
    assert nics_of(api) == before


def test_what_an_unfinished_change_will_take_is_taken(api, team) -> None:
    make_container(team, status="stopped")
    make_container(team, name="web-2", status="stopped")
    assert api.patch("/containers/web-1", {"nics": [{"network": "backend", "ipv4": "10.91.0.7"}]})[0] == 202
    asked = {"nics": [{"network": "backend", "ipv4": "10.91.0.7"}]}
    assert_error(api.patch("/containers/web-2", asked), 422, "invalid-value", "nics.0.ipv4")
    mac = "02:00:00:00:00:07"
    run(api.patch("/containers/web-2", {"nics": [{"mac": mac}]}))
    assert_error(create(api, nics=[{"mac": mac}]), 422, "invalid-value", "nics.0.mac")


def test_lxc_1600_a_clone_has_macs_addresses_and_link_names_of_its_own(api, web) -> None:
    wanted = [
        {"name": "eth0"},
        {"network": "backend", "ipv4": "10.91.0.77", "mac": "02:00:00:00:00:77", "ipv4_gateway": "auto"},
        {"type": "macvlan", "parent": "lan", "mode": "bridge", "ipv4": "10.0.0.7/24", "ipv4_gateway": "10.0.0.1"},
        {"type": "routed", "ipv4": "192.0.2.18"},
    ]
    run(api.patch("/containers/web-1", {"nics": wanted}))
    assert api.post("/containers/web-1/clone", {"name": "web-2"})[0] == 202
    first, second = spec_of("web-1"), spec_of("web-2")
    second.check()
    assert [nic.name for nic in first.nics] == [nic.name for nic in second.nics]
    for key in ("mac", "host_link", "ipv4"):
        values = [getattr(nic, key) for spec in (first, second) for nic in spec.nics if getattr(nic, key)]
        assert len(set(values)) == len(values), key
    assert second.nics[1].ipv4_gateway == "10.91.0.1"
    assert (second.nics[2].mode, second.nics[2].ipv4, second.nics[2].ipv4_gateway) == ("bridge", None, None)
    assert second.nics[3].ipv4 == "192.0.2.17/32"


def test_rows_are_made_again_from_the_store(api, web, host) -> None:
    wanted = [
        {"name": "eth0"},
        {"network": "backend", "static": True, "ipv4_gateway": "none"},
        {"type": "macvlan", "parent": "lan", "ipv4": "10.0.0.7/24", "ipv4_gateway": "dev", "mtu": 1400},
        {"type": "vlan", "parent": "lan", "vlan": 10},
    ]
    run(api.patch("/containers/web-1", {"nics": wanted}))
    spec = spec_of("web-1")
    Container.objects.all().delete()
    runtime = FakeRuntime()
    runtime.specs[spec.id] = spec
    runtime.seen[spec.id] = Observed(status=Status.STOPPED)
    rebuild.mend_rows(host, runtime, CORE_HOST)
    assert spec_of("web-1").nics == spec.nics


def test_a_network_with_a_second_interface_on_it_cannot_be_deleted(api, web, host, make_user) -> None:
    run(api.patch("/containers/web-1", {"nics": [{"name": "eth0"}, {"network": "backend"}]}))
    admin = Api(make_user("root-1", host_admin=True))
    assert_error(admin.delete("/networks/backend"), 409, "in-use")


def test_the_cards_that_may_be_used_are_listed(api, make_user) -> None:
    status, body = api.get("/parents")
    assert status == 200
    assert body["items"] == [{"name": "lan", **PARENT}]
    assert Api(make_user("nobody")).get("/parents")[1]["items"] == []


# -- pages ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(alice):
    made = Client()
    made.force_login(alice)
    return made


def test_the_settings_page_shows_what_there_is_and_what_there_could_be(client, web) -> None:
    text = client.get("/containers/web-1/settings").content.decode()
    assert 'name="remove" value="eth0"' in text
    for place in ("bridge:default", "bridge:backend", "macvlan:lan", "phys:lan", "routed:lan", "vlan:lan"):
        assert f'value="{place}"' in text
    assert 'value="host:"' not in text


def test_an_interface_is_added_and_removed_by_the_page(client, api, web) -> None:
    data = {"place": "macvlan:lan", "name": "lan0", "mode": "bridge", "ipv4": "10.0.0.7/24", "mtu": "1400"}
    assert client.post("/containers/web-1/_nics", data).status_code == 302
    run((202, {"id": str(Operation.objects.get().pk)}))
    added = nics_of(api)[1]
    assert (added["type"], added["parent"], added["name"], added["mode"]) == ("macvlan", "lan", "lan0", "bridge")
    assert (added["ipv4"], added["mtu"]) == ("10.0.0.7/24", 1400)
    assert "10.0.0.7" in client.get("/containers/web-1/network").content.decode()
    assert client.post("/containers/web-1/_nics", {"remove": "eth0"}).status_code == 302
    run((202, {"id": str(Operation.objects.first().pk)}))
    assert [nic["name"] for nic in nics_of(api)] == ["lan0"]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"place": "bridge:backend", "ipv4": "10.0.0.1"}, "ipv4"),
        ({"place": "bridge:backend", "mtu": "big"}, "mtu"),
        ({"place": "vlan:lan", "vlan": "11"}, "vlan"),
        ({"place": "bridge:nowhere"}, "place"),
        ({"place": "ipvlan:lan"}, "place"),
    ],
)
def test_a_refusal_is_told_beside_its_field(client, web, data, field) -> None:
    answer = client.post("/containers/web-1/_nics", data)
    assert answer.status_code == 422
    place = answer.content.decode().split(f'id="n-{field}"')[1][:4000]
    assert "aria-invalid" in place.split(">")[0]
    assert not Operation.objects.exists()


def test_who_may_only_look_is_told_why(web, team, make_user) -> None:
    client = Client()
    client.force_login(make_user("vera", team, "viewer"))
    text = client.get("/containers/web-1/settings").content.decode()
    assert 'name="remove" value="eth0"' not in text
    assert 'id="add-nic"' not in text


def test_the_form_for_a_new_container_takes_several_networks_or_none(client) -> None:
    data = {"name": "new-1", "image": "busybox", "project": "team", "network": "default", "more_networks": ["backend"]}
    assert client.post("/containers/_create", data).status_code == 302
    assert [nic.network for nic in spec_of("new-1").nics] == ["default", "backend"]
    data |= {"name": "new-2", "network": "-", "more_networks": []}
    assert client.post("/containers/_create", data).status_code == 302
    assert spec_of("new-2").nics == ()


def test_the_network_that_was_chosen_is_not_offered_once_more(client) -> None:
    for chosen in ("default", "backend"):
        text = client.get(f"/containers/_create?network={chosen}").content.decode()
        also = re.findall(
            r'<label class="field-check"( hidden)?>\s*<input[^>]* name="more_networks" value="([^"]*)"', text
        )
        assert {name: bool(hidden) for hidden, name in also} == {
            "default": chosen == "default",
            "backend": chosen == "backend",
        }
