"""Images made for real: busybox from the host, Debian by debootstrap; and builds that end badly and leave nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from containers.core import cgroups, images
from containers.core.cgroups import cages
from containers.core.errors import Busy, Cancelled, SetupFailed, SpecError, StorageFull
from containers.core.hoststore import store
from containers.core.images import apt_sources, busybox, debootstrap, sandbox
from containers.core.lifecycle import running, stored

from .. import debian
from .conftest import NoNetwork, make_spec, unmount
from .patience import patient, wait_until

DEBIAN = {"type": "debootstrap", "suite": "bookworm"}


def nothing_left(host) -> None:
    """Assert that no file, process or mount of a build is there."""
    assert os.listdir(host.tmp_dir) == os.listdir(host.trash_dir) == []
    assert store.images(host) == {}
    assert stored.orphans(host) == []
    assert str(host.state_dir) not in Path("/proc/self/mountinfo").read_text()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        except (OSError, ProcessLookupError):
            continue
        assert f"{host.tmp_dir}/" not in mounts, command


def defaults(image: store.Image, **changes: object) -> dict[str, object]:
    return {
        "init_command": tuple(image.defaults["init_command"]),
        "halt_signal": image.defaults["halt_signal"],
        "environment": image.defaults["environment"],
        **changes,
    }


def test_busybox_is_made_without_a_network_and_boots(host):
    told: list[int] = []
    built = images.build(host, "busybox", {"type": "busybox"}, progress=lambda pct, _message: told.append(pct))
    assert told == sorted(told)
    assert told[-1] == 100
    image = store.load_image(host, "busybox")
    assert (image.layers, image.size_bytes) == (built.layers, built.size_bytes)
    tree = store.rootfs(host, built.layers[0])
    assert os.readlink(tree / "sbin/init") == "/bin/busybox"
    assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777
    spec = stored.create(host, make_spec(built.layers[0], **defaults(image)))
    running.start(host, spec, network=NoNetwork())
    wait_until(lambda: b"login:" in log_of(host, spec), what="its login")
    last = running.stop(host, spec.id, timeout_sec=patient(120))
    assert last is not None
    assert last.reason in ("stopped", "poweroff")
    assert "login:" in (last.console or "")


def test_a_reboot_that_is_asked_for_while_it_boots_is_one(host):
    """What tells it from a poweroff is there still when a file system was mounted between the two."""
    built = images.build(host, "busybox", {"type": "busybox"})
    spec = stored.create(host, make_spec(built.layers[0], **defaults(store.load_image(host, "busybox"))))
    tree = host.layers_dir / store.load_root(host, spec.id).writable / "rootfs"
    for path, line, more in (
        ("sbin/reboot", "kill -INT 1", ": >/said; until grep -q ' /run ' /proc/mounts; do usleep 1000; done"),
        ("etc/init.d/rcS", "umask 022", "[ -e /said ] || { /sbin/reboot & until [ -e /said ]; do usleep 1000; done; }"),
    ):
        before = (store.rootfs(host, built.layers[0]) / path).read_text()
        assert line in before
        (tree / path).parent.mkdir(parents=True)
        (tree / path).write_text(before.replace(line, f"{more}\n{line}"))
        (tree / path).chmod(0o755)
    first = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: running.observe(host)[spec.id].init_pid != first, what="it has rebooted, or ended")
    seen = running.observe(host)[spec.id]
    assert (seen.status, seen.last_exit) == ("running", None)
    running.stop(host, spec.id, timeout_sec=patient(120))


def log_of(host, spec) -> bytes:
    path = host.container_dir(spec.id) / "console.log"
    return path.read_bytes() if path.exists() else b""


def test_modes_of_an_image_do_not_follow_the_umask(host):
    before = os.umask(0o077)
    try:
        built = images.build(host, "busybox", {"type": "busybox"})
    finally:
        os.umask(before)
    tree = store.rootfs(host, built.layers[0])
    for path in (tree, tree / "etc", tree / "usr/bin", tree / "etc/init.d/rcS", tree / "bin/busybox"):
        assert path.stat().st_mode & 0o777 == 0o755, path
    assert (tree / "etc/passwd").stat().st_mode & 0o777 == 0o644


def test_a_dynamic_program_is_no_static_busybox():
    assert not busybox.is_static(Path("/bin/ls"))
    assert not busybox.is_static(Path("/etc/passwd"))
    assert busybox.is_static(busybox.find())


PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def test_what_builds_sees_nothing_of_the_host(host):
    """Not the state directory, not /run, not a disk; it may not mount, make devices or change the host's programs."""
    directory = host.tmp_dir / "x"
    for name in ("rootfs/dev", "rootfs/proc", "rootfs/sys", "sandbox"):
        (directory / name).mkdir(parents=True)
    lines: list[str] = []
    asked = images.Order(
        host=host, name="x", source={}, progress=lambda *_: None, log=lines.append, cancelled=lambda: False
    )
    script = f"""
        ls -A /run /home /root /srv /var/lib /tmp /old {host.state_dir} 2>/dev/null
        ls /dev /build/rootfs/dev
        mount -t tmpfs x /tmp 2>/dev/null && echo mounted
        mount -o remount,rw /usr 2>/dev/null && echo remounted
        mknod /tmp/disk b 254 0 2>/dev/null && echo mknod
        touch /usr/bin/boxroom-was-here 2>/dev/null && echo wrote
        for proc in /proc /build/rootfs/proc; do
            for file in sys/kernel/core_pattern sysrq-trigger sys/vm/drop_caches; do
                [ -e $proc/$file ] || continue
                (: >>$proc/$file) 2>/dev/null && echo "may write $proc/$file"
            done
        done
        cat /etc/shadow 2>/dev/null
        set -- /proc/[0-9]*; echo $# process
        touch /build/rootfs/made
        echo done
    """
    sandbox.run(asked, "look", ["/bin/sh", "-s"], environment=PATH, script=script, room=directory / "rootfs")
    assert (directory / "rootfs/made").exists()
    devices = {"console", "fd", "full", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero"}
    said = [line for line in lines if line not in devices and not line.endswith(":") and line != "mount"]
    assert said == ["1 process", "done"], lines
    shutil.rmtree(directory)
    nothing_left(host)


def test_an_unknown_kind_of_source_is_refused(host):
    with pytest.raises(SpecError) as refused:
        images.build(host, "x", {"type": "tarball"})
    assert refused.value.field == "source.type"


def test_the_same_image_is_not_made_twice_at_once(host):
    with store.lock(host, "image", "busybox"), pytest.raises(Busy):
        images.build(host, "busybox", {"type": "busybox"})
    nothing_left(host)


def test_a_mirror_that_is_not_there_names_step_and_last_lines(host, monkeypatch):
    monkeypatch.setattr(apt_sources, "mirrors", lambda: ("http://127.0.0.1:9/debian", "http://127.0.0.1:9/s"))
    lines: list[str] = []
    with pytest.raises(SetupFailed) as failed:
        images.build(host, "d", DEBIAN, log=lines.append)
    assert failed.value.details["step"] == "debootstrap"
    assert "E: " in failed.value.details["console"]
    assert any("127.0.0.1" in line for line in lines)
    nothing_left(host)


def test_a_cancelled_build_ends_within_seconds_and_leaves_nothing(host):
    asked = threading.Event()
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if "Retrieving" in line:
            asked.set()

    with pytest.raises(Cancelled):
        images.build(host, "d", DEBIAN, log=log, cancelled=asked.is_set)
    # what comes after the first downloads is minutes away, and was not waited for
    assert not [line for line in lines if "Unpacking" in line or "Configuring" in line]
    nothing_left(host)


@pytest.fixture
def small_store(host):
    """A host whose store is on a disk of 24 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", host.store_dir], check=True)
    store.prepare(host)
    yield host
    unmount(host.store_dir)


def test_a_disk_too_small_is_told_before_anything_is_loaded(small_store):
    with pytest.raises(StorageFull) as full:
        images.build(small_store, "d", DEBIAN)
    assert str(small_store.store_dir) in full.value.details["path"]
    assert "It needs 400 MiB" in full.value.message
    assert os.listdir(small_store.tmp_dir) == os.listdir(small_store.trash_dir) == []


def test_a_disk_that_fills_up_is_told_as_such(small_store):
    directory = small_store.tmp_dir / "x"
    for name in ("rootfs/dev", "rootfs/proc", "rootfs/sys", "sandbox"):
        (directory / name).mkdir(parents=True)
    asked = images.Order(
        host=small_store, name="x", source={}, progress=lambda *_: None, log=str.strip, cancelled=lambda: False
    )
    fill = "head -c 64M /dev/zero >/build/rootfs/much; rm /build/rootfs/much; exit 3"
    with pytest.raises(StorageFull) as full:
        sandbox.run(asked, "fill", ["/bin/sh", "-s"], environment=PATH, script=fill, room=directory / "rootfs")
    assert (full.value.details["step"], full.value.details["path"]) == ("fill", str(directory / "rootfs"))
    assert "No space left" in full.value.details["console"]


def test_what_builds_has_little_memory_and_few_processes(host, monkeypatch):
    monkeypatch.setattr(sandbox, "MEMORY_BYTES", 64 << 20)
    directory = host.tmp_dir / "x"
    for name in ("rootfs/dev", "rootfs/proc", "rootfs/sys", "sandbox"):
        (directory / name).mkdir(parents=True)
    lines: list[str] = []
    asked = images.Order(
        host=host, name="x", source={}, progress=lambda *_: None, log=lines.append, cancelled=lambda: False
    )
    monkeypatch.setattr(sandbox, "_free_bytes", lambda _room: 0)  # a store on a tmpfs would be memory, too
    monkeypatch.setattr(sandbox, "_ROOM_LEAST_BYTES", 0)
    shell = ["/bin/sh", "-s"]
    many = f"for i in $(seq {cages.PIDS + 50}); do sleep 60 & done; echo forked all"
    with pytest.raises(SetupFailed, match="fork"):
        sandbox.run(asked, "fork", shell, environment=PATH, script=many, room=directory / "rootfs")
    assert "forked all" not in lines
    with pytest.raises(SetupFailed, match="more than 64 MiB of memory"):
        sandbox.run(asked, "hoard", shell, environment=PATH, script="tail /dev/zero", room=directory / "rootfs")
    assert cages.abandoned(cgroups.open(host)) == []
    shutil.rmtree(directory)
    nothing_left(host)


def test_debian_holds_nothing_that_two_must_not_share(host):
    tree = store.rootfs(host, debian.put(host).layers[0])
    assert (tree / "etc/machine-id").read_bytes() == b""
    assert os.listdir(tree / "dev") == os.listdir(tree / "proc") == os.listdir(tree / "sys") == []
    assert not list((tree / "var/lib/apt/lists").glob("*Packages"))
    assert not list((tree / "var/cache/apt/archives").glob("*.deb"))
    assert not (tree / "usr/sbin/policy-rc.d").exists()
    assert not list((tree / "etc").glob("ssh/ssh_host_*"))
    assert (tree / "etc/shadow").read_text().startswith("root:*:")


def test_the_recipe_is_what_debootstrap_is_told():
    recipe = dataclasses.replace(debootstrap.parse(DEBIAN), packages=("a", "b"), mirror="http://m/debian")
    told = debootstrap.arguments(recipe)
    assert told[-4:-1] == ["bookworm", "/build/rootfs", "http://m/debian"]
    assert told[-1].startswith("/usr/share/debootstrap/scripts/")
    assert "--include=a,b" in told
    assert "--no-check-gpg" not in told
