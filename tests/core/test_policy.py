from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from containers.core.errors import PolicyDenied, SpecError
from containers.core.model.nics import Nic
from containers.core.model.security import Security
from containers.core.model.spec import Limits, Spec
from containers.core.rules import policy, policy_file, pool_rules

SPEC = Spec(
    id="0123456789ab",
    name="web-1",
    project="web",
    slot=0,
    image="busybox",
    layers=(),
    machine_id="0" * 32,
    created_at="2026-11-21T00:00:00+00:00",
)


def spec(**changes: object) -> Spec:
    return dataclasses.replace(SPEC, **changes)


def test_an_empty_file_is_the_default() -> None:
    assert policy_file.parse("") == policy.DEFAULT


def test_the_example_in_the_documentation_is_valid() -> None:
    example = (policy_file.__doc__ or "").split("::", 1)[1].rpartition("A key that")[0]
    parsed = policy_file.parse("\n".join(line.strip() for line in example.splitlines()))
    assert parsed.ceilings.containers == 100
    assert parsed.ceilings_of("web") == policy.Ceilings(containers=10)
    assert parsed.ceilings_of("other").cpus == 16.0


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[container]", "policy.container"),
        ("[containers]\nprivilged = true", "policy.containers.privilged"),
        ("[containers]\nprivileged = 1", "policy.containers.privileged"),
        ('[containers]\nprivileged = "no"', "policy.containers.privileged"),
        ("[ceilings]\ncontainers = true", "policy.ceilings.containers"),
        ("[ceilings]\ncontainers = -1", "policy.ceilings.containers"),
        ("[ceilings]\ncpus = nan", "policy.ceilings.cpus"),
        ("[projects]\nweb = 3", "policy.projects.web"),
        ("[projects.web]\nlimit = 3", "policy.projects.web.limit"),
        ("[projects.Web.ceilings]\ncontainers = 3", "policy.projects.Web"),
        ('[images]\nsources = "10.0.0.1"', "policy.images.sources"),
        ('[images]\nsources = ["10.0.0.1/8"]', "policy.images.sources"),
        ("images = 3", "policy.images"),
        ('[containers]\ncapabilities = ["flying"]', "policy.containers.capabilities"),
        ('[shares.media]\nprojects = ["web"]', "policy.shares.media.path"),
        ('[shares.media]\npath = "srv"', "policy.shares.media.path"),
        ('[shares.media]\npath = "/srv/../etc"', "policy.shares.media.path"),
        ('[shares.media]\npath = "/"', "policy.shares.media.path"),
        ('[shares.media]\npath = "/srv"\nreadonly = true', "policy.shares.media.readonly"),
        ('[shares.media]\npath = "/srv"\nprojects = "web"', "policy.shares.media.projects"),
        ('[shares.Media]\npath = "/srv"', "policy.shares.Media"),
        ('[devices.disk]\nprojects = ["*"]', "policy.devices.disk.path"),
        ('[devices.disk]\npath = "/etc/passwd"', "policy.devices.disk.path"),
        ('[pools.fast]\ndriver = "btrfs"', "policy.pools.fast.path"),
        ('[pools.fast]\npath = "/srv/a"\ndriver = "zfs"', "policy.pools.fast.driver"),
        ('[pools.best]\npath = "/srv/a"', "policy.pools.best"),
        ('[pools.default]\npath = "/srv/a"', "policy.pools.default"),
        ("[", "policy"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        policy_file.parse(text)
    assert caught.value.field == field
    # who meets it may have asked for something else: a container from busybox, say
    assert caught.value.message.startswith("policy.toml")
    assert field.removeprefix("policy.") in caught.value.message or text == "["


@pytest.mark.parametrize(
    ("rule", "field", "changes"),
    [
        ("privileged = true", "privileged", {"privileged": True}),
        ("nesting = true", "security.nesting", {"security": Security(nesting=True)}),
        (
            'capabilities = ["sys_time"]',
            "security.capabilities_keep",
            {"security": Security(capabilities_keep=("chown", "sys_time"))},
        ),
    ],
)
def test_more_rights_than_others_have_need_the_policy(rule: str, field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyDenied) as caught:
        policy.check(policy.DEFAULT, spec(**changes))
    assert caught.value.field == field
    policy.check(policy_file.parse(f"[containers]\n{rule}"), spec(**changes))


def test_what_is_the_default_of_one_kind_of_container_is_more_than_that_of_the_other() -> None:
    security = Security(capabilities_keep=("chown", "sys_resource"))
    policy.check(policy.DEFAULT, spec(security=security))
    with pytest.raises(PolicyDenied):
        policy.check(policy_file.parse("[containers]\nprivileged = true"), spec(security=security, privileged=True))


def test_what_is_dropped_again_is_not_kept() -> None:
    security = Security(capabilities_keep=("chown", "sys_time"), capabilities_drop=("sys_time",))
    policy.check(policy.DEFAULT, spec(security=security))
    with pytest.raises(PolicyDenied) as caught:
        policy.check(policy.DEFAULT, spec(security=dataclasses.replace(security, capabilities_drop=())))
    assert caught.value.field == "security.capabilities_keep"


def on_card(**changes: Any) -> Spec:
    values = {"name": "eth0", "type": "macvlan", "parent": "eth1", "mode": "private", "mac": "02:00:00:00:00:01"}
    return spec(nics=(Nic(**{**values, **changes}),))


PARENTS = """
[parents.lan]
link = "enp3s0"
projects = ["web"]
types = ["macvlan", "vlan", "routed"]
vlans = ["10", "100-199"]
addresses = ["192.0.2.16/28", "2001:db8::/64"]
"""


def test_parent_nics_need_the_policy() -> None:
    with pytest.raises(PolicyDenied):
        policy.check(policy.DEFAULT, on_card())
    short = policy_file.parse('[containers]\nparent_nics = ["eth1"]')
    policy.check(short, on_card())
    assert policy.links_of(short, on_card()) == {"eth1": "eth1"}
    with pytest.raises(PolicyDenied):
        policy.check(short, on_card(type="phys", mode=""))


def test_a_card_is_called_by_its_name_here_and_given_for_a_project_and_a_type() -> None:
    rules = policy_file.parse(PARENTS)
    assert policy.links_of(rules, on_card(parent="lan")) == {"lan": "enp3s0"}
    for refused in (
        on_card(parent="enp3s0"),
        on_card(parent="lan", type="phys", mode=""),
        dataclasses.replace(on_card(parent="lan"), project="db"),
    ):
        with pytest.raises(PolicyDenied) as caught:
            policy.check(rules, refused)
        assert caught.value.field == "nics.0.parent"


@pytest.mark.parametrize(("vlan", "given"), [(10, True), (11, False), (100, True), (199, True), (200, False)])
def test_a_vlan_is_given_by_its_number(vlan: int, given: bool) -> None:
    asked = on_card(parent="lan", type="vlan", mode="", vlan=vlan)
    if given:
        policy.check(policy_file.parse(PARENTS), asked)
        return
    with pytest.raises(PolicyDenied) as caught:
        policy.check(policy_file.parse(PARENTS), asked)
    assert caught.value.field == "nics.0.vlan"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ipv4": "192.0.2.17/32"}, None),
        ({"ipv4": "192.0.2.33/32"}, "nics.0.ipv4"),
        ({"ipv4": "192.0.2.17/24"}, None),
        ({"ipv6": "2001:db8::7/128"}, None),
        ({"ipv6": "2001:db9::7/128"}, "nics.0.ipv6"),
        ({"ipv4": "192.0.2.17/32", "routes": ("192.0.2.24/29",)}, None),
        ({"ipv4": "192.0.2.17/32", "routes": ("192.0.2.0/24",)}, "nics.0.routes"),
    ],
)
@pytest.mark.parametrize("parent", ["", "lan"])
def test_what_is_routed_to_a_container_is_the_policys_to_say(
    changes: dict[str, Any], field: str | None, parent: str
) -> None:
    asked = on_card(type="routed", mode="", host_link="vbabcde0.0", parent=parent, **changes)
    if field is None:
        policy.check(policy_file.parse(PARENTS), asked)
        return
    with pytest.raises(PolicyDenied) as caught:
        policy.check(policy_file.parse(PARENTS), asked)
    assert caught.value.field == field


