"""What the switches of a container are worth: nesting, privileged, limits; asked from inside."""

from __future__ import annotations

import os
import time

import pytest

from containers.core.cgroups import blockdev, detect
from containers.core.hoststore import store
from containers.core.lifecycle import running
from containers.core.model.security import Security
from containers.core.model.spec import Limits
from containers.core.model.states import Status
from containers.core.proc.records import RunFile

from .conftest import NoNetwork
from .patience import patient, wait_until

MIB = 1024**2


@pytest.fixture
def inside(host, container, layer):
    """Run a shell script as a container's init; returns what it wrote to its standard output, line by line."""

    def run(script, **changes):
        (store.rootfs(host, layer) / "script").write_text(f"exec >/out 2>&1\n{script}\n")
        spec = container(init_command=("/bin/sh", "/script"), **changes)
        running.start(host, spec, network=NoNetwork())
        wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, what="the script ends")
        upper = host.layers_dir / store.load_root(host, spec.id).writable / "rootfs"
        return (upper / "out").read_text().splitlines()

    return run


INNER = """
mkdir -p /inner
unshare -U -r -m -p -f sh -c 'mount -t proc proc /proc && mount -t tmpfs none /inner && echo pid $$ uid $(id -u)'
echo status $?
"""


def test_with_nesting_an_inner_container_is_possible(inside):
    assert inside(INNER, security=Security(nesting=True))[-2:] == ["pid 1 uid 0", "status 0"]


def test_without_nesting_there_is_no_inner_user_namespace(inside):
    lines = inside(INNER, security=Security())
    assert lines[-1] != "status 0"
    assert not any(line.startswith("pid") for line in lines)


def test_root_inside_may_take_a_mask_off_and_the_kernel_still_says_no(inside):
    """The masks are for order; what protects is that root inside is nobody outside."""
    script = """
umount /proc/keys /proc/kcore /proc/sysrq-trigger 2>/dev/null; umount -R /proc/sys 2>/dev/null
mount -o remount,rw /proc
for try in "echo h > /proc/sysrq-trigger" "head -c1 /proc/kcore" "echo 1 > /proc/sys/kernel/panic" \\
    "echo /x > /proc/sys/kernel/core_pattern" "echo 1 > /proc/sys/vm/drop_caches"
do sh -c "$try" 2>/dev/null && echo "WORKED $try"; done
echo end
"""
    assert inside(script) == ["end"]


PRIVILEGED = """
mknod /disk b %d %d && echo made
head -c1 /disk && echo READ THE DISK
mknod /mem c 1 1; head -c1 /mem && echo READ MEMORY
mkdir -p /groups
mount -t cgroup2 none /groups && cat /groups/memory.max 2>/dev/null
mount -t cgroup -o memory none /groups && cat /groups/memory.limit_in_bytes
date -s 2001-01-01; [ "$(date +%%Y)" = 2001 ] && echo SET THE CLOCK
unshare -m true && echo namespaces
echo end
"""


def test_a_privileged_container_has_root_but_not_the_hosts_disks_memory_or_limits(host, inside):
    number = os.stat("/").st_dev
    device = blockdev.disk_of(host.state_dir) or f"{os.major(number)}:{os.minor(number)}"
    script = PRIVILEGED % tuple(int(part) for part in device.split(":"))
    lines = inside(script, privileged=True, limits=Limits(memory_bytes=64 * MIB))
    assert lines[0] == "made"
    assert "namespaces" in lines
    assert lines[-1] == "end"
    assert not [line for line in lines if line.isupper()]
    assert str(64 * MIB) not in lines, "the container sees the files that hold its limits"


def test_a_privileged_container_is_the_hosts_root_and_stops_like_any_other(host, container):
    spec = container(privileged=True)
    pid = running.start(host, spec, network=NoNetwork()).init_pid
    assert os.stat(f"/proc/{pid}").st_uid == 0
    assert os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    assert RunFile.read(host.run_path(spec.id)).init.pid == pid
    assert running.stop(host, spec.id, timeout_sec=patient(60)).reason == "stopped"


def test_writing_is_slowed_down_to_the_limit(host, container, layer):
    if blockdev.disk_of(host.state_dir) is None:
        pytest.skip("the state directory is on no disk")
    if not _throttles(host):
        pytest.skip("the kernel throttles no disk")
    script = (
        "exec >/out 2>&1\ndd if=/dev/zero of=/big bs=1M count=8 oflag=direct 2>/dev/null || echo no direct\necho done"
    )
    (store.rootfs(host, layer) / "script").write_text(script)
    limits = Limits(io_write_bytes_per_sec=4 * MIB)
    spec = container(init_command=("/bin/sh", "/script"), limits=limits)
    began = time.monotonic()
    running.start(host, spec, network=NoNetwork())
    wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, what="the script ends")
    upper = host.layers_dir / store.load_root(host, spec.id).writable / "rootfs"
    assert (upper / "out").read_text().split() == ["done"]
    assert time.monotonic() - began >= 1.5


def _throttles(host):
    groups = detect.open(host)
    text = " ".join(str(path) for path in groups.instance_dirs())
    return groups.version == 2 or "blkio" in text
