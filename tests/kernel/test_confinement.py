"""System call profiles, key rings, clocks, personality: of init, of what is started later, and no way around them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from containers.clients import hostlink
from containers.core.errors import CoreError, PolicyDenied, SetupFailed
from containers.core.host import Host
from containers.core.hoststore import store
from containers.core.lifecycle import granting, labels, running
from containers.core.model.security import Security
from containers.core.model.spec import Spec
from containers.core.model.states import Status
from containers.core.proc import records
from containers.core.rules import policy, policy_file

from . import programs
from .conftest import NoNetwork
from .patience import wait_until
from .test_exec_basics import execute

X32 = 0x40000000
MKDIR, MKDIR_I386, KEYCTL, KEYCTL_I386, PERSONALITY = 83, 39, 250, 288, 135
TIGHT = "2\ndenylist\n[all]\nmkdir errno 42\nmkdirat errno 42\n[x86_64]\npersonality errno 43 [0,8,==]\n"
x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="instructions and numbers of x86_64")


@pytest.fixture(autouse=True)
def instance_of_host(host: Host, settings: object) -> None:
    settings.BOXROOM_RUN_DIR = host.run_dir  # type: ignore[attr-defined]


Start = Callable[..., Spec]


@pytest.fixture
def confined(host: Host, container: Callable[..., Spec], layer: str) -> Start:
    """Start a container with these settings under a policy; programs: name → what /NAME is."""

    def start(security: Security, rules: str = "", *, put: dict[str, bytes] | None = None, **more: object) -> Spec:
        for name, data in (put or {}).items():
            path = store.rootfs(host, layer) / name
            path.write_bytes(data)
            path.chmod(0o755)
        spec = container(security=security, **more)
        extras = granting.extras(host, policy_file.parse(rules), spec)
        running.start(host, spec, network=NoNetwork(), extras=extras)
        return spec

    return start


def says(spec: Spec, *command: str) -> str:
    done: hostlink.ExecResult = execute(spec.id, list(command))
    assert done.exit_code == 0, (done.stdout, done.stderr)
    return done.stdout.decode().strip()


def written(spec: Spec, path: str) -> str:
    """Return what init has written into a file, once there is a whole line of it."""
    found = b""

    def whole() -> bool:
        nonlocal found
        found = bytes(execute(spec.id, ["cat", path]).stdout)
        return found.endswith(b"\n")

    wait_until(whole, what=f"init has written {path}")
    return found.decode().strip()


def status(spec: Spec, *command: str) -> int:
    code = execute(spec.id, list(command)).exit_code
    assert code is not None
    return code


def register(host: Host, name: str, text: str) -> Path:
    host.seccomp_dir.mkdir(exist_ok=True)
    path = host.seccomp_dir / name
    path.write_text(text)
    path.chmod(0o644)
    return path


GIVEN = '[seccomp.tight]\nprojects = ["*"]\n'
INSTEAD = GIVEN + "instead = true\n"


@pytest.mark.lxc("A system call profile holds by every way into the kernel", "lxc.seccomp.profile")
@x86_64
@pytest.mark.parametrize("instead", [False, True])
def test_a_profile_of_lxcs_holds_by_every_way_into_the_kernel(host: Host, confined: Start, instead: bool) -> None:
    register(host, "tight", TIGHT)
    put = {
        "mkdir-64": programs.calls(MKDIR, b"/tmp/new", 0o755),
        "mkdir-i386": programs.calls(MKDIR_I386, b"/tmp/new", 0o755, i386=True),
        "mkdir-x32": programs.calls(X32 | MKDIR, b"/tmp/new", 0o755),
        "keyctl-64": programs.calls(KEYCTL, 0, -3),
        "keyctl-i386": programs.calls(KEYCTL_I386, 0, -3, i386=True),
        "keyctl-x32": programs.calls(X32 | KEYCTL, 0, -3),
        "linux32": programs.calls(PERSONALITY, 8),
        "linux": programs.calls(PERSONALITY, 0),
    }
    spec = confined(Security(seccomp="tight"), INSTEAD if instead else GIVEN, put=put)
    assert status(spec, "/mkdir-64") == 42
    assert status(spec, "/mkdir-i386") == 42
    assert status(spec, "/mkdir-x32") == errno.ENOSYS
    assert not execute(spec.id, ["test", "-e", "/tmp/new"]).exit_code == 0
    assert status(spec, "/linux32") == 43
    assert status(spec, "/linux") == 0
    # the usual list holds beside it, unless the policy says instead
    keys = 0 if instead else errno.EPERM
    assert status(spec, "/keyctl-64") == keys
    assert status(spec, "/keyctl-i386") == keys
    assert status(spec, "/keyctl-x32") == errno.ENOSYS


@x86_64
def test_without_a_profile_no_other_way_into_the_kernel_is_open(confined: Start) -> None:
    put = {
        "64": programs.calls(KEYCTL, 0, -3),
        "i386": programs.calls(KEYCTL_I386, 0, -3, i386=True),
        "x32": programs.calls(X32 | KEYCTL, 0, -3),
    }
    spec = confined(Security(), put=put)
    assert [status(spec, f"/{name}") for name in put] == [errno.EPERM, errno.EPERM, errno.ENOSYS]


def test_a_list_of_what_is_allowed_need_not_name_what_a_start_takes(host: Host, confined: Start) -> None:
    calls = "access arch_prctl dup2 fstat getuid geteuid getppid kill pipe2 readlink readlinkat rseq set_robust_list"
    calls += " set_tid_address sigaltstack stat uname vfork wait4 lstat nanosleep clock_nanosleep getgid getegid times"
    calls += " rt_sigsuspend time rt_sigtimedwait pause open statx madvise alarm"
    register(host, "tight", "2\nallowlist errno 1\n[all]\n" + calls.replace(" ", "\n"))
    # what is set as late as the links come up is set before the list is in force
    spec = confined(Security(seccomp="tight", sysctls={"net.ipv4.ip_forward": "1"}), INSTEAD)
    assert says(spec, "/bin/sh", "-c", "cat /proc/sys/net/ipv4/ip_forward") == "1"
    assert says(spec, "/bin/sh", "-c", "echo in") == "in"
    assert status(spec, "/bin/sh", "-c", "mkdir /tmp/new") == 1
    assert running.observe(host)[spec.id].status is Status.RUNNING


def test_a_profile_of_oci_and_what_was_changed_in_it(host: Host, confined: Start, container: Start) -> None:
    text = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["%s"], "action": "SCMP_ACT_ERRNO"}]}'
    register(host, "tight", text % "sethostname")
    spec = confined(Security(seccomp="tight"), GIVEN)
    assert status(spec, "hostname", "new") == 1
    assert says(spec, "chroot", "/", "echo", "in") == "in"
    register(host, "tight", text % "chroot")
    spec = confined(Security(seccomp="tight"), GIVEN)
    assert status(spec, "chroot", "/", "echo", "in") == 1
    assert says(spec, "hostname", "new") == ""


def test_a_profile_that_cannot_be_used_is_told_with_its_path(host: Host, container: Callable[..., Spec]) -> None:
    spec = container(security=Security(seccomp="tight"))

    def failure(rules: str) -> SetupFailed:
        with pytest.raises(SetupFailed) as caught:
            granting.extras(host, policy_file.parse(rules), spec)
        assert caught.value.details["path"] == str(host.seccomp_dir / "tight")
        return caught.value

    with pytest.raises(PolicyDenied) as denied:
        granting.extras(host, policy_file.parse('[seccomp.tight]\nprojects = ["other"]\n'), spec)
    assert denied.value.field == "security.seccomp"
    host.seccomp_dir.mkdir()
    assert failure(GIVEN).details["errno"] == errno.ENOENT
    path = register(host, "tight", "2\ndenylist\nmkdir errno many\n")
    assert "line 3" in failure(GIVEN).message
    path.chmod(0o666)
    assert "Others than root" in failure(GIVEN).message
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert failure(GIVEN).details["errno"] == errno.ELOOP


SECRET = b"boxroom-test-secret"


@pytest.fixture(autouse=True, scope="module")
def secret() -> None:
    """Put a key into a session keyring of this process, which launchers that are started later inherit."""
    if os.uname().machine != "x86_64":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(KEYCTL, 1, None) > 0
    assert libc.syscall(248, b"user", SECRET, b"x", 1, -3) > 0, os.strerror(ctypes.get_errno())
    assert libc.syscall(249, b"user", SECRET, None, 0) > 0


@pytest.mark.lxc("A container begins with a session keyring of its own", "lxc.keyring.session")
@x86_64
@pytest.mark.parametrize("privileged", [False, True])
def test_keys_of_the_hosts_are_not_found_inside(host: Host, confined: Start, privileged: bool) -> None:
    put = {
        "find": programs.calls(249, b"user", SECRET, 0, 0),
        "add": programs.calls(248, b"user", b"own", b"x", 1, -3),
        "script": b"#!/bin/sh\n/find\necho $? >/found\nexec /sbin/idle\n",
    }
    spec = confined(Security(keyctl=True), put=put, privileged=privileged, init_command=("/script",), name="keys")
    assert int(written(spec, "/found")) == errno.ENOKEY
    assert status(spec, "/find") == errno.ENOKEY
    assert status(spec, "/add") == 0


def init_pid(host: Host, spec: Spec) -> int:
    run = records.RunFile.read(host.run_path(spec.id))
    assert run is not None
    return run.init.pid


def lines_of(spec: Spec, path: str) -> list[str]:
    """Return a file's lines; none while the container is between two inits."""
    try:
        return execute(spec.id, ["cat", path]).stdout.decode().splitlines()
    except CoreError:
        return []


