"""Images made for real: busybox from the host, Debian by debootstrap; and builds that end badly and leave nothing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from containers.core import images, store
from containers.core.errors import Busy, Cancelled, SetupFailed, SpecError, StorageFull
from containers.core.images import apt_sources, busybox, debootstrap
from containers.core.lifecycle import running, stored

from .conftest import NoNetwork, make_spec
from .patience import wait_until

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
        except (FileNotFoundError, ProcessLookupError):
            continue
        assert "debootstrap" not in command or str(host.state_dir) not in command, command


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
    time.sleep(0.3)
    began = time.monotonic()
    last = running.stop(host, spec.id, timeout_sec=20)
    assert last is not None
    assert last.reason in ("stopped", "poweroff")
    assert "login:" in (last.console or "")
    assert time.monotonic() - began < 10


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
    at = 0.0

    def log(line: str) -> None:
        nonlocal at
        if "Retrieving" in line and not asked.is_set():
            at = time.monotonic()
            asked.set()

    with pytest.raises(Cancelled):
        images.build(host, "d", DEBIAN, log=log, cancelled=asked.is_set)
    assert time.monotonic() - at < 5
    nothing_left(host)


def test_a_full_disk_is_told_as_such(host):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", host.store_dir], check=True)
    try:
        store.prepare(host)
        with pytest.raises(StorageFull) as full:
            images.build(host, "d", DEBIAN)
        assert str(host.store_dir) in full.value.details["path"]
        assert os.listdir(host.tmp_dir) == os.listdir(host.trash_dir) == []
    finally:
        subprocess.run(["umount", host.store_dir], check=True)


def test_debian_boots_to_running(host):
    """The one whole build of the suite: one to two minutes."""
    told: list[int] = []
    built = images.build(host, "debian-12", DEBIAN, progress=lambda pct, _message: told.append(pct))
    assert told == sorted(told)
    tree = store.rootfs(host, built.layers[0])
    assert (tree / "etc/machine-id").read_bytes() == b""
    assert not list((tree / "var/lib/apt/lists").glob("*Packages"))
    assert not (tree / "usr/sbin/policy-rc.d").exists()
    assert not list((tree / "etc").glob("ssh/ssh_host_*"))
    image = store.load_image(host, "debian-12")
    spec = stored.create(host, make_spec(built.layers[0], **defaults(image)))
    pid = running.start(host, spec, network=NoNetwork()).init_pid

    def inside(*command: str) -> str:
        entered = ["nsenter", "-t", str(pid), "-a", "--root", "--", *command]
        return subprocess.run(entered, capture_output=True, text=True).stdout.strip()

    wait_until(
        lambda: inside("/usr/bin/systemctl", "is-system-running") in ("running", "degraded"), 60, "systemd has booted"
    )
    assert inside("/usr/bin/systemctl", "is-system-running") == "running", inside("/usr/bin/systemctl", "--failed")
    assert inside("/usr/bin/cat", "/etc/machine-id") == spec.machine_id
    last = running.stop(host, spec.id, timeout_sec=30)
    assert last is not None
    assert last.reason in ("stopped", "poweroff")


def test_the_recipe_is_what_debootstrap_is_told(host):
    recipe = dataclasses.replace(debootstrap.parse(DEBIAN), packages=("a", "b"), mirror="http://m/debian")
    told = debootstrap.arguments(recipe, Path("/x"))
    assert told[-3:] == ["bookworm", "/x", "http://m/debian"]
    assert "--include=a,b" in told
    assert "--no-check-gpg" not in told