def test_the_hosts_network_needs_the_policy() -> None:
    asked = spec(nics=(Nic(name="eth0", type="host"),))
    with pytest.raises(PolicyDenied):
        policy.check(policy.DEFAULT, asked)
    policy.check(policy_file.parse("[containers]\nhost_network = true"), asked)


@pytest.mark.parametrize(
    "text",
    [
        '[parents.lan]\nlink = "eth1"',
        '[parents.lan]\ntypes = ["macvlan"]',
        '[parents.lan]\nlink = "eth1"\ntypes = ["bridge"]',
        '[parents.lan]\nlink = "../eth1"\ntypes = ["phys"]',
        '[parents.lan]\nlink = "eth1"\ntypes = ["vlan"]\nvlans = ["0"]',
        '[parents.lan]\nlink = "eth1"\ntypes = ["routed"]\naddresses = ["0.0.0.0/0"]',
        '[parents.LAN]\nlink = "eth1"\ntypes = ["phys"]',
    ],
)
def test_a_parent_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        policy_file.parse(text)
    assert (caught.value.field or "").startswith("policy.parents.")


def test_ceilings_count_the_project_and_not_the_container_itself() -> None:
    rules = policy_file.parse("[ceilings]\ncontainers = 2")
    one, other = spec(id="a" * 12), spec(id="b" * 12, project="db")
    policy.check(rules, SPEC, [one, other, SPEC])
    with pytest.raises(PolicyDenied) as caught:
        policy.check(rules, SPEC, [one, spec(id="c" * 12)])
    assert caught.value.field == "project"