def uptime(text: str) -> float:
    return float(text.split()[0])


@pytest.mark.lxc("Clocks have offsets of the container's own", "lxc.time.offset.boot", "lxc.time.offset.monotonic")
@pytest.mark.parametrize("privileged", [False, True])
def test_clocks_are_offset_for_init_for_what_is_started_later_and_after_a_reboot(
    host: Host, confined: Start, privileged: bool
) -> None:
    script = b"#!/bin/sh\ncat /proc/uptime >>/of-init\nexec /sbin/idle\n"
    spec = confined(
        Security(clock_offsets={"boottime": 86400 * 365, "monotonic": 7200.5}),
        put={"script": script},
        init_command=("/script",),
        privileged=privileged,
    )
    inside = uptime(says(spec, "cat", "/proc/uptime"))
    here = uptime(Path("/proc/uptime").read_text())
    # between two looks at a clock there may be a while, but no day
    assert 0 <= here + 86400 * 365 - inside < 3600
    assert abs(uptime(written(spec, "/of-init")) - inside) < 3600
    assert (
        says(spec, "cat", "/proc/self/timens_offsets").split() == "monotonic 7200 500000000 boottime 31536000 0".split()
    )
    first = init_pid(host, spec)
    for kind in ("time", "time_for_children"):
        assert os.readlink(f"/proc/{first}/ns/{kind}") != os.readlink("/proc/self/ns/time")
    with contextlib.suppress(CoreError):
        execute(spec.id, ["reboot", "-f"])
    wait_until(lambda: init_pid(host, spec) != first, what="another init")
    looked: list[str] = []

    def again() -> bool:
        looked[:] = lines_of(spec, "/of-init")
        return len(looked) == 2

    wait_until(again, what="it has looked")
    assert abs(uptime(looked[1]) - inside) < 3600


