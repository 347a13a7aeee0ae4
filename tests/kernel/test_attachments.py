"""Shared directories and device nodes: in at start, in and out of a running container, and no way past either."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from containers.clients import hostlink
from containers.core.cgroups import detect
from containers.core.errors import CoreError, InvalidTransition, SetupFailed, SpecError, TimedOut
from containers.core.host import Host
from containers.core.hoststore import claims, store
from containers.core.lifecycle import attaching, leaks, running
from containers.core.model.attachments import Attachments, Device, Mount
from containers.core.model.spec import Spec
from containers.core.plans.start_plan import StartPlan
from containers.core.proc import luggage
from containers.core.proc.loop import Loop
from containers.core.proc.records import RunFile
from containers.core.rules import grants
from containers.core.rules.grants import HostDevice, Share

from .conftest import NoNetwork
from .patience import wait_until
from .test_exec_basics import execute

KNOWN = {
    # on every host, with or without modules, and in no default rule; opened without any right
    "one": HostDevice(path="/dev/cpu_dma_latency", projects=("*",)),
    "two": HostDevice(path="/dev/kmsg", projects=("*",)),
    "fuse": grants.DEFAULT_DEVICES["fuse"],
}
ONE = os.stat("/dev/cpu_dma_latency").st_rdev


@pytest.fixture(autouse=True)
def instance_of_host(host: Host, settings: object) -> None:
    settings.BOXROOM_RUN_DIR = host.run_dir  # type: ignore[attr-defined]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of the host that only root may reach, with files of several owners."""
    directory = tmp_path / "shared"
    (directory / "sub").mkdir(parents=True)
    directory.chmod(0o755)
    tmp_path.chmod(0o700)
    (directory / "of-root").write_text("hello\n")
    (directory / "of-alice").write_text("alice\n")
    os.chown(directory / "of-alice", 1000, 1000)
    (directory / "sub" / "deep").write_text("deep\n")
    return directory


class Inside:
    """A container of a test's, and what it is given."""

    def __init__(self, host: Host, spec: Spec, share: Share) -> None:
        self.host = host
        self.spec = spec
        self.share = share
        self.now = Attachments()

    def resolved(self, *mounts: Mount, devices: tuple[Device, ...] = ()) -> Attachments:
        spec = dataclasses.replace(self.spec, mounts=mounts, devices=devices)
        spec.check()
        return grants.resolve({"media": self.share}, KNOWN, spec)

    def start(self, *mounts: Mount, devices: tuple[Device, ...] = ()) -> None:
        self.now = self.resolved(*mounts, devices=devices)
        running.start(self.host, self.spec, network=NoNetwork(), attachments=self.now)

    def change(self, *mounts: Mount, devices: tuple[Device, ...] = ()) -> None:
        wanted = self.resolved(*mounts, devices=devices)
        assert attaching.change(self.host, self.spec.id, wanted, self.now)
        self.now = wanted

    def sh(self, script: str) -> hostlink.ExecResult:
        return execute(self.spec.id, ["sh", "-c", script])

    def says(self, script: str) -> str:
        done = self.sh(script)
        assert done.exit_code == 0, (done.stdout, done.stderr)
        return done.stdout.decode().strip()


@pytest.fixture
def given(host: Host, container: Callable[..., Spec], shared: Path) -> Callable[..., Inside]:
    """Return a function that makes a container which may use the share "media": ``given(read_only=True)``."""

    def make(*, spec: dict[str, object] | None = None, **share: object) -> Inside:
        values = {"path": str(shared), "projects": ("*",), **share}
        return Inside(host, container(**(spec or {})), Share(**values))  # type: ignore[arg-type]

    return make


Given = Callable[..., Inside]


@pytest.mark.lxc("A shared directory's owners are the same inside and outside", "L#4722")
def test_owners_are_the_same_inside_and_on_the_host(given: Given, shared: Path) -> None:
    box = given()
    box.start(Mount(share="media", target="/srv/media"), Mount(share="media", subpath="sub/deep", target="/etc/deep"))
    assert box.says("cat /srv/media/of-root /etc/deep; stat -c '%u:%g' /srv/media/of-root /srv/media/of-alice") == (
        "hello\ndeep\n0:0\n1000:1000"
    )
    box.says("echo new > /srv/media/new; chown 1000:1000 /srv/media/new; touch /srv/media/root")
    assert (shared / "new").stat().st_uid == 1000
    assert (shared / "root").stat().st_uid == 0
    flags = box.says("grep ' /srv/media ' /proc/self/mountinfo").split()[5]
    assert {"rw", "nosuid", "nodev"} <= set(flags.split(","))
    assert box.sh("mknod /srv/media/sda b 8 0").exit_code != 0
    mounts = Path("/proc/self/mountinfo").read_text()
    assert box.spec.id not in mounts
    running.stop(box.host, box.spec.id, kill=True)
    assert leaks.find(box.host) == []


