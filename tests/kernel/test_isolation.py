"""What a container sees and may do: asked from inside, by its own init, and looked at from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from containers.core.errors import SetupFailed
from containers.core.hoststore import store
from containers.core.lifecycle import running
from containers.core.model import capabilities
from containers.core.model.spec import Limits, Nic
from containers.core.model.states import Status
from containers.core.proc import seccomp_files
from containers.core.proc.records import RunFile

from .conftest import PROJECT, NoNetwork
from .patience import wait_until


@pytest.fixture
def inside(host, container, layer):
    """Run a shell script as a container's init; returns what it wrote to its standard output, line by line."""

    def run(script, *, network=None, **changes):
        (store.rootfs(host, layer) / "script").write_text(f"exec >/out 2>&1\n{script}\n")
        spec = container(init_command=("/bin/sh", "/script"), **changes)
        running.start(host, spec, network=network or NoNetwork())
        wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, what="the script ends")
        upper = host.layers_dir / store.load_root(host, spec.id).writable / "rootfs"
        return (upper / "out").read_text().splitlines()

    return run


@pytest.mark.lxc("Init inherits no descriptor and no directory of the host's", "CVE-2024-21626")
def test_no_descriptor_is_inherited(inside):
    lines = [line.split() for line in inside("ls -l /proc/1/fd") if " -> " in line]
    seen = {line[-3]: line[-1] for line in lines}
    # the shell itself has its script open, as 10
    assert seen == {"0": "/dev/pts/0", "1": "/out", "2": "/out", "10": "/script"}


@pytest.mark.lxc("Nothing of the host's environment comes in", "lxc.environment")
def test_the_environment_is_clean(inside):
    seen = dict(line.split("=", 1) for line in inside("exec env", environment={"GREETING": "hello there"}))
    machine_id = seen.pop("container_uuid").replace("-", "")
    assert len(machine_id) == 32
    for name in ("PWD", "SHLVL", "OLDPWD"):
        seen.pop(name, None)
    assert seen == {
        "GREETING": "hello there",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM": "xterm-256color",
        "container": "lxc",
    }


@pytest.mark.lxc("Each container has namespaces of its own", "CVE-2020-15257")
def test_init_is_alone_in_its_namespaces(inside):
    lines = inside("id -u; echo $$; ls /proc | grep -c '^[0-9]'; hostname; cat /proc/self/cgroup", hostname="box-1")
    assert lines[:2] == ["0", "1"]
    assert int(lines[2]) <= 4
    assert lines[3] == "box-1"
    assert lines[-1] == "0::/"


def test_namespaces_differ_from_the_hosts(host, running_container):
    pid = running.observe(host)[running_container.id].init_pid
    for name in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name


@pytest.mark.parametrize("privileged", [False, True])
def test_rights_are_bounded(inside, privileged):
    status = dict(line.split(":", 1) for line in inside("cat /proc/self/status", privileged=privileged))
    bounding = int(status["CapBnd"], 16)
    assert bounding & ~capabilities.kept(privileged=privileged) == 0
    assert not bounding >> capabilities.NAMES.index("sys_module") & 1
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert (status["Seccomp"].strip(), status["Groups"].strip()) == ("2", "")


def test_files_lie_unshifted_on_disk(host, inside):
    inside("touch /made; chown 1000:1000 /made")
    (container_id,) = store.container_ids(host)
    found = os.stat(host.layers_dir / store.load_root(host, container_id).writable / "rootfs/made")
    assert (found.st_uid, found.st_gid) == (1000, 1000)


@pytest.mark.parametrize(
    "attempt",
    [
        "echo 1 > /proc/sys/kernel/panic",
        "echo 1 > /proc/sys/kernel/hostname",
        "mkdir /sys/x",
        "mknod /disk b 254 0",
        "mount -t debugfs none /mnt",
        "mount -o remount,rw /sys",
        "ls /sys/firmware/*",
        "cat /proc/keys | grep .",
        "echo 1 > /sys/fs/cgroup/cgroup.freeze",
        "hwclock -w",
        "sysctl -w kernel.core_pattern=/x",
        "nice -n -20 renice -20 1; dmesg | grep .",
    ],
)
def test_what_must_fail_fails(inside, attempt):
    assert inside(f"mkdir -p /mnt; if {attempt}; then echo WORKED; else echo REFUSED; fi")[-1] == "REFUSED"


