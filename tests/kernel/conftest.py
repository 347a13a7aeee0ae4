"""Fixtures over real kernel objects, and the check after every test that none of them is left."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from containers.core.cgroups import Cgroups, detect
from containers.core.host import Host
from containers.core.hoststore import claims, more_ids, store
from containers.core.lifecycle import running, stored
from containers.core.model.spec import Spec
from containers.core.network.plugging import Placed
from containers.core.plans.start_plan import TITLE_ROOM

from .leftovers import Watch
from .nursery import Forked, Nursery
from .patience import patient, wait_until

PROJECT = Path(__file__).resolve().parents[2]
BUSYBOX = Path("/bin/busybox")
APPLETS_IN = ("bin", "sbin", "usr/bin", "usr/sbin")
BOUND = ("setpriv", "--pdeathsig", "TERM")
"""What a launcher is started by, so that it ends with the run, however that ends."""
INIT_IDLE = "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 3600 & wait $!; done\n"
"""An init that does nothing, reaps, and ends at SIGTERM."""

STRICT = os.environ.get("BOXROOM_TEST_STRICT") == "1"
WARM = os.environ.get("BOXROOM_TEST_WARM") == "1"
OWN_LAUNCHERS = frozenset(
    "confinement exactness field_security handing_over hooks interrupted isolation leaks nursery pages reboot rights"
    " security start".split()
)  # fmt: skip
"""Files that ask what a launcher is, or what containers have from whoever started it: there each is started as the
panel starts it. In the others, and in all of them where BOXROOM_TEST_WARM=1 says so, it is forked, at a twentieth
of the cost."""
_WATCH = pytest.StashKey[Watch]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this directory, and skip it by name where there is no root."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.kernel)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


class NoNetwork:
    """The port for containers without NICs."""

    def attach(self, spec: Spec, netns_fd: int) -> list[Placed]:
        """There is nothing to attach."""
        assert not spec.nics
        os.fstat(netns_fd)
        return []

    def detach(self, spec: Spec) -> None:
        """There is nothing to take away."""


# -- what must not be left --------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Look at what is there before the test's fixtures."""
    nursery()
    item.stash[_WATCH] = Watch()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Note which instances the fixtures make."""
    made = yield
    if _WATCH in request.node.stash:
        request.node.stash[_WATCH].take(made)
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Fail the test that leaves a process, descriptor, mount, cgroup, link or directory of its instance."""
    watch = item.stash[_WATCH]
    watch.note_claims()
    yield
    left = watch.leaks()
    assert not left, "left behind:\n" + "\n".join(left)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With BOXROOM_TEST_STRICT=1 a kernel test that skips itself fails: this machine must be able to run it."""
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped itself, which BOXROOM_TEST_STRICT forbids: {report.longrepr}"
    return report


# -- one instance -----------------------------------------------------------------------------------------------------


@functools.cache
def nursery() -> Nursery:
    """Return what all launchers of this run are forked from."""
    return Nursery(TITLE_ROOM)


def pytest_unconfigure() -> None:
    """End it."""
    if nursery.cache_info().currsize:
        nursery().close()


@functools.cache
def applets() -> tuple[str, ...]:
    """Return busybox's applets, as paths from the root directory."""
    listed = subprocess.run([BUSYBOX, "--list-full"], check=True, capture_output=True, text=True).stdout.split()
    return tuple(path for path in listed if path != "bin/busybox" and path.rpartition("/")[0] in APPLETS_IN)


def make_layer(host: Host) -> str:
    """Make a read-only layer that holds a static busybox with all its applets; returns the layer's id."""
    layer = store.new_layer_id()
    rootfs = store.rootfs(host, layer)
    for name in (*APPLETS_IN, "etc", "proc", "sys", "dev", "tmp", "root", "run", "var"):
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    (rootfs / "tmp").chmod(0o1777)
    shutil.copy2(BUSYBOX, rootfs / "bin/busybox")
    for applet in applets():
        os.symlink("/bin/busybox", f"{rootfs}/{applet}")
    (rootfs / "sbin/idle").write_text(INIT_IDLE)
    (rootfs / "sbin/idle").chmod(0o755)
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\nalice:x:1000:\n")
    (rootfs / "etc/inittab").write_text("::sysinit:/bin/true\n::respawn:-/bin/sh\n")
    return layer


_NUMBERS = itertools.count(secrets.randbelow(1024), 5)
"""Of containers: a slot's neighbour is free for a twin."""