@pytest.mark.parametrize("of_share", [True, False])
def test_read_only_stays_read_only_for_root_inside(given: Given, of_share: bool) -> None:
    box = given(read_only=of_share)
    box.start(Mount(share="media", target="/srv/media", read_only=not of_share))
    for script in (
        "echo x > /srv/media/of-root",
        "mount -o remount,bind,rw /srv/media && echo x > /srv/media/of-root",
        "mkdir /tmp/m && mount --bind /srv/media /tmp/m && mount -o remount,bind,rw /tmp/m && echo x > /tmp/m/of-root",
        "mount -o remount,bind,ro,dev,suid /srv/media",
    ):
        assert box.sh(script).exit_code != 0, script
    assert box.says("cat /srv/media/of-root") == "hello"


@pytest.mark.lxc("Links in the target of a mount lead nowhere else", "CVE-2015-1335", "L#674")
def test_links_lead_nowhere_else(given: Given, layer: str, host: Host, shared: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (shared / "out").symlink_to(secret)
    (shared / "up").symlink_to("../secret")
    rootfs = store.rootfs(host, layer)
    (rootfs / str(tmp_path).lstrip("/")).mkdir(parents=True)
    (rootfs / "srv").symlink_to(str(tmp_path))
    (rootfs / "up").symlink_to("../../../../../../.." + str(tmp_path))
    box = given()
    box.start(Mount(share="media", target="/srv/a"), Mount(share="media", target="/up/b"))
    # the links are followed inside the container, where they lead to nothing that is the host's
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "shared"]
    assert box.says("cat /srv/a/of-root") == "hello"
    for subpath in ("out", "up", "sub/../../secret"):
        wanted = dataclasses.replace(box.now.binds[0], subpath=subpath, target="/mnt")
        with pytest.raises(SetupFailed) as failed:
            attaching.change(host, box.spec.id, Attachments((*box.now.binds, wanted)), box.now)
        assert failed.value.details["errno"] in (errno.ELOOP, errno.EXDEV, errno.ENOENT)
        assert str(tmp_path) not in failed.value.message
    assert box.says("cat /srv/a/of-root") == "hello"


@pytest.mark.lxc("A share does not come between /proc and what a start writes there", "CVE-2025-52881")
@pytest.mark.parametrize("privileged", [False, True])
def test_cve_2025_52881_links_in_the_target_do_not_lead_over_proc(
    given: Given, layer: str, host: Host, *, privileged: bool
) -> None:
    rootfs = store.rootfs(host, layer)
    for name, leads in (("set", "/proc/sys/net/ipv4"), ("own", "proc/1/attr"), ("sys", "sys/class"), ("dev", "/dev")):
        (rootfs / f"to-{name}").symlink_to(leads)
    box = given(spec={"privileged": privileged})
    box.start(Mount(share="media", target="/srv"))
    for target, subpath in (
        ("/to-set/ip_forward", "of-root"),
        ("/to-own/exec", "of-root"),
        ("/to-own", ""),
        ("/to-sys/net", "sub"),
        ("/to-dev/null", "of-root"),
        ("/to-dev", "sub"),
    ):
        with pytest.raises(SetupFailed) as failed:
            box.change(Mount(share="media", target="/srv"), Mount(share="media", target=target, subpath=subpath))
        assert (failed.value.details["path"], failed.value.details["errno"]) == (target, errno.EPERM)
    assert box.says("cat /srv/of-root") == "hello"
    assert box.says("grep -E '/shared(/[a-z-]*)? /' /proc/self/mountinfo").split()[4] == "/srv"
    assert box.says("grep -cE '/shared(/[a-z-]*)? /' /proc/self/mountinfo") == "1"
    with pytest.raises(SetupFailed):
        given(spec={"privileged": privileged}).start(Mount(share="media", target="/to-set/ip_forward"))