def test_memory_and_cpu_ceilings_are_sums_and_need_limits() -> None:
    rules = policy_file.parse("[ceilings]\nmemory_bytes = 1000\ncpus = 2")
    half = Limits(memory_bytes=600, cpus=1.0)
    policy.check(rules, spec(limits=half))
    with pytest.raises(PolicyDenied) as caught:
        policy.check(rules, spec(limits=half), [spec(id="a" * 12, limits=half)])
    assert (caught.value.field, caught.value.details["left"]) == ("limits.memory_bytes", 400)
    assert caught.value.message == f"Project {SPEC.project} may have 1000 B in all; 400 B are left."
    with pytest.raises(PolicyDenied, match=r"may have 2 in all; 0\.5 are left"):
        policy.check(rules, spec(limits=half), [spec(id="a" * 12, limits=Limits(memory_bytes=1, cpus=1.5))])
    with pytest.raises(PolicyDenied) as caught:
        policy.check(rules, spec(limits=Limits(memory_bytes=1)))
    assert caught.value.field == "limits.cpus"


def test_a_disk_ceiling_is_a_sum_and_needs_a_limit() -> None:
    rules = policy_file.parse("[ceilings]\ndisk_bytes = 100000000")
    half = Limits(disk_bytes=60_000_000)
    policy.check(rules, spec(limits=half))
    with pytest.raises(PolicyDenied) as caught:
        policy.check(rules, spec(limits=half), [spec(id="a" * 12, limits=half)])
    assert (caught.value.field, caught.value.details["left"]) == ("limits.disk_bytes", 40_000_000)
    assert "95.4 MiB in all; 38.1 MiB are left" in caught.value.message
    with pytest.raises(PolicyDenied) as caught:
        policy.check(rules, SPEC)
    assert caught.value.field == "limits.disk_bytes"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.1.1",
        "169.254.169.254",
        "::1",
        "fd00::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "240.0.0.1",
    ],
)
def test_private_sources_are_refused_unless_named(address: str) -> None:
    with pytest.raises(PolicyDenied):
        policy.check_source(policy.DEFAULT, "images.example.org", ["93.184.216.34", address])
    policy.check_source(
        policy_file.parse('[images]\nsources = ["images.example.org"]'), "Images.example.org.", [address]
    )


