"""LXC's keys as what Boxroom has: each has an outcome, and what comes of it is acceptable here."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.core.errors import SpecError
from containers.core.lxc import finding, reading, source, translating
from containers.core.lxc.draft import Facts, Interface
from containers.core.lxc.translating import Translation, translate
from containers.core.model.attachments import Device, Mount, check_all
from containers.core.model.idmap import IdMap
from containers.core.model.nics import Nic, mac_of_template
from containers.core.model.nics import check_all as check_all_nics
from containers.core.model.security import Security
from containers.core.model.spec import Limits, check_environment, check_init_command
from containers.core.rules.grants import HostDevice, Parent, Share, links_of
from tests import lxc

GIB = 1024**3
GIVEN: dict[str, Any] = {
    "online": "0-3",
    "shares": {
        "media": Share(path="/srv/media", projects=("*",)),
        "others": Share(path="/srv/others", projects=("others",)),
    },
    "devices": {"kvm": HostDevice(path="/dev/kvm", projects=("default",)), "x": HostDevice(path="/dev/x")},
    "nodes": {"c 10:232": "kvm", "c 10:233": "x"},
    "profiles": {"/etc/lxc/tight": "tight"},
    "apparmor": ("lxc-web",),
    "cgroup_files": ("cpu.uclamp.*",),
    "capabilities": ("sys_time",),
    "hooks": {"/etc/lxc/hook": "nas"},
}


def translated(text: str, **facts: Any) -> Translation:
    config = reading.parse("/config", lambda _path: text)
    assert config.problems == ()
    return translate(
        config, Facts(**{"name": "c1", "memory_bytes": 8 * GIB, "cpus": 4, "pids": 30000, **GIVEN, **facts})
    )


@pytest.mark.parametrize(
    ("line", "fate", "values"),
    [
        ("lxc.uts.name = c1", "taken", {}),
        ("lxc.uts.name = other", "translated", {}),
        ("lxc.arch = amd64", "taken", {}),
        ("lxc.arch = i686", "translated", {"security": {"personality": "linux32"}}),
        ("lxc.arch = arm64", "left out", {}),
        ("lxc.init.cmd = /bin/sh -c 'exec x'", "taken", {"init_command": ["/bin/sh", "-c", "exec x"]}),
        ("lxc.init_cmd = /bin/run", "taken", {"init_command": ["/bin/run"]}),
        ("lxc.init.cmd = run", "left out", {}),
        ("lxc.init.cmd = /bin/sh '", "left out", {}),
        ("lxc.environment = A=b=c", "taken", {"environment": {"A": "b=c"}}),
        ("lxc.environment = A", "left out", {}),
        ("lxc.environment = 1A=b", "left out", {}),
        ("lxc.signal.halt = SIGUSR1", "taken", {"halt_signal": "SIGUSR1"}),
        ("lxc.signal.halt = sigrtmin+3", "taken", {"halt_signal": "SIGRTMIN+3"}),
        ("lxc.haltsignal = PWR", "taken", {"halt_signal": "SIGPWR"}),
        ("lxc.signal.halt = SIGNONE", "left out", {}),
        ("lxc.signal.halt = 99", "left out", {}),
        ("lxc.start.auto = 1", "taken", {"autostart": True}),
        ("lxc.start.auto = 2", "left out", {}),
        ("lxc.ephemeral = 1", "taken", {"ephemeral": True}),
        ("lxc.start.order = 5", "taken", {"boot": {"order": 5}}),
        ("lxc.start.order = first", "left out", {}),
        ("lxc.start.delay = 3", "taken", {"boot": {"delay_sec": 3}}),
        ("lxc.start.delay = 99999", "left out", {}),
        ("lxc.group = www", "taken", {"boot": {"groups": ["www"]}}),
        ("lxc.group = On Boot", "left out", {}),
        ("lxc.init.cwd = /srv", "taken", {"init": {"cwd": "/srv"}}),
        ("lxc.init.cwd = srv", "left out", {}),
        ("lxc.init.uid = 1000", "translated", {"init": {"user": "1000"}}),
        ("lxc.init.uid = root", "left out", {}),
        ("lxc.init.gid = 5", "translated", {"init": {"user": "0:5"}}),
        ("lxc.init.groups = 5,7", "taken", {"init": {"groups": [5, 7]}}),
        ("lxc.signal.reboot = SIGTERM", "taken", {"init": {"reboot_signal": "SIGTERM"}}),
        ("lxc.signal.reboot = SIGNONE", "left out", {}),
        ("lxc.signal.stop = SIGTERM", "left out", {}),
        ("lxc.tty.max = 4", "taken", {"console": {"ttys": 4}}),
        ("lxc.tty.max = 40", "left out", {}),
        ("lxc.tty.dir = lxc", "left out", {}),
        ("lxc.console.buffer.size = auto", "translated", {"console": {"buffer_bytes": 131072}}),
        ("lxc.console.size = 64KB", "translated", {"console": {"log_bytes": 65536}}),
        ("lxc.console.size = 0", "left out", {}),
        ("lxc.console.rotate = 1", "translated", {"console": {"rotations": 1}}),
        ("lxc.console.logfile = /var/log/x", "translated", {}),
        ("lxc.console.path = none", "left out", {}),
        ("lxc.cgroup2.memory.max = 512M", "translated", {"limits": {"memory_bytes": 512 * 1024**2}}),
        ("lxc.cgroup.memory.limit_in_bytes = 1g", "translated", {"limits": {"memory_bytes": GIB}}),
        ("lxc.cgroup2.memory.max = max", "taken", {}),
        ("lxc.cgroup.memory.limit_in_bytes = -1", "taken", {}),
        ("lxc.cgroup2.memory.max = 1K", "left out", {}),
        ("lxc.cgroup2.memory.max = 9G", "left out", {}),
        ("lxc.cgroup2.memory.max = lots", "left out", {}),
        ("lxc.cgroup2.memory.high = 1G", "left out", {}),
        ("lxc.cgroup2.cpu.max = 50000 100000", "translated", {"limits": {"cpus": 0.5}}),
        ("lxc.cgroup2.cpu.max = 150000", "translated", {"limits": {"cpus": 1.5}}),
        ("lxc.cgroup2.cpu.max = max 100000", "taken", {}),
        ("lxc.cgroup2.cpu.max = 1 0", "left out", {}),
        ("lxc.cgroup2.pids.max = 100", "translated", {"limits": {"pids": 100}}),
        ("lxc.cgroup2.io.max = 8:0 rbps=1048576 wbps=max", "translated",
         {"limits": {"io_read_bytes_per_sec": 1 << 20}}),
        ("lxc.cgroup2.io.max = 8:0 riops=10", "translated", {"limits": {"io_read_ops_per_sec": 10}}),
        ("lxc.cgroup2.io.max = 8:0 riops=1", "left out", {}),
        ("lxc.cgroup.blkio.throttle.write_iops_device = 8:0 20", "translated",
         {"limits": {"io_write_ops_per_sec": 20}}),
        ("lxc.cgroup2.io.weight = default 300", "translated", {"limits": {"io_weight": 300}}),
        ("lxc.cgroup.blkio.weight = 500", "translated", {"limits": {"io_weight": 500}}),
        ("lxc.cgroup2.hugetlb.2MB.max = 4M", "translated", {"limits": {"hugepages": {"2MB": 4 << 20}}}),
        ("lxc.cgroup2.hugetlb.2MB.max = max", "taken", {}),
        ("lxc.cgroup2.cpu.uclamp.max = 50", "taken", {"limits": {"cgroup": {"cpu.uclamp.max": "50"}}}),
        ("lxc.cgroup2.cgroup.type = threaded", "left out", {}),
        ("lxc.cgroup.blkio.throttle.write_bps_device = 8:0 1048576", "translated",
         {"limits": {"io_write_bytes_per_sec": 1 << 20}}),
        ("lxc.cgroup.dir = x", "left out", {}),
        ("lxc.cgroup2.devices.deny = a", "taken", {}),
        ("lxc.cgroup2.devices.allow = c 1:3 rwm", "taken", {}),
        ("lxc.cgroup2.devices.allow = c 136:* rw", "taken", {}),
        ("lxc.cgroup2.devices.allow = c *:* m", "taken", {}),
        ("lxc.cgroup2.devices.allow = c *:* rwm", "left out", {}),
        ("lxc.cgroup2.devices.allow = b 8:0 r", "left out", {}),
        ("lxc.cgroup2.devices.allow = a", "left out", {}),
        ("lxc.cap.drop = mac_admin sys_time", "taken", {}),
        ("lxc.cap.drop = mac_admin net_raw", "translated", {"security": {"capabilities_drop": ["net_raw"]}}),
        ("lxc.cap.keep = chown sys_module", "translated", {"security": {"capabilities_keep": ["chown"]}}),
        ("lxc.cap.keep = chown sys_time", "translated", {"security": {"capabilities_keep": ["chown", "sys_time"]}}),
        ("lxc.cap.keep = none", "translated", {"security": {"capabilities_keep": []}}),
        ("lxc.sysctl.net.ipv4.ip_forward = 1", "taken", {"security": {"sysctls": {"net.ipv4.ip_forward": "1"}}}),
        ("lxc.sysctl.vm.swappiness = 1", "left out", {}),
        ("lxc.prlimit.nofile = 1024:4096", "taken",
         {"security": {"prlimits": {"nofile": {"soft": 1024, "hard": 4096}}}}),
        ("lxc.limit.core = unlimited", "taken",
         {"security": {"prlimits": {"core": {"soft": "unlimited", "hard": "unlimited"}}}}),
        ("lxc.prlimit.nofile = many", "left out", {}),
        ("lxc.prlimit.wishes = 3", "left out", {}),
        ("lxc.proc.oom_score_adj = 10", "taken", {"security": {"oom_score_adj": 10}}),
        ("lxc.proc.oom_score_adj = -10", "left out", {}),
        ("lxc.proc.setgroups = deny", "left out", {}),
        ("lxc.no_new_privs = 1", "taken", {"security": {"no_new_privs": True}}),
        ("lxc.no_new_privs = 0", "taken", {}),
        ("lxc.apparmor.profile = generated", "taken", {"security": {"apparmor": "generated"}}),
        ("lxc.apparmor.profile = lxc-container-default-cgns", "translated", {}),
        ("lxc.apparmor.profile = unconfined", "taken", {}),
        ("lxc.apparmor.allow_nesting = 1", "left out", {}),
        ("lxc.mount.auto = cgroup:mixed proc:mixed sys:ro", "translated", {}),
        ("lxc.mount.auto = shmounts:/x", "left out", {}),
        ("lxc.mount.entry = shm dev/shm tmpfs defaults 0 0", "taken", {}),
        ("lxc.mount.entry = /srv srv none bind 0 0", "left out", {}),
        ("lxc.mount.entry = /srv/media/tv srv/tv none bind,ro,create=dir 0 0", "translated",
         {"mounts": [{"share": "media", "subpath": "tv", "target": "/srv/tv", "read_only": True, "create": True,
                      "optional": False, "propagation": "private"}]}),
        ("lxc.mount.entry = /srv/media /a\\040b none rbind,optional 0 0", "translated",
         {"mounts": [{"share": "media", "subpath": "", "target": "/a b", "read_only": False, "create": False,
                      "optional": True, "propagation": "private"}]}),
        ("lxc.mount.entry = /srv/media/../x srv none bind 0 0", "left out", {}),
        ("lxc.mount.entry = /srv/media proc/x none bind 0 0", "left out", {}),
        ("lxc.mount.entry = /srv/others srv none bind 0 0", "left out", {}),
        ("lxc.mount.entry = /srv/media srv ext4 defaults 0 0", "left out", {}),
        ("lxc.mount.entry = /srv/media srv none bind,relative 0 0", "left out", {}),
        ("lxc.mount.entry = srv/media srv none bind 0 0", "left out", {}),
        ("lxc.mount.entry = /dev/kvm dev/kvm none bind,create=file 0 0", "translated",
         {"devices": [{"device": "kvm", "path": ""}]}),
        ("lxc.mount.entry = /dev/kvm dev/other none bind,create=file 0 0", "translated",
         {"devices": [{"device": "kvm", "path": "/dev/other"}]}),
        ("lxc.mount.entry = /dev/kvm srv/kvm none bind,create=file 0 0", "left out", {}),
        ("lxc.cgroup2.devices.allow = c 10:232 rwm", "translated", {"devices": [{"device": "kvm", "path": ""}]}),
        ("lxc.cgroup2.devices.allow = c 10:233 rwm", "left out", {}),
        ("lxc.cgroup2.cpu.weight = 50", "translated", {"limits": {"cpu_weight": 50}}),
        ("lxc.cgroup.cpu.shares = 512", "translated", {"limits": {"cpu_weight": 50}}),
        ("lxc.cgroup.cpu.shares = 2", "translated", {"limits": {"cpu_weight": 1}}),
        ("lxc.cgroup.cpuset.cpus = 0-1,3", "translated", {"limits": {"cpuset": "0-1,3"}}),
        ("lxc.cgroup.cpuset.cpus = 0-9", "left out", {}),
        ("lxc.cgroup.cpuset.cpus = all", "left out", {}),
        ("lxc.cgroup2.memory.swap.max = 1G", "left out", {}),
        ("lxc.mount.entry = /sys/fs/fuse/connections sys/fs/fuse/connections none bind,optional 0 0", "left out", {}),
        ("lxc.rootfs.path = dir:/r", "translated", {}),
        ("lxc.hook.start = /x --now", "translated", {"hooks": [{"point": "start", "command": ["/x", "--now"]}]}),
        ("lxc.hook.pre-start = /etc/lxc/hook", "translated", {"hooks": [{"point": "pre-start", "hook": "nas"}]}),
        ("lxc.hook.pre-start = /etc/lxc/hook with words", "left out", {}),
        ("lxc.hook.mount = /usr/share/lxcfs/lxc.mount.hook", "translated", {}),
        ("lxc.hook.post-stop = /usr/share/lxcfs/lxc.reboot.hook", "translated", {}),
        ("lxc.hook.stop = /etc/lxc/other", "left out", {}),
        ("lxc.hook.stop = /etc/lxc/hook 'as", "left out", {}),
        ("lxc.hook.start = x", "left out", {}),
        ("lxc.hook.version = 1", "translated", {}),
        ("lxc.time.offset.boot = 1h", "taken", {"security": {"clock_offsets": {"boottime": 3600.0}}}),
        ("lxc.time.offset.monotonic = -250ms", "taken", {"security": {"clock_offsets": {"monotonic": -0.25}}}),
        ("lxc.time.offset.boot = 1d", "left out", {}),
        ("lxc.time.offset.real = 1s", "left out", {}),
        ("lxc.keyring.session = 1", "taken", {}),
        ("lxc.keyring.session = 0", "left out", {}),
        ("lxc.seccomp.profile = /usr/share/lxc/config/common.seccomp", "translated", {}),
        ("lxc.seccomp.profile = /etc/lxc/tight", "translated", {"security": {"seccomp": "tight"}}),
        ("lxc.seccomp.profile = /etc/lxc/other", "left out", {}),
        ("lxc.apparmor.profile = lxc-web", "taken", {"security": {"apparmor": "lxc-web"}}),
        ("lxc.apparmor.profile = lxc-other", "left out", {}),
        ("lxc.never.heard = 1", "left out", {}),
    ],
)  # fmt: skip
def test_each_key_has_its_outcome(line: str, fate: str, values: dict[str, Any]) -> None:
    found = translated(line)
    (outcome,) = found.outcomes
    assert (outcome.told.fate, outcome.told.words) == (fate, outcome.told.words)
    assert found.values == {"privileged": False, **values}


@pytest.mark.parametrize(
    ("options", "mount", "words"),
    [
        (
            "bind,noexec,nosymfollow,create=dir",
            {"share": "media"},
            "the share media, at /m; without noexec, nosymfollow",
        ),
        ("bind,nosuid,nodev,rw,defaults,idmap=container", {"share": "media"}, "the share media, at /m"),
        ("rbind", {"share": "media"}, "the share media, at /m; without rbind"),
        ("bind,ro,rslave", {"share": "moving", "read_only": True}, "the share moving, at /m; without rslave"),
        ("bind,rslave", {"share": "moving", "propagation": "slave"}, "the share moving, at /m"),
        ("rbind", {"share": "moving", "propagation": "slave"}, "the share moving, at /m"),
        ("bind", {"share": "kept"}, "the share kept, at /m, read-only as the policy has it"),
    ],
)
def test_no_option_of_a_mount_goes_without_a_word(options: str, mount: dict[str, Any], words: str) -> None:
    shares = {
        "media": Share(path="/srv/media", projects=("*",)),
        "moving": Share(path="/srv/moving", projects=("*",), submounts=True),
        "kept": Share(path="/srv/kept", projects=("*",), read_only=True),
    }
    found = translated(f"lxc.mount.entry = /srv/{mount['share']} m none {options} 0 0", shares=shares)
    assert found.outcomes[0].told.words == words
    told = dataclasses.asdict(Mount(target="/m", **mount))
    assert found.values["mounts"] == [{**told, "create": "create" in options}]


def test_of_several_shares_and_devices_the_one_is_taken_that_may_be_had() -> None:
    """The policy may give one directory to several projects, under several names, and what is below it under others."""
    shares = {
        "all": Share(path="/srv", projects=("others",)),
        "theirs": Share(path="/srv/media", projects=("others",)),
        "read": Share(path="/srv/media", projects=("default",), read_only=True),
        "write": Share(path="/srv/media", projects=("default",)),
        "tv": Share(path="/srv/media/tv", projects=("default",)),
    }
    devices = {
        "a": HostDevice(path="/dev/kvm", projects=("others",)),
        "b": HostDevice(path="/dev/kvm", projects=("default",)),
    }
    text = "\n".join(
        f"lxc.mount.entry = {line} 0 0"
        for line in (
            "/srv/media a none bind",
            "/srv/media/films b none bind,ro",
            "/srv/media/tv/x c none bind",
            "/srv d none bind",
            "/dev/kvm dev/kvm none bind",
        )
    )
    found = translated(text, shares=shares, devices=devices)
    assert [(one["share"], one["subpath"]) for one in found.values["mounts"]] == [
        ("write", ""),
        ("read", "films"),
        ("tv", "x"),
    ]
    assert [one["device"] for one in found.values["devices"]] == ["b"]
    assert [one.told.words for one in found.outcomes if one.told.fate == "left out"] == [
        "the policy does not give the share all to project default"
    ]


def test_a_target_may_begin_with_the_root_file_system() -> None:
    found = translated("lxc.rootfs.path = dir:/l/c1/rootfs\nlxc.mount.entry = /srv/media /l/c1/rootfs/m none bind 0 0")
    assert found.values["mounts"][0]["target"] == "/m"


def test_what_cannot_be_asked_for_is_left_out() -> None:
    found = translated("lxc.no_new_privs = 1\nlxc.start.auto = 1", fields=frozenset({"autostart", "privileged"}))
    assert [outcome.told.fate for outcome in found.outcomes] == ["left out", "taken"]
    assert "security" in found.outcomes[0].told.words
    assert found.values == {"autostart": True, "privileged": False}


def test_a_quota_of_v1_needs_its_period() -> None:
    found = translated("lxc.cgroup.cpu.cfs_period_us = 50000\nlxc.cgroup.cpu.cfs_quota_us = 100000")
    assert found.values["limits"] == {"cpus": 2.0}
    assert translated("lxc.cgroup.cpu.cfs_period_us = 50000").outcomes[0].told.fate == "taken"


@pytest.mark.parametrize(
    ("lines", "swap"),
    [
        ("lxc.cgroup2.memory.max = 1G\nlxc.cgroup2.memory.swap.max = 512M", GIB // 2),
        ("lxc.cgroup2.memory.swap.max = 0\nlxc.cgroup2.memory.max = 1G", 0),
        ("lxc.cgroup.memory.limit_in_bytes = 1G\nlxc.cgroup.memory.memsw.limit_in_bytes = 3G", 2 * GIB),
        ("lxc.cgroup.memory.memsw.limit_in_bytes = 1G\nlxc.cgroup.memory.limit_in_bytes = 1G", 0),
        ("lxc.cgroup2.memory.max = 1G\nlxc.cgroup2.memory.swap.max = max", None),
        ("lxc.cgroup2.memory.max = 999G\nlxc.cgroup2.memory.swap.max = 1G", None),
    ],
)
def test_swap_is_beside_memory(lines: str, swap: int | None) -> None:
    assert translated(lines).values.get("limits", {}).get("swap_bytes") == swap


def test_every_veth_is_taken_and_what_the_policy_does_not_give_is_not() -> None:
    found = translated(
        "lxc.net.0.type = empty\nlxc.net.2.type = veth\nlxc.net.2.link = lxcbr0\nlxc.net.2.flags = up\n"
        "lxc.net.2.name = lan0\nlxc.net.2.hwaddr = 10:66:6A:01:02:03\nlxc.net.2.ipv4.address = 10.0.3.9/24\n"
        "lxc.net.2.mtu = 1400\nlxc.net.2.script.up = /bin/true\n"
        "lxc.net.5.type = veth\nlxc.net.5.name = lan0\nlxc.net.6.type = phys\nlxc.net.7.type = none"
    )
    assert found.interface == Interface(name="lan0", mac="10:66:6a:01:02:03")
    assert found.nics == (
        {"type": "bridge", "network": "default", "name": "lan0", "mac": "10:66:6a:01:02:03", "mtu": 1400},
        {"type": "bridge", "network": "default"},
    )
    fates = {f"{o.entry.key}": o.told.fate for o in found.outcomes}
    assert fates == {
        "lxc.net.0.type": "taken",
        "lxc.net.2.type": "translated",
        "lxc.net.2.link": "translated",
        "lxc.net.2.flags": "taken",
        "lxc.net.2.name": "taken",
        "lxc.net.2.hwaddr": "taken",
        "lxc.net.2.ipv4.address": "left out",
        "lxc.net.2.mtu": "taken",
        "lxc.net.2.script.up": "left out",
        "lxc.net.5.type": "translated",
        "lxc.net.5.name": "left out",
        "lxc.net.6.type": "left out",
        "lxc.net.7.type": "taken",
    }


LAN = Parent(
    link="enp3s0",
    projects=("default",),
    types=("macvlan", "vlan", "phys", "routed"),
    vlans=("10",),
    addresses=("192.0.2.0/24", "2001:db8::/64"),
)
TAGGED = Parent(link="enp3s0", projects=("default",), types=("vlan",), vlans=("20-29",))


@pytest.mark.parametrize(
    ("lines", "nic"),
    [
        (
            ("macvlan\nlxc.net.0.link = enp3s0\nlxc.net.0.macvlan.mode = bridge\nlxc.net.0.hwaddr = 02:00:00:xx:xx:xx\n"
            "lxc.net.0.ipv4.address = 192.0.2.7/24 192.0.2.255\nlxc.net.0.ipv4.gateway = 192.0.2.1"),
            {"type": "macvlan", "parent": "lan", "mode": "bridge", "mac": "02:00:00:xx:xx:xx",
             "ipv4": "192.0.2.7/24", "ipv4_gateway": "192.0.2.1"},
        ),
        ("vlan\nlxc.net.0.link = enp3s0\nlxc.net.0.vlan.id = 10", {"type": "vlan", "parent": "lan", "vlan": 10}),
        ("vlan\nlxc.net.0.link = enp3s0\nlxc.net.0.vlan.id = 22", {"type": "vlan", "parent": "tagged", "vlan": 22}),
        ("phys\nlxc.net.0.link = enp3s0\nlxc.net.0.name = eth1", {"type": "phys", "parent": "lan", "name": "eth1"}),
        (
            ("veth\nlxc.net.0.veth.mode = router\nlxc.net.0.link = enp3s0\nlxc.net.0.l2proxy = 1\n"
            "lxc.net.0.ipv4.address = 192.0.2.7\nlxc.net.0.ipv4.gateway = 192.0.2.1\n"
            "lxc.net.0.veth.ipv4.route = 192.0.2.64/28"),
            {"type": "routed", "parent": "lan", "ipv4": "192.0.2.7/32", "ipv4_gateway": "192.0.2.1",
             "routes": ["192.0.2.64/28"]},
        ),
        ("veth\nlxc.net.0.veth.mode = router", {"type": "routed", "ipv4": "auto"}),
        ("none", {"type": "host"}),
    ],
)  # fmt: skip
def test_an_interface_becomes_one_of_the_same_type(lines: str, nic: dict[str, Any]) -> None:
    found = translated(f"lxc.net.0.type = {lines}", parents={"lan": LAN, "tagged": TAGGED}, host_network=True)
    assert found.nics == (nic,)
    assert [o.entry.key for o in found.outcomes if o.told.fate == "left out"] == []


@pytest.mark.parametrize(
    ("lines", "nics"),
    [("lxc.net.0.type = empty", ()), ("lxc.net.0.type = ipvlan\nlxc.net.0.link = enp3s0", None), ("", None)],
)
def test_without_an_interface_there_is_none_and_without_a_word_there_is_the_usual_one(
    lines: str, nics: tuple[Any, ...] | None
) -> None:
    assert translated(lines, parents={"lan": LAN}).nics == nics


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "00:00:00:00:00:00", "nonsense"])
def test_what_is_no_mac_of_one_interface_is_not_taken(mac: str) -> None:
    found = translated(f"lxc.net.0.type = veth\nlxc.net.0.hwaddr = {mac}")
    assert found.interface == Interface()
    assert found.outcomes[1].told.fate == "left out"


@pytest.mark.parametrize(("key", "version"), [("cgroup", 1), ("cgroup2", 2)])
def test_a_file_of_the_other_cgroup_version_is_left_out(key: str, version: int) -> None:
    """No start could write it; LXC ignores it."""
    for here, fate in ((version, "taken"), (3 - version, "left out"), (None, "taken")):
        found = translated(f"lxc.{key}.cpu.uclamp.min = 20", cgroup_version=here)
        assert [o.told.fate for o in found.outcomes] == [fate]
        assert found.values.get("limits") == (None if fate == "left out" else {"cgroup": {"cpu.uclamp.min": "20"}})


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("phys\nlxc.net.0.link = enp3s0\nlxc.net.1.type = phys\nlxc.net.1.link = enp3s0", "lxc.net.1.type"),
        ("phys\nlxc.net.0.link = enp3s0\nlxc.net.1.type = macvlan\nlxc.net.1.link = enp3s0", "lxc.net.1.type"),
        ("vlan\nlxc.net.0.link = enp3s0", "lxc.net.0.type"),
        ("vlan\nlxc.net.0.link = enp3s0\nlxc.net.0.vlan.id = 4095", "lxc.net.0.type"),
        ("vlan\nlxc.net.0.link = enp3s0\nlxc.net.0.vlan.id = 11", "lxc.net.0.type"),
        (
            "veth\nlxc.net.0.hwaddr = 02:00:00:00:00:0A\nlxc.net.1.type = veth\nlxc.net.1.hwaddr = 02:00:00:00:00:0a",
            "lxc.net.1.hwaddr",
        ),
        ("veth\nlxc.net.0.mtu = 1000", "lxc.net.0.mtu"),
    ],
)
def test_what_no_container_could_have_is_left_out_and_the_rest_is_taken(lines: str, key: str) -> None:
    """The whole import would be refused for it otherwise."""
    found = translated(f"lxc.net.0.type = {lines}\nlxc.ephemeral = 1", parents={"lan": LAN}, network_ipv6=True)
    left = [o.entry.key for o in found.outcomes if o.told.fate == "left out"]
    assert left[0] == key
    assert all(name.startswith(key.removesuffix("type")) for name in left)
    assert found.values["ephemeral"] is True


ROUTED = "veth\nlxc.net.0.veth.mode = router\nlxc.net.0."


@pytest.mark.parametrize(
    ("lines", "left", "nic"),
    [
        (f"{ROUTED}ipv4.address = 198.51.100.7", "lxc.net.0.ipv4.address", {"type": "routed", "ipv4": "auto"}),
        (f"{ROUTED}ipv4.address = 192.0.2.9/24", "lxc.net.0.ipv4.address", {"type": "routed", "ipv4": "auto"}),
        (f"{ROUTED}ipv6.address = 2001:DB8:0::9", "lxc.net.0.ipv6.address", {"type": "routed", "ipv4": "auto"}),
        (f"{ROUTED}veth.ipv4.route = 192.0.0.0/16", "lxc.net.0.veth.ipv4.route", {"type": "routed", "ipv4": "auto"}),
        (f"{ROUTED}veth.ipv4.route = 192.0.2.1/24", "lxc.net.0.veth.ipv4.route", {"type": "routed", "ipv4": "auto"}),
        (
            f"{ROUTED}ipv6.address = 2001:db8::7\nlxc.net.0.ipv6.gateway = dev",
            "lxc.net.0.ipv6.gateway",
            {"type": "routed", "ipv6": "2001:db8::7/128"},
        ),
        (
            f"{ROUTED}mtu = 1000\nlxc.net.0.ipv6.address = 2001:db8::7",
            "lxc.net.0.ipv6.address",
            {"type": "routed", "ipv4": "auto", "mtu": 1000},
        ),
        (
            f"{ROUTED}ipv6.address = 2001:db8::7\nlxc.net.0.mtu = 1000",
            "lxc.net.0.mtu",
            {"type": "routed", "ipv6": "2001:db8::7/128"},
        ),
        (
            "macvlan\nlxc.net.0.link = enp3s0\nlxc.net.0.ipv4.gateway = auto",
            "lxc.net.0.ipv4.gateway",
            {"type": "macvlan", "parent": "lan", "mode": "private"},
        ),
        (
            "veth\nlxc.net.0.hwaddr = 02:00:00:00:00:0A",
            "lxc.net.0.hwaddr",
            {"type": "bridge", "network": "default"},
        ),
        ("none\nlxc.net.0.hwaddr = 02:00:00:00:00:0b", "lxc.net.0.hwaddr", {"type": "host"}),
        ("none\nlxc.net.0.ipv4.address = 192.0.2.7/24", "lxc.net.0.ipv4.address", {"type": "host"}),
        ("none\nlxc.sysctl.net.ipv4.ip_forward = 1", "lxc.sysctl.net.ipv4.ip_forward", {"type": "host"}),
    ],
)
def test_what_the_plan_of_interfaces_would_refuse_is_left_out_by_itself(
    lines: str, left: str, nic: dict[str, Any]
) -> None:
    found = translated(
        f"lxc.net.0.type = {lines}",
        parents={"lan": LAN},
        host_network=True,
        macs={"02:00:00:00:00:0a"},
        addresses={"192.0.2.9", "2001:db8::9"},
    )
    assert [o.entry.key for o in found.outcomes if o.told.fate == "left out"] == [left]
    assert found.nics == (nic,)


def test_two_interfaces_have_two_routed_addresses() -> None:
    keys = "type = veth\nlxc.net.{0}.veth.mode = router\nlxc.net.{0}.ipv6.address = 2001:db8::7"
    found = translated("\n".join(f"lxc.net.{n}.{keys.format(n)}" for n in range(2)), parents={"lan": LAN})
    assert [nic.get("ipv6") for nic in found.nics or ()] == ["2001:db8::7/128", None]


def test_more_routes_than_there_can_be_are_left_out() -> None:
    lines = "\n".join(f"lxc.net.0.veth.ipv4.route = 192.0.2.{n}/32" for n in range(33))
    found = translated(f"lxc.net.0.type = veth\nlxc.net.0.veth.mode = router\n{lines}", parents={"lan": LAN})
    assert len((found.nics or ())[0]["routes"]) == 32
    assert [o.entry.value for o in found.outcomes if o.told.fate == "left out"] == ["192.0.2.32/32"]


@pytest.mark.parametrize(
    ("addresses", "nics"),
    [((), None), (("2001:db8::/64",), ({"type": "routed", "ipv6": "auto"},))],
)
def test_a_routed_interface_gets_an_address_of_those_that_there_are(
    addresses: tuple[str, ...], nics: tuple[Any, ...] | None
) -> None:
    parents = {"lan": Parent(link="enp3s0", projects=("*",), types=("routed",), addresses=addresses)}
    assert translated("lxc.net.0.type = veth\nlxc.net.0.veth.mode = router", parents=parents).nics == nics


def test_templates_of_mac_addresses_may_be_alike() -> None:
    lines = "\n".join(f"lxc.net.{n}.type = veth\nlxc.net.{n}.hwaddr = 00:16:3e:xx:xx:xx" for n in range(2))
    assert [nic["mac"] for nic in translated(lines).nics or ()] == ["00:16:3e:xx:xx:xx"] * 2


def test_more_interfaces_than_there_can_be_are_left_out() -> None:
    found = translated("\n".join(f"lxc.net.{number}.type = veth\nlxc.net.{number}.flags = up" for number in range(18)))
    assert len(found.nics or ()) == 16
    fates = {o.entry.key: o.told.fate for o in found.outcomes}
    assert (fates["lxc.net.15.type"], fates["lxc.net.16.type"]) == ("translated", "left out")
    assert fates["lxc.net.17.flags"] == "left out"


@pytest.mark.parametrize(
    ("kinds", "types"),
    [
        ("none", ["host"]),
        ("none none", ["host"]),
        ("none veth", ["bridge"]),
        ("veth none", ["bridge"]),
        ("none empty", []),
    ],
)
def test_the_hosts_network_is_that_of_a_container_without_any_other_interface(kinds: str, types: list[str]) -> None:
    """As LXC has it: see lxc_requests_empty_network in its start.c."""
    lines = "\n".join(f"lxc.net.{number}.type = {kind}" for number, kind in enumerate(kinds.split()))
    found = translated(lines, host_network=True)
    assert [nic["type"] for nic in found.nics or ()] == types
    assert found.nics is not None


def test_id_maps() -> None:
    found = translated("lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 200000 70000\nlxc.id_map = b 70000 5 6")
    assert found.uids == (IdMap(0, 100000, 65536),)
    assert found.gids == (IdMap(0, 200000, 65536),)
    assert [outcome.told.fate for outcome in found.outcomes] == ["translated", "translated", "left out"]
    holes = translated("lxc.idmap = b 0 100000 1000\nlxc.idmap = b 1000 1000 1\nlxc.idmap = b 1001 101001 64535")
    assert source.reversed_map(holes.uids) == "100000 0 1000\n1000 1000 1\n101001 1001 64535\n"
    with pytest.raises(SpecError, match="share"):
        source.reversed_map((IdMap(0, 1000, 10), IdMap(20, 1005, 10)))
    with pytest.raises(SpecError, match="share"):
        source.reversed_map((IdMap(0, 1000, 10), IdMap(5, 3000, 10)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/var/lib/lxc/a/rootfs", ("/var/lib/lxc/a/rootfs",)),
        ("dir:/a/../b/", ("/b",)),
        ("btrfs:/a", ("/a",)),
        ("overlay:/low:/up", ("/low", "/up")),
        ("overlayfs:/low:/up", ("/low", "/up")),
        ("overlay:dir:/low:/up", ("/low", "/up")),
        ("overlay:/middle:/low:/up", ("/low", "/middle", "/up")),
    ],
)
def test_root_file_systems(text: str, expected: tuple[str, ...]) -> None:
    assert source.layers(text) == expected


@pytest.mark.parametrize(
    "text", [None, "", "loop:/a", "zfs:tank/a", "lvm:/dev/x", "dir:a", "/", "dir:/", "overlay:/a:/", "a"]
)
def test_root_file_systems_that_are_no_directories_come_with_advice(text: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        source.layers(text)
    assert caught.value.field == "rootfs"


def test_the_kind_of_a_root_file_system_of_old() -> None:
    def written(text: str) -> str | None:
        return source.written(reading.parse("/config", lambda _path: text))

    assert written("lxc.rootfs = /a:/b\nlxc.rootfs.backend = overlayfs") == "overlayfs:/a:/b"
    assert written("lxc.rootfs = /a\nlxc.rootfs.backend = zfs") == "/a"
    assert written("lxc.rootfs.path = overlay:/a:/b\nlxc.rootfs.backend = overlay") == "overlay:/a:/b"
    assert written("lxc.arch = x") is None


def test_a_source_comes_back_from_json() -> None:
    made = source.Source(path="/l", name="c", layers=("/a", "/b"), uids=(IdMap(0, 5, 6),), move=True)
    assert source.Source.from_dict(made.as_dict()) == made
    assert made.directory == "/l/c"


@pytest.mark.parametrize(
    ("name", "expected"), [("web-1", "web-1"), ("Web_1.local", "web-1-local"), ("_", ""), ("a" * 70, "a" * 63)]
)
def test_suggested_names(name: str, expected: str) -> None:
    assert translating.suggested_name(name) == expected


def test_the_address_of_a_monitor() -> None:
    assert finding.command_socket("/var/lib/lxc", "c1") == "\0/var/lib/lxc/c1/command"
    # the known answers of FNV-1a (RFC 9923)
    assert finding._fnv1a_64(b"a") == 0xAF63DC4C8601EC8C
    assert finding._fnv1a_64(b"foobar") == 0x85944171F73967E8
    path = "/" + "p" * 200
    assert finding.command_socket(path, "c1") == f"\0lxc/{finding._fnv1a_64(f'{path}/c1'.encode()):016x}/command"


KEYS = [*translating._KEYS, *(f"{prefix}0.x" for prefix, _function in translating._PREFIXES), "lxc.net.0.type",
        "lxc.net.0.hwaddr", "lxc.net.0.name", "lxc.cgroup2.memory.max", "lxc.cgroup2.io.max", "lxc.cgroup2.cpu.max",
        "lxc.cgroup2.devices.allow", "lxc.cgroup.cpu.cfs_quota_us", "lxc.cgroup.cpu.cfs_period_us",
        "lxc.prlimit.nofile", "lxc.sysctl.net.x", "lxc.cgroup2.pids.max"]  # fmt: skip
VALUE = st.one_of(
    st.sampled_from(
        ["0", "1", "veth", "max", "100 0", "-1", "8:0 rbps=9M", "c 1:3 rwm", "u 0 1 2", "g 0 9 70000", "A=b"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30),
)


@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUE), max_size=20))
def test_every_setting_has_one_outcome_and_what_comes_of_it_is_acceptable(content: list[tuple[str, str]]) -> None:
    config = reading.parse("/config", lambda _path: "\n".join(f"{key} = {value}" for key, value in content))
    found = translate(config, Facts(name="c1", memory_bytes=8 * GIB, cpus=4, pids=30000, **GIVEN))
    assert [outcome.entry for outcome in found.outcomes] == list(config.entries)
    assert all(outcome.told.words and not outcome.told.words.endswith(".") for outcome in found.outcomes)
    limits = Limits(**found.values.get("limits", {}))
    limits.check_types()
    limits.check(host_memory_bytes=8 * GIB, host_cpus=4, host_pids=30000, host_online="0-3")
    mounts, devices = found.values.get("mounts", ()), found.values.get("devices", ())
    check_all([Mount(**one) for one in mounts], [Device(**one) for one in devices])
    Security.from_dict(found.values.get("security", {})).check(privileged=False)
    check_environment(found.values.get("environment", {}))
    if command := found.values.get("init_command"):
        check_init_command(tuple(command))


NET = {
    "veth.mode": ["router", "router", "bridge", "x"],
    "link": ["enp3s0", "lxcbr0"],
    "vlan.id": ["10", "11", "25", "4095", "x"],
    "name": ["eth0", "eth1", "lan0", "lo", "eth0123456789abcdef"],
    "hwaddr": ["02:00:00:00:00:0a", "02:00:00:00:00:0b", "00:16:3e:xx:xx:xx", "01:00:5e:00:00:01"],
    "mtu": ["1000", "1280", "9000", "1", "x"],
    "macvlan.mode": ["bridge", "passthru", "x"],
    "ipvlan.mode": ["l3", "l2", "x"],
    "ipv4.address": ["192.0.2.7", "192.0.2.8/24", "192.0.2.9", "198.51.100.7/24", "127.0.0.1/8", "x"],
    "ipv6.address": ["2001:db8::7/64", "2001:DB8:0::9", "2001:db8:1::7/64", "x"],
    "ipv4.gateway": ["192.0.2.1", "auto", "dev", "x"],
    "ipv6.gateway": ["2001:db8::1", "auto", "dev", "x"],
    "veth.ipv4.route": ["192.0.2.64/28", "192.0.2.65/28", "192.0.0.0/16", "0.0.0.0/0", "x"],
    "veth.ipv6.route": ["2001:db8::/80", "2001:db8::/48", "x"],
}
KINDS = ["veth", "macvlan", "ipvlan", "vlan", "phys", "none", "empty", "bond"]
INTERFACE = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS)}, optional={key: st.sampled_from(values) for key, values in NET.items()}
)


def as_planned(number: int, one: dict[str, Any], names: list[str]) -> Nic:
    """Return an interface as asking.nics makes it; what is chosen there is some value that may be chosen."""
    known = {key: value for key, value in one.items() if key not in ("mac", "name", "routes")}
    known |= {key: f"{text}/32" for key, text in (("ipv4", "192.0.2.250"),) if one.get(key) == "auto"}
    mac = mac_of_template(one["mac"], f"{number:x}" * 12) if one.get("mac") else f"02:00:00:00:01:{number:02x}"
    if not one.get("mac") and one["type"] not in ("bridge", "routed", "macvlan"):
        mac = ""
    if one["type"] == "bridge":
        known |= {"bridge": "br0", "ipv6": "fd00::7/64"}
    return Nic(
        index=number,
        name=one.get("name") or next(name for name in map("eth{}".format, range(17)) if name not in names),
        mac=mac,
        host_link=f"vb{number}" if one["type"] in ("bridge", "routed") else "",
        routes=tuple(one.get("routes", ())),
        **known,
    )


@given(st.lists(INTERFACE, max_size=4))
def test_whatever_interfaces_there_are_nothing_of_the_host_or_its_policy_speaks_against_what_comes_of_them(
    interfaces: list[dict[str, str]],
) -> None:
    lines = [f"lxc.net.{n}.{key} = {value}" for n, one in enumerate(interfaces) for key, value in one.items()]
    parents = {"lan": LAN, "tagged": TAGGED}
    found = translated(
        "\n".join([*lines, "lxc.sysctl.net.ipv4.ip_forward = 1"]),
        parents=parents,
        host_network=True,
        network_ipv6=True,
        macs={"02:00:00:00:00:0a"},
        addresses={"192.0.2.9", "2001:db8::9"},
    )
    made: list[Nic] = []
    named = [one["name"] for one in found.nics or () if one.get("name")]
    for number, one in enumerate(found.nics or ()):
        made.append(as_planned(number, one, [*named, *(nic.name for nic in made)]))
    check_all_nics(made, sysctls=tuple(found.values.get("security", {}).get("sysctls", ())))
    links_of(parents, "default", made)
    addresses = [nic.ipv4 for nic in made if nic.type == "routed"] + [nic.ipv6 for nic in made if nic.type == "routed"]
    assert not {"192.0.2.9/32", "2001:DB8:0::9/128"} & set(addresses)
    assert "02:00:00:00:00:0a" not in {nic.mac for nic in made}


@pytest.mark.lxc("What Debian's lxc gives its containers to include is read whole")
@pytest.mark.parametrize("name", ["common.conf", "userns.conf", "nesting.conf"])
def test_what_debian_gives_its_containers_is_read_without_a_problem(name: str) -> None:
    root = str(lxc.unpacked())

    def read(path: str) -> str | tuple[str, ...]:
        return finding.read(path if path.startswith(root) else root + path)

    config = reading.parse(f"/usr/share/lxc/config/{name}", read)
    assert [problem for problem in config.problems if "userns.conf.d" not in problem.what] == []
    found = translate(config, Facts(name="c1"))
    assert not [o for o in found.outcomes if "unknown" in o.told.words]