@pytest.mark.lxc("A directory that is swapped for a link meanwhile leads nowhere", "CVE-2024-45310")
def test_cve_2021_30465_a_directory_that_is_swapped_for_a_link_meanwhile(given: Given, shared: Path) -> None:
    secret = shared.parent / "secret"
    secret.mkdir()
    (secret / "deep").write_text("secret\n")
    (shared / "link").symlink_to("../secret")
    box = given()
    box.start()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (shared / "sub").rename(shared / "kept")
            (shared / "link").rename(shared / "sub")
            (shared / "sub").rename(shared / "link")
            (shared / "kept").rename(shared / "sub")

    thread = threading.Thread(target=swap)
    thread.start()
    wanted = Mount(share="media", subpath="sub", target="/mnt")
    try:
        for _ in range(12):
            try:
                box.change(wanted)
            except SetupFailed:
                continue
            assert box.says("cat /mnt/deep") == "deep"
            box.change()
    finally:
        stop.set()
        thread.join()
    box.change(wanted)
    assert box.says("cat /mnt/deep") == "deep"
    box.change(wanted)
    assert box.says("cat /mnt/deep") == "deep"


def test_a_target_that_is_not_made_and_a_missing_source_are_named(given: Given, host: Host, layer: str) -> None:
    (store.rootfs(host, layer) / "link").symlink_to("/nowhere/at/all")
    for mount, path, number in (
        (Mount(share="media", subpath="gone", target="/mnt"), "media/gone", errno.ENOENT),
        (Mount(share="media", target="/not/there", create=False), "/not/there", errno.ENOENT),
        (Mount(share="media", target="/link"), "/link", errno.EEXIST),
        (Mount(share="media", target="/etc/passwd"), "/etc/passwd", errno.ENOTDIR),
    ):
        box = given()
        with pytest.raises(SetupFailed) as failed:
            box.start(mount)
        assert failed.value.details["step"].startswith("mount the share media")
        assert '"template": "mount the share %(source)s at %(target)s"' in json.dumps(failed.value.kept()["said"])
        assert (failed.value.details["path"], failed.value.details["errno"]) == (path, number)
        assert running.observe(host)[box.spec.id].status == "stopped"
    assert leaks.find(host) == []


def test_an_optional_source_may_be_missing(given: Given) -> None:
    box = given()
    box.start(
        Mount(share="media", subpath="gone", target="/mnt/gone", optional=True), Mount(share="media", target="/mnt/a")
    )
    assert box.says("ls /mnt") == "a"


def test_what_everybody_on_the_host_can_reach_is_shared_read_only(given: Given) -> None:
    with tempfile.TemporaryDirectory(prefix="boxroom-", dir="/tmp") as text:
        Path(text).chmod(0o755)
        box = given(path=text)
        with pytest.raises(SetupFailed) as failed:
            box.start(Mount(share="media", target="/mnt"))
        assert failed.value.details["errno"] == errno.EPERM
        box.start(Mount(share="media", target="/mnt", read_only=True))
        assert box.sh("touch /mnt/x").exit_code != 0
        Path(text).chmod(0o700)
        box.change(Mount(share="media", target="/mnt"))
        assert box.says("touch /mnt/x; ls /mnt") == "x"


def test_a_file_system_without_id_maps_is_told(given: Given) -> None:
    box = given(path="/proc/bus", read_only=True)
    with pytest.raises(SetupFailed, match="knows no id maps") as failed:
        box.start(Mount(share="media", target="/mnt"))
    assert failed.value.details["errno"] == errno.EINVAL


def test_shares_come_and_go_while_it_runs(given: Given, host: Host) -> None:
    box = given()
    box.start()
    init = running.observe(host)[box.spec.id].init_pid
    box.change(Mount(share="media", target="/srv/media"), Mount(share="media", subpath="sub", target="/srv/media/sub"))
    assert box.says("cat /srv/media/of-root /srv/media/sub/deep") == "hello\ndeep"
    # changed in place, and one gone
    box.change(Mount(share="media", target="/srv/media", read_only=True))
    assert box.sh("touch /srv/media/x").exit_code != 0
    assert box.says("grep -c /srv/media /proc/self/mountinfo") == "1"
    running.freeze(host, box.spec.id)
    box.change()
    running.thaw(host, box.spec.id)
    assert box.sh("grep /srv/media /proc/self/mountinfo").exit_code == 1
    assert running.observe(host)[box.spec.id].init_pid == init


def test_a_change_that_fails_leaves_what_was_there(given: Given) -> None:
    box = given()
    box.start(Mount(share="media", target="/srv/a"))
    with pytest.raises(SetupFailed):
        box.change(Mount(share="media", target="/srv/b"), Mount(share="media", target="/no/where", create=False))
    assert box.says("grep -o ' /srv/[a-z] ' /proc/self/mountinfo") == "/srv/a"
    # the container puts something over it: it is not taken from under that
    box.says("mount -t tmpfs none /srv/a")
    with pytest.raises(SetupFailed) as failed:
        box.change()
    assert failed.value.details["errno"] == errno.EBUSY
    # and what it takes away itself is gone
    box.says("umount /srv/a && umount /srv/a")
    box.change()
    assert box.sh("grep /srv/a /proc/self/mountinfo").exit_code == 1


