"""A container or a snapshot made an image."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from containers.core import failpoints
from containers.core.errors import NotFound
from containers.core.hoststore import store
from containers.core.images.base import Order
from containers.core.lifecycle import publishing, running, snapshots, stored

from .conftest import NoNetwork, make_spec


def order(host, name: str = "web") -> Order:
    return Order(
        host=host, name=name, source={}, progress=lambda *_: None, log=lambda _line: None, cancelled=lambda: False
    )


def upper(host, spec) -> Path:
    return store.rootfs(host, store.load_root(host, spec.id).writable)


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_stopped_container_becomes_an_image_without_a_copy(host, container):
    spec = container(environment={"A": "b"}, halt_signal="SIGTERM")
    put(upper(host, spec), "srv/page", "mine")
    put(upper(host, spec), "etc/ssh/ssh_host_ed25519_key", "secret")
    put(upper(host, spec), "etc/os-release", "ID=tiny\n")
    built = publishing.publish(order(host), spec.id)
    assert built.defaults == {
        "init_command": ["/sbin/idle"],
        "environment": {"A": "b"},
        "halt_signal": "SIGTERM",
    }
    assert (built.details["os"], built.details["published_from"]) == ("tiny", spec.name)
    assert built.layers[:-1] == store.load_root(host, spec.id).layers, "shared, not copied"
    assert store.load_image(host, "web").layers == built.layers
    stored.delete(host, spec.id)
    made = stored.create(host, make_spec(built.layers[0], layers=built.layers))
    running.start(host, made, network=NoNetwork())
    seen = running.observe_one(host, made.id)
    assert seen is not None
    inside = Path(f"/proc/{seen.init_pid}/root")
    assert (inside / "srv/page").read_text() == "mine"
    assert not (inside / "etc/ssh/ssh_host_ed25519_key").exists()
    assert (inside / "etc/machine-id").read_text().strip() == made.machine_id
    running.stop(host, made.id, kill=True)


def test_a_running_container_becomes_one_and_runs_on(host, running_container):
    spec = running_container
    seen = running.observe_one(host, spec.id)
    assert seen is not None
    inside = ["nsenter", "-t", str(seen.init_pid), "-U", "-m", "-S", "0", "-G", "0"]
    subprocess.run([*inside, "/bin/busybox", "touch", "/tmp/mine"], check=True)
    built = publishing.publish(order(host), spec.id)
    after = running.observe_one(host, spec.id)
    assert after is not None
    assert (after.status, after.init_pid) == (seen.status, seen.init_pid)
    assert any((store.rootfs(host, layer) / "tmp/mine").exists() for layer in built.layers)


def test_a_snapshot_becomes_one_as_it_was(host, container):
    spec = container()
    put(upper(host, spec), "srv/page", "then")
    snapshots.snapshot(host, spec.id, "snap0")
    put(upper(host, spec), "srv/page", "now")
    built = publishing.publish(order(host), spec.id, "snap0")
    pages = [store.rootfs(host, layer) / "srv/page" for layer in built.layers]
    assert [page.read_text() for page in pages if page.exists()] == ["then"]
    with pytest.raises(NotFound):
        publishing.publish(order(host, "other"), spec.id, "none")
    assert stored.orphans(host) == []


@pytest.mark.parametrize("point", ["publish.layers", "publish.cleaned", "publish.committed"])
def test_killed_anywhere_there_is_an_image_or_none(host, container, point):
    spec = container()
    put(upper(host, spec), "srv/page", "mine")
    (host.state_dir / failpoints.MARKER).touch(mode=0o600)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from containers.core.host import Host; from containers.core.lifecycle import publishing\n"
        "from containers.core.images.base import Order\n"
        "n = lambda *_: None\n"
        "o = Order(host=Host.open(sys.argv[2]), name='web', source={}, progress=n, log=n, cancelled=lambda: False)\n"
        "publishing.publish(o, sys.argv[3])"
    )
    project = str(Path(__file__).resolve().parents[2])
    python = str(Path(project) / ".venv/bin/python")
    done = subprocess.run(
        [python, "-c", program, project, str(host.state_dir), spec.id],
        env={**os.environ, failpoints.VARIABLE: f"{point}=kill9"},
        check=False,
        capture_output=True,
    )
    assert done.returncode == -9, done.stderr.decode()
    stored.recover(host)
    assert stored.orphans(host) == []
    assert set(store.images(host)) == ({"web"} if point == "publish.committed" else set())
    publishing.publish(order(host), spec.id)
    assert (store.rootfs(host, store.load_image(host, "web").layers[1]) / "srv/page").read_text() == "mine"