def test_a_clock_that_would_be_before_its_beginning_is_told(host: Host, container: Callable[..., Spec]) -> None:
    spec = container(security=Security(clock_offsets={"boottime": -(2**31)}))
    with pytest.raises(SetupFailed) as caught:
        running.start(host, spec, network=NoNetwork())
    assert caught.value.details["step"] == "set its clocks"
    assert running.observe(host)[spec.id].status is Status.STOPPED


def test_a_container_without_offsets_has_the_hosts_clock(running_container: Spec) -> None:
    assert says(running_container, "readlink", "/proc/1/ns/time") == os.readlink("/proc/self/ns/time")


@pytest.mark.lxc("A container may see a machine of 32 bits", "lxc.arch")
@x86_64
def test_a_personality_is_inits_and_of_what_is_started_later(confined: Start) -> None:
    script = b"#!/bin/sh\nuname -m >/of-init\nexec /sbin/idle\n"
    spec = confined(Security(personality="linux32"), put={"script": script}, init_command=("/script",))
    assert written(spec, "/of-init") == says(spec, "uname", "-m") == "i686"
    assert platform.machine() == "x86_64"


def spec_of_generated(container: Callable[..., Spec]) -> Spec:
    made: Spec = container(security=Security(apparmor="generated"))
    return made


def test_a_profile_of_apparmors_needs_a_host_with_apparmor(host: Host, container: Callable[..., Spec]) -> None:
    if labels.present() and shutil.which("apparmor_parser", path="/usr/sbin:/sbin"):
        assert granting.extras(host, policy.DEFAULT, spec_of_generated(container)).apparmor.startswith("boxroom-")
        return
    spec = container(security=Security(apparmor="generated"))
    with pytest.raises(SetupFailed) as caught:
        granting.extras(host, policy.DEFAULT, spec)
    assert "AppArmor" in caught.value.message or "apparmor_parser" in caught.value.message