def test_what_was_added_is_there_after_a_reboot_inside(given: Given, host: Host) -> None:
    script = "trap 'reboot -f' USR1; >/tmp/hears; while :; do sleep 1 & wait; done"
    box = given(spec={"init_command": ("/bin/sh", "-c", script)})
    box.start()
    wait_until(lambda: box.sh("test -e /tmp/hears").exit_code == 0, what="init hears it")
    box.change(Mount(share="media", target="/srv/media"), devices=(Device(device="two"),))
    first = running.observe(host)[box.spec.id].init_pid
    with contextlib.suppress(CoreError):  # the boot's end may be the command's
        box.sh("kill -USR1 1")
    wait_until(lambda: running.observe(host)[box.spec.id].init_pid != first, what="a new init")
    wait_until(lambda: _enterable(box), what="it can be entered")
    assert box.says("cat /srv/media/of-root; stat -c %t:%T /dev/kmsg") == "hello\n1:b"


def _enterable(box: Inside) -> bool:
    with contextlib.suppress(CoreError):
        return box.sh("true").exit_code == 0
    return False


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host whose mounts the host shares."""
    directory = tmp_path / "moving"
    directory.mkdir()
    tmp_path.chmod(0o700)
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "--make-shared", directory], check=True)
        (directory / "later").mkdir()
        yield directory
    finally:
        subprocess.run(["umount", "--recursive", directory], check=True)


@pytest.mark.lxc("What the host mounts later appears inside, and not the other way round", "runc#77")
@pytest.mark.parametrize("propagation", ["private", "slave"])
def test_what_the_host_mounts_later_appears_where_it_is_a_slave(given: Given, moving: Path, propagation: str) -> None:
    box = given(path=str(moving), submounts=True)
    box.start(Mount(share="media", target="/srv", propagation=propagation))  # type: ignore[arg-type]
    subprocess.run(["mount", "-t", "tmpfs", "boxroom-test", moving / "later"], check=True)
    (moving / "later" / "file").write_text("later\n")
    assert box.sh("cat /srv/later/file").exit_code == (0 if propagation == "slave" else 1)
    # and never the other way round
    box.says("mkdir /srv/mine && mount -t tmpfs none /srv/mine && touch /srv/mine/hidden")
    assert list((moving / "mine").iterdir()) == []


def test_a_device_can_be_used_while_it_is_given(given: Given) -> None:
    box = given()
    box.start(devices=(Device(device="one"),))
    kind = f"character special file {os.major(ONE):x}:{os.minor(ONE):x}"
    assert box.says("stat -c '%F %t:%T %a %u' /dev/cpu_dma_latency") == f"{kind} 666 0"
    assert box.sh("exec 3>/dev/cpu_dma_latency").exit_code == 0
    box.change(devices=(Device(device="two", mode="0620", uid=1000, gid=5, path="/dev/my/log"),))
    assert box.says("stat -c '%F %t:%T %a %u:%g' /dev/my/log") == "character special file 1:b 620 1000:5"
    assert box.sh("exec 3>/dev/my/log").exit_code == 0
    assert box.sh("test -e /dev/cpu_dma_latency").exit_code == 1
    box.change()
    assert box.sh("test -e /dev/my/log").exit_code == 1


def test_a_privileged_container_may_open_only_what_it_is_given(given: Given) -> None:
    box = given(spec={"privileged": True})
    box.start()
    node = f"mknod /tmp/one c {os.major(ONE)} {os.minor(ONE)} && exec 3>/tmp/one"
    assert box.sh(node).exit_code != 0
    box.change(devices=(Device(device="one", path="/dev/given", mode="0600"),))
    assert box.sh("exec 3>/dev/given").exit_code == 0
    assert box.sh("rm /tmp/one; " + node).exit_code == 0
    box.change()
    assert box.sh("rm /tmp/one; " + node).exit_code != 0
    assert box.sh("exec 3</dev/null").exit_code == 0


def test_what_a_supervisor_does_not_know_harms_it_not(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    box = given()
    box.start()
    for asked in ({"binds": [{"wings": 2}]}, {"nodes": [3]}, {"binds": 4}, [], None):
        with monkeypatch.context() as patched:
            patched.setattr(Attachments, "to_dict", lambda _self, asked=asked: asked)
            with pytest.raises(InvalidTransition):
                box.change(Mount(share="media", target="/srv"))
    long = tuple(Mount(share="media", target=f"/{number:02}{chr(0xE4) * 900}") for number in range(32))
    with pytest.raises(SpecError):
        box.change(*long)
    assert box.says("echo alive") == "alive"


def test_what_is_no_device_is_not_given(given: Given, tmp_path: Path) -> None:
    box = given()
    box.start()
    fake = dataclasses.replace(
        box.resolved(devices=(Device(device="one"),)).nodes[0], path=str(tmp_path), target="/dev/fake"
    )
    with pytest.raises(SetupFailed) as failed:
        attaching.change(box.host, box.spec.id, Attachments((), (fake,)), box.now)
    assert failed.value.details["errno"] == errno.ENODEV
    assert box.sh("test -e /dev/fake").exit_code == 1


def silent_fuse(pid: int, target: str, ready_fd: int, until_fd: int) -> None:
    """As root inside a container, mount a file system that answers nothing, until the other end of a pipe is closed."""
    libc = ctypes.CDLL(None, use_errno=True)
    user_fd, mount_fd = (os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("user", "mnt"))
    libc.setns(user_fd, 0)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    libc.setns(mount_fd, 0)
    fuse_fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse_fd},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"none", target.encode(), b"fuse", 0, options):
        os.write(ready_fd, os.strerror(ctypes.get_errno()).encode())
        return
    asked = os.read(fuse_fd, 65536)
    # struct fuse_in_header, fuse_init_out of protocol 7.31: only the first question, FUSE_INIT, is answered
    unique = struct.unpack_from("=IIQ", asked)[2]
    body = struct.pack("=IIIIHHIIHHI28x", 7, 31, 65536, 0, 16, 12, 65536, 1, 32, 0, 0)
    os.write(fuse_fd, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)
    os.write(ready_fd, b"mounted")
    os.read(until_fd, 1)


def idle(loop: Loop) -> bool:
    """Let a loop do what it has to do now; returns whether it watches nothing any more."""
    loop.later(0.01, loop.stop)
    loop.run()
    return not loop.watching


class _Owner:
    """A supervisor's part in a change, for a container that another supervisor looks after."""

    def __init__(self, given: Inside) -> None:
        run = RunFile.read(given.host.run_path(given.spec.id))
        assert run is not None
        self.id = given.spec.id
        self.plan = StartPlan(
            state_dir=str(given.host.state_dir),
            instance=given.host.instance,
            spec=given.spec,
            id_base=claims.id_base(given.host, given.spec.slot),
            lowers=(),
            upper="",
            work="",
        )
        self.cgroups = detect.open(given.host)
        self.loop = Loop()
        self.child = SimpleNamespace(pid=run.init.pid, pidfd=os.pidfd_open(run.init.pid))