def test_what_a_system_needs_works(inside):
    script = """
set -e
mkdir -p /mnt
mount -t tmpfs none /mnt && umount /mnt
echo 1 > /proc/sys/net/ipv4/ip_forward
mkdir /sys/fs/cgroup/child && rmdir /sys/fs/cgroup/child
head -c 4 /dev/urandom | wc -c
echo x > /dev/null
echo x > /dev/full && exit 1
dd if=/dev/zero of=/dev/shm/file bs=1k count=4 2>/dev/null
mknod /fifo p
test -c /dev/console -a -c /dev/tty -a -d /dev/mqueue
ip link show lo | grep -q UP
chown 65535:65535 /dev/shm/file
echo ALL
"""
    assert inside(script)[-1] == "ALL"


@pytest.mark.lxc(
    "An image whose /proc, /sys or /dev is a link is refused",
    "CVE-2019-19921",
    "CVE-2023-27561",
    "CVE-2026-41579",
    "CVE-2023-28642",
)
def test_a_link_instead_of_proc_in_the_image_is_refused(host, container, layer):
    proc = store.rootfs(host, layer) / "proc"
    proc.rmdir()
    proc.symlink_to("/tmp")
    spec = container()
    with pytest.raises(SetupFailed) as failed:
        running.start(host, spec, network=NoNetwork())
    assert failed.value.details["path"] == "proc", failed.value.as_dict()


@pytest.mark.lxc("An init that the kernel killed for lack of memory is told as such", "L#4029", "D#9252")
def test_out_of_memory_is_told(host, container):
    spec = container(init_command=("/bin/sh", "-c", "exec tail /dev/zero"), limits=Limits(memory_bytes=16 * 1024**2))
    running.start(host, spec, network=NoNetwork())
    wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED)
    assert running.observe(host)[spec.id].last_exit.reason == "oom"


@pytest.mark.parametrize("name", ["c", "n" * 63])
def test_supervisors_are_named_and_keep_their_environment(host, container, name):
    spec = container(name=name)
    running.start(host, spec, network=NoNetwork())
    process = Path(f"/proc/{RunFile.read(host.run_path(spec.id)).supervisor.pid}")
    title = f"supervisor {host.instance} {name} {spec.id}"
    assert (process / "cmdline").read_bytes() == title.encode() + b"\0"
    assert f"BOXROOM_STATE_DIR={host.state_dir}".encode() in (process / "environ").read_bytes().split(b"\0")


@pytest.mark.lxc("What supervises a container is small")
def test_supervisors_are_small(host, running_container):
    run = RunFile.read(host.run_path(running_container.id))
    with open(f"/proc/{run.supervisor.pid}/smaps_rollup") as file:
        figures = {line.split(":")[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}
    # what is its own, and is there once more for each container; what many cost is measured in tests/bench
    assert figures["Private_Dirty"] + figures["Private_Clean"] < 1536


def test_nobody_clones_beside_a_thread(host, running_container):
    """A thread that waits for the interpreter's lock during the clone would leave the child waiting for it for ever."""
    script = "import sys; sys.path.insert(0, sys.argv[1]); import containers.core.proc.launcher; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", script, str(PROJECT)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "containers.core.proc.supervisor" in loaded
    assert not {"threading", "concurrent", "asyncio", "multiprocessing"} & set(loaded)
    run = RunFile.read(host.run_path(running_container.id))
    assert len(os.listdir(f"/proc/{run.supervisor.pid}/task")) == 1


def test_many_start_at_once(host, container):
    specs = [container(slot=number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda spec: running.start(host, spec, network=NoNetwork()), specs))
    assert {seen.status for seen in running.observe(host).values()} == {Status.RUNNING}
    uids = {os.stat(f"/proc/{seen.init_pid}").st_uid for seen in running.observe(host).values()}
    assert len(uids) == 8
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda spec: running.stop(host, spec.id, kill=True), specs))