def make_spec(layer: str, **changes: object) -> Spec:
    """Return a spec for a container of that layer; every one has an id, a slot and a name of its own."""
    number = next(_NUMBERS) % 1024
    values: dict[str, object] = {
        "id": secrets.token_hex(6),
        "name": f"c-{number}-{secrets.token_hex(2)}",
        "project": "default",
        "slot": number,
        "image": "busybox",
        "layers": (layer,),
        "machine_id": secrets.token_hex(16),
        "created_at": "2026-01-01T00:00:00+00:00",
        "init_command": ("/sbin/idle",),
    }
    values.update(changes)
    return Spec(**values)  # type: ignore[arg-type]


class Launcher:
    """A launcher process of a test's instance."""

    def __init__(self, host: Host, *, forked: bool = WARM) -> None:
        self.host = host
        script = PROJECT / "containers/core/proc/launcher.py"
        environment = {"BOXROOM_STATE_DIR": str(host.state_dir), "PATH": os.environ["PATH"]}
        self.process: subprocess.Popen[bytes] | Forked = (
            nursery().fork(host.state_dir, environment)
            if forked
            else subprocess.Popen(
                [*BOUND, sys.executable, "-I", "-S", "-B", str(script), str(host.state_dir), TITLE_ROOM],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        )
        self._socket = str(host.launcher_socket)
        wait_until(self._answers, what="the launcher listens")

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the launcher ended"
        if not os.path.exists(self._socket):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            return probe.connect_ex(self._socket) == 0

    def stop(self) -> None:
        """End the launcher."""
        self.process.terminate()
        self.process.wait(patient(60))


def _removed(groups: Cgroups) -> bool:
    """Remove an instance's cgroups; a supervisor that has told of its end may be in them still, on its way out."""
    groups.remove_instance()
    return not any(path.exists() for path in groups.instance_dirs())


def clear_away(host: Host) -> None:
    """Remove what an instance has on this host, whose containers and launcher have ended."""
    claims.release(host)
    groups = detect.open(host)
    shutil.rmtree(host.run_dir, ignore_errors=True)
    shutil.rmtree(host.state_dir, ignore_errors=True)
    wait_until(lambda: _removed(groups), what="the last process has left the instance's cgroups")


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """An instance of its own: state directory, run directory, a running launcher; all gone afterwards."""
    state_dir = Path(tempfile.mkdtemp(prefix="boxroom-"))
    state_dir.chmod(0o711)
    instance = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(5))
    (state_dir / "instance.json").write_text(json.dumps({"id": instance, "host": "local"}))
    made = Host.open(state_dir)
    made.run_dir.mkdir(parents=True, mode=0o755)
    made.supervisor_dir().mkdir(mode=0o750)
    made.log_dir.mkdir()
    store.prepare(made)
    launcher = Launcher(made, forked=WARM or request.path.stem.removeprefix("test_") not in OWN_LAUNCHERS)
    made.__dict__["test_launcher"] = launcher
    try:
        yield made
    finally:
        for container_id in store.container_ids(made):
            with contextlib.suppress(Exception):
                running.stop(made, container_id, kill=True)
        launcher = made.__dict__["test_launcher"]
        launcher.stop()
        clear_away(made)


@pytest.fixture
def ids_of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a host that gives root a million ids, far from everybody's."""
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("root:3000000000:1000000\nalice:3000000000:65536\n")
    monkeypatch.setattr(more_ids, "ETC", tmp_path)


def unmount(place: Path) -> None:
    """Unmount a file system, once the kernel has let go of it for all who have ended: it does so at its own time."""
    wait_until(
        lambda: subprocess.run(["/usr/bin/umount", place], capture_output=True, check=False).returncode == 0,
        what=f"{place} is unmounted",
    )


@pytest.fixture
def layer(host: Host) -> str:
    """A busybox layer in the host's store."""
    return make_layer(host)


@pytest.fixture
def container(host: Host, layer: str) -> Callable[..., Spec]:
    """Return a function that makes a container: ``container(init_command=...)``; the fixture host clears it away."""

    def make(**changes: object) -> Spec:
        return stored.create(host, make_spec(layer, **changes))

    return make


@pytest.fixture
def running_container(host: Host, container: Callable[..., Spec]) -> Spec:
    """A container that runs an idle init, without a network."""
    spec = container()
    running.start(host, spec, network=NoNetwork())
    return spec