def test_a_change_that_a_file_system_inside_holds_up_is_given_up_and_taken_back(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = given()
    media.start(devices=(Device(device="fuse"),))
    media.says("mkdir /slow")
    owner = _Owner(media)
    ready, until = os.pipe(), os.pipe()
    fuse = os.fork()
    if fuse == 0:
        os.close(until[1])
        try:
            os.close(ready[0])
            silent_fuse(owner.child.pid, "/slow", ready[1], until[0])
        finally:
            os._exit(0)
    os.close(until[0])
    os.close(ready[1])
    try:
        assert os.read(ready[0], 80) == b"mounted"
        came: list[object] = []
        bags = luggage.Luggage(owner)  # type: ignore[arg-type]

        def done(error: object) -> None:
            came.append(error)
            owner.loop.stop()

        wanted = media.resolved(Mount(share="media", target="/a"), Mount(share="media", target="/slow/b"))
        with monkeypatch.context() as patched:
            patched.setattr(luggage, "CHANGE_SEC", 0.3)
            bags.change(wanted, done)
            owner.loop.run()  # comes to an end, though the errand cannot be killed while the kernel waits
        assert isinstance(came[0], TimedOut)
        assert bags.held == ()
        assert media.sh("test -e /a/of-root").exit_code == 1
        # and it is no worse afterwards
        bags.change(media.resolved(Mount(share="media", target="/a")), done)
        owner.loop.run()
        assert came[1] is None
        assert media.says("cat /a/of-root") == "hello"
    finally:
        os.close(until[1])
        os.waitpid(fuse, 0)
        wait_until(lambda: idle(owner.loop), what="the errand is reaped, now that the kernel lets it end")
        owner.loop.close()
        for fd in (ready[0], owner.child.pidfd):
            os.close(fd)
