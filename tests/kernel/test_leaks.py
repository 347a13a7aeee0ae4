"""Leaks made on purpose, one of each kind: found, taken away, and nothing else touched."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.core.cgroups import detect
from containers.core.host import Host
from containers.core.hoststore import claims, store
from containers.core.kernel import syscalls
from containers.core.lifecycle import leaks, runs, stored
from containers.core.model import subnets
from containers.core.model.network_config import NetworkConfig
from containers.core.model.spec import Limits, Spec
from containers.core.network import dnsmasq, networks, nft

from .netns import Place, run, set_netns
from .patience import patient, wait_until

CONFIG = NetworkConfig(name="default", number=0, ipv4="10.90.3.1/24", ipv6="fd00:1:2:3::1/64")


@pytest.fixture
def host() -> Iterator[Host]:
    """An instance of its own, whose links and filters are in a scratch network namespace."""
    own_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    state = Path(tempfile.mkdtemp(prefix="boxroom-leaks-"))
    made = Host(state, "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(5)))
    for path in (made.supervisor_dir(), made.locks_dir, made.stats_dir):
        path.mkdir(parents=True)
    store.prepare(made)
    place = Place()
    set_netns(place.netns_fd)
    try:
        networks.ensure_all(made, [CONFIG], [])
        yield made
        networks.remove_all(made)
    finally:
        set_netns(own_fd)
        os.close(own_fd)
        place.close()
        # not by a walk of all cgroups: those of other tests come and go
        mounts = detect.parse_mounts(Path("/proc/self/mountinfo").read_text())
        places = {base / made.cgroup_name for base in (*mounts.v1, mounts.v2) if base is not None}
        for root in filter(Path.exists, places):
            for path in sorted(root.rglob("*/"), reverse=True):
                path.rmdir()
            root.rmdir()
        claims.release(made)
        shutil.rmtree(made.run_dir)
        shutil.rmtree(state)


def container(host: Host) -> Spec:
    identity = secrets.token_hex(6)
    return Spec(
        id=identity,
        name="box",
        project="default",
        slot=5,
        image="busybox",
        layers=(),
        machine_id="0" * 32,
        created_at="2026-11-21T00:00:00+00:00",
        nics=(subnets.plan_nic(host, CONFIG, container_id=identity, slot=5, taken=[]),),
    )


def kinds(host: Host) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for leak in leaks.find(host, [CONFIG]):
        found.setdefault(leak.kind, []).append(leak.name)
    return found


def mended(host: Host, kind: str) -> None:
    """One repair takes everything of the kind away; the second finds nothing."""
    assert set(kinds(host)) == {kind}
    assert leaks.repair(host, leaks.find(host, [CONFIG]), [CONFIG]) == []
    wait_until(lambda: leaks.find(host, [CONFIG]) == [])


@contextlib.contextmanager
def process(code: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd="/", **options)  # type: ignore[call-overload]
    try:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_fresh_instance_has_no_leaks(host: Host) -> None:
    assert leaks.find(host, [CONFIG]) == []


def test_a_registered_container_that_is_in_the_store_is_no_leak(host: Host) -> None:
    spec = container(host)
    host.container_dir(spec.id).mkdir()
    store.save(host, spec)
    assert "damaged" in kinds(host)
    assert [leak.kind for leak in leaks.repair(host, leaks.find(host, [CONFIG]), [CONFIG])] == ["damaged"]
    store.save_root(host, spec.id, store.Root(layers=(), writable=store.new_layer_id()))
    networks.register(host, spec)
    (host.locks_dir / f"container-{spec.id}").touch()
    (host.locks_dir / f"files-{spec.id}").touch()
    (host.stats_dir / f"{spec.id}.rings").touch()
    assert leaks.find(host, [CONFIG]) == []


def test_a_registration_without_a_container(host: Host) -> None:
    spec = container(host)
    networks.register(host, spec)
    found = kinds(host)
    assert found["dnsmasq"] == [spec.id]
    assert any(spec.nics[0].mac in name for name in found["nft"])
    assert leaks.repair(host, leaks.find(host, [CONFIG]), [CONFIG]) == []
    assert leaks.find(host, [CONFIG]) == []
    assert nft.elements(host) == []
    assert dnsmasq.registered(host) == set()


def test_a_link_and_a_bridge_of_nobody(host: Host) -> None:
    run(f"ip link add {host.veth_name(9)} type veth peer name other0")
    run(f"ip link add {host.bridge_name(7)} type bridge")
    run("ip link add vbother1.0 type bridge")
    assert kinds(host)["link"] == [host.bridge_name(7), host.veth_name(9)]
    mended(host, "link")
    assert "vbother1.0" in run("ip -br link")
    assert host.bridge_name(0) in run("ip -br link")


def test_cgroups_of_nobody(host: Host) -> None:
    spec = container(host)
    detect.open(host).create(spec.id, limits=Limits(), owner_uid=0, privileged=True)
    assert kinds(host)["cgroup"] == [spec.id]
    mended(host, "cgroup")


def test_a_broken_off_start_s_cgroup_goes_with_the_next_sweep(host: Host) -> None:
    """What a launcher that is killed leaves: no run tells of it. Where somebody starts it just now it stays."""
    spec, groups = container(host), detect.open(host)
    groups.create(spec.id, limits=Limits(), owner_uid=0, privileged=True)
    with store.lock(host, "container", spec.id):
        assert runs.sweep_cgroups(host) == []
    with process("import time; print('ready', flush=True); time.sleep(600)") as child:
        (groups.container_tree(spec.id) / "ns" / "cgroup.procs").write_text(str(child.pid))
        assert runs.sweep_cgroups(host) == []
    wait_until(lambda: stored.recover(host) != [])
    assert stored.recover(host) == []
    assert leaks.find(host, [CONFIG]) == []


def test_files_of_nobody(host: Host) -> None:
    spec = container(host)
    host.run_path(spec.id).write_text("{}")
    host.supervisor_socket(spec.id).touch()
    assert kinds(host)["run-file"] == [f"{spec.id}.json", f"{spec.id}.sock"]
    mended(host, "run-file")
    (host.locks_dir / f"container-{spec.id}").touch()
    mended(host, "lock")
    (host.locks_dir / f"files-{spec.id}").touch()
    mended(host, "lock")
    samples = host.stats_dir / f"{spec.id}.rings"
    samples.touch()
    assert leaks.find(host, [CONFIG]) == []
    os.utime(samples, (0, 0))
    mended(host, "samples")


@pytest.mark.parametrize("kind", ["files", "container", "run"])
def test_a_lock_leaves_no_file_where_its_container_is_gone(host: Host, kind: store.LockKind) -> None:
    """As for whoever waited while a container was deleted."""
    with store.lock(host, kind, "0123456789ab"):
        assert (host.locks_dir / f"{kind}-0123456789ab").exists()
    assert not (host.locks_dir / f"{kind}-0123456789ab").exists()
    (host.locks_dir / f"{kind}-0123456789ab").touch()  # as one that was killed leaves it
    stored.recover(host)
    assert leaks.find(host) == []


def test_directories_of_nobody(host: Host) -> None:
    (host.containers_dir / "what").mkdir()
    (host.trash_dir / "old").mkdir()
    assert len(kinds(host)["directory"]) == 2
    mended(host, "directory")


def test_a_mount_within_the_instances_directories(host: Host) -> None:
    point = host.tmp_dir
    syscalls.mount("boxroom-test", str(point), "tmpfs", 0, None)
    try:
        assert kinds(host)["mount"] == [str(point)]
        mended(host, "mount")
    finally:
        with contextlib.suppress(OSError):
            syscalls.umount(str(point), 2)


def test_a_process_with_an_id_of_the_instance(host: Host) -> None:
    base = claims.id_base(host, 17)
    with process(f"import os,time;os.setuid({base}+33);print('ready',flush=True);time.sleep(3600)") as child:
        assert kinds(host)["process"] == [str(child.pid)]
        mended(host, "process")
        assert child.wait(patient(60)) == -9


def test_a_process_that_the_panel_started_is_no_leak(host: Host) -> None:
    base = claims.id_base(host, 17)
    code = f"import os,time;os.setuid({base}+33);print('ready',flush=True);time.sleep(3600)"
    with process(code, env={"BOXROOM_STATE_DIR": str(host.state_dir)}):
        assert leaks.find(host, [CONFIG]) == []


def test_a_supervisor_of_nobody(host: Host) -> None:
    spec = container(host)
    project = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys,time;sys.path.insert(0,{project!r});from containers.core.kernel import syscalls;"
        f"syscalls.overwrite_cmdline(b'supervisor {host.instance} box {spec.id}');"
        "print('ready',flush=True);time.sleep(3600)"
    )
    with process(code) as child:
        assert kinds(host)["process"] == [str(child.pid)]
        mended(host, "process")
        assert child.wait(patient(60)) == -9