def test_public_sources_and_named_subnets_are_fine() -> None:
    policy.check_source(policy.DEFAULT, "images.example.org", ["93.184.216.34", "2606:2800:220:1::1"])
    rules = policy_file.parse('[images]\nsources = ["10.0.0.0/8"]')
    policy.check_source(rules, "mirror", ["10.1.2.3"])
    with pytest.raises(PolicyDenied):
        policy.check_source(rules, "mirror", ["10.1.2.3", "192.168.1.1"])


def test_object_stores_for_backups() -> None:
    store = '[backups.s3.offsite]\nendpoint = "https://s3.example.org:9000"\nbucket = "backups"\nprefix = "one/two/"\n'
    rules = policy_file.parse(f'[backups]\ndirectories = {{nas = "/srv/backups"}}\n{store}').backups
    assert rules.names == ["local", "nas", "offsite"]
    assert rules.s3["offsite"].prefix == "one/two/"


@pytest.mark.parametrize(
    ("field", "table"),
    [
        ("offsite.endpoint", '[backups.s3.offsite]\nbucket = "backups"'),
        ("offsite.endpoint", '[backups.s3.offsite]\nendpoint = "https://a:b@example.org"\nbucket = "backups"'),
        ("offsite.endpoint", '[backups.s3.offsite]\nendpoint = "https://example.org/x"\nbucket = "backups"'),
        ("offsite.endpoint", '[backups.s3.offsite]\nendpoint = "ftp://example.org"\nbucket = "backups"'),
        ("offsite.bucket", '[backups.s3.offsite]\nendpoint = "https://example.org"\nbucket = "../x"'),
        ("offsite.prefix", '[backups.s3.offsite]\nendpoint = "https://example.org"\nbucket = "abc"\nprefix = "x"'),
        ("offsite.prefix", '[backups.s3.offsite]\nendpoint = "https://example.org"\nbucket = "abc"\nprefix = "../"'),
        ("offsite.secret", '[backups.s3.offsite]\nendpoint = "https://example.org"\nbucket = "abc"\nsecret = "x"'),
        ("local", '[backups.s3.local]\nendpoint = "https://example.org"\nbucket = "abc"'),
        ("Offsite", '[backups.s3.Offsite]\nendpoint = "https://example.org"\nbucket = "abc"'),
    ],
)
def test_object_stores_that_are_none(field: str, table: str) -> None:
    with pytest.raises(SpecError) as caught:
        policy_file.parse(table)
    assert caught.value.field == f"policy.backups.s3.{field}"


POOLS = """
[pools.fast]
path = "/srv/fast"
driver = "btrfs"
projects = ["web"]
[pools.boxes]
path = "/srv/boxes"
driver = "loop"
projects = ["*"]
"""


def test_a_pool_is_given_to_projects_and_may_want_a_disk_limit() -> None:
    rules = policy_file.parse(POOLS)
    policy.check(rules, spec(pool="fast"))
    policy.check(rules, spec(pool="boxes", limits=Limits(disk_bytes=1 << 30)))
    for wrong, field in (
        ({"pool": "none"}, "pool"),
        ({"pool": "best"}, "pool"),
        ({"pool": "fast", "project": "other"}, "pool"),
        ({"pool": "boxes"}, "limits.disk_bytes"),
    ):
        with pytest.raises(PolicyDenied) as caught:
            policy.check(rules, spec(**wrong))
        assert caught.value.field == field


def test_the_best_pool_has_subvolumes_then_room_and_no_fixed_sizes() -> None:
    def one(name: str, driver: str, free: int) -> pool_rules.Candidate:
        return pool_rules.Candidate(name=name, driver=driver, total_bytes=1000, free_bytes=free)

    near, far, boxes = one("default", "overlay", 500), one("far", "overlay", 600), one("boxes", "loop", 999)
    assert pool_rules.best([near, boxes]) == "default"
    assert pool_rules.best([near, far, boxes, one("whole", "dir", 900)]) == "far"
    assert pool_rules.best([near, far, boxes, one("fast", "btrfs", 50)]) == "fast"
    assert pool_rules.best([near, far, boxes, one("fast", "btrfs", 49)]) == "far"
