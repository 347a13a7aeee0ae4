"""Debian 12's systemd, unprivileged. The image is built once by debootstrap and kept (BOXROOM_TEST_IMAGES)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from containers.core import images, store
from containers.core.lifecycle import running, stored
from containers.core.states import Status

from .conftest import NoNetwork, make_spec
from .patience import patient, wait_until

CACHE = Path(os.environ.get("BOXROOM_TEST_IMAGES", "/var/cache/boxroom-test-images"))


@pytest.fixture
def debian(host):
    """A layer with Debian 12."""
    kept = CACHE / "debian-12"
    if not kept.exists():
        if not shutil.which("debootstrap"):
            pytest.skip("debootstrap is not installed")
        built = images.build(
            host,
            "debian-12",
            {"type": "debootstrap", "suite": "bookworm"},
            progress=lambda _percent, _message: None,
            log=lambda _line: None,
        )
        CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", host.layers_dir / built.layers[0], kept], check=True)
    layer = store.new_layer_id()
    # layers are never written: the kept one serves as it is
    (host.layers_dir / layer).symlink_to(kept)
    return layer


def enter(pid, *command):
    """Run a command as the container's root, from outside."""
    nsenter = ("nsenter", "-t", str(pid), "-a", "-S", "0", "-G", "0")
    return subprocess.run([*nsenter, *command], capture_output=True, text=True, check=False).stdout.strip()


def test_systemd_comes_up_reboots_and_halts(host, debian):
    spec = stored.create(host, make_spec(debian, init_command=("/sbin/init",)))
    first = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: enter(first, "systemctl", "is-system-running") in ("running", "degraded"), 30, "systemd is up")
    assert enter(first, "systemctl", "--failed", "--no-legend") == ""
    assert enter(first, "systemctl", "is-system-running") == "running"
    assert enter(first, "systemd-detect-virt") == "lxc"
    assert "login" in (host.container_dir(spec.id) / "console.log").read_text()

    enter(first, "systemctl", "reboot")
    wait_until(lambda: running.observe(host)[spec.id].init_pid != first, 30, "it boots again")
    again = running.observe(host)[spec.id].init_pid
    wait_until(lambda: enter(again, "systemctl", "is-system-running") == "running", 30, "systemd is up again")

    begun = time.monotonic()
    assert running.stop(host, spec.id, timeout_sec=patient(20)).reason == "stopped"
    assert time.monotonic() - begun < patient(10)


def test_poweroff_inside_systemd_is_told_as_such(host, debian):
    spec = stored.create(host, make_spec(debian, init_command=("/sbin/init",)))
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    wait_until(lambda: enter(pid, "systemctl", "is-system-running") == "running", 30, "systemd is up")
    enter(pid, "systemctl", "poweroff")
    wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, 20, "it is off")
    assert running.observe(host)[spec.id].last_exit.reason == "poweroff"