class Veth:
    """A port that makes the NICs without a bridge."""

    def attach(self, spec, netns_fd):
        from pyroute2 import IPRoute

        with IPRoute() as ipr:
            for nic in spec.nics:
                peer = {"ifname": nic.name, "address": nic.mac, "net_ns_fd": netns_fd}
                ipr.link("add", ifname=nic.host_link, kind="veth", peer=peer)

    def detach(self, spec):
        pass


def nic(host):
    return Nic(name="eth0", network="n", bridge="b", host_link=host.veth_name(1), mac="0a:00:00:00:00:01")


def test_links_are_up_and_go_with_the_container(host, inside):
    lines = inside("ip -o link show eth0; cat /sys/class/net/eth0/address", nics=(nic(host),), network=Veth())
    assert "UP" in lines[0]
    assert lines[1] == "0a:00:00:00:00:01"
    wait_until(lambda: not os.path.exists(f"/sys/class/net/{host.veth_name(1)}"), what="it has gone with the other end")


@pytest.mark.lxc("A reboot inside keeps the network interface", "L#1477")
def test_a_reboot_inside_keeps_the_nic(host, inside):
    script = (
        "[ -e /again ] || { touch /again; ip link set eth0 down; ip link set eth0 name x; reboot -f; }\nip -o link show"
    )
    lines = inside(script, nics=(nic(host),), network=Veth())
    assert any("eth0" in line and "UP" in line for line in lines), lines


FILTER_PROBE = """
import ctypes, errno, json, os, socket, sys
sys.path.insert(0, sys.argv[1])
from containers.core.kernel import syscalls
libc = ctypes.CDLL(None, use_errno=True)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
with open(sys.argv[2], "rb") as file:
    packed = file.read()
seen = {}
def attempt(name, *args):
    ctypes.set_errno(0)
    result = libc.syscall(*args)
    seen[name] = errno.errorcode.get(ctypes.get_errno(), "ok") if result < 0 else "ok"
attempt("bpf-unfiltered", 321, 0, 0, 0)
syscalls.load_seccomp(packed)
attempt("clone3", 435, 0, 0)
attempt("unshare-user", 272, 0x10000000)
attempt("unshare-mount", 272, 0x00020000)
attempt("alg", 41, 38, 5, 0)
attempt("vsock", 41, 40, 1, 0)
attempt("unix", 41, 1, 1, 0)
attempt("keyctl", 250, 0, -3)
attempt("bpf", 321, 0, 0, 0)
attempt("io_uring_setup", 425, 1, 0)
attempt("kexec_load", 246, 0, 0, 0, 0)
attempt("open_by_handle_at", 304, -1, 0, 0)
attempt("perf_event_open", 298, 0, 0, 0, 0, 0)
attempt("userfaultfd", 323, 0)
attempt("unknown", 9999)
attempt("x32-getpid", 0x40000000 + 39)
attempt("tiocsti", 16, 0, 0x5412, 0)
attempt("tiocsti-high-bits", 16, 0, ctypes.c_long(0x100005412), 0)
attempt("getpid", 39)
print(json.dumps(seen))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")
@pytest.mark.parametrize("nesting", [False, True])
def test_the_system_call_filter(host, nesting):
    path = str(seccomp_files.path(host, nesting=nesting))
    done = subprocess.run(
        [sys.executable, "-c", FILTER_PROBE, str(PROJECT), path], capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout)
    bpf = seen.pop("bpf-unfiltered")  # EINVAL or EPERM, by the host's settings
    assert seen == {
        "clone3": "ENOSYS",
        "unshare-user": "ok" if nesting else "EPERM",
        "unshare-mount": "ok",
        "alg": "EAFNOSUPPORT",
        "vsock": "EAFNOSUPPORT",
        "unix": "ok",
        "keyctl": "ok" if nesting else "EPERM",
        "bpf": bpf if nesting else "EPERM",
        "io_uring_setup": "EPERM",
        "kexec_load": "EPERM",
        "open_by_handle_at": "EPERM",
        "perf_event_open": "EPERM",
        "userfaultfd": "EPERM",
        "unknown": "ENOSYS",
        "x32-getpid": "ENOSYS",
        "tiocsti": "EPERM",
        "tiocsti-high-bits": "EPERM",
        "getpid": "ok",
    }
