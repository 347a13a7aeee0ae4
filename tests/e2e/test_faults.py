"""What goes wrong around the panel: a full disk, images that cannot be made, inits that end, a host that restarts."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ..ports import free_port
from .instance import Instance, call, wait_until
from .test_robustness import ended, healthy, kill

MIB = 1024**2


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """An ext4 of 96 MiB that nothing else lies on."""
    base = Path(tempfile.mkdtemp(prefix="boxroom-disk-"))
    image, mount = base / "image", base / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(96 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "1", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    yield mount
    (mount / "ballast").unlink(missing_ok=True)
    Instance(mount / "state", 0).down(containers=True)
    subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(base)


def fill(disk: Path, *, but_bytes: int) -> Path:
    """Take what room there is, down to but_bytes; return the file that does."""
    path = disk / "ballast"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        while but_bytes == 0 or shutil.disk_usage(disk).free > but_bytes:
            os.write(fd, bytes(4096))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(fd)
    return path


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    instance = Instance(small_disk / "state", free_port())
    instance.up()
    with instance.client() as api:
        call(api, "POST", "/containers", {"name": "one", "image": "busybox", "start": True})
        write = ["dd", "if=/dev/zero", "of=/root/data", "bs=1M", "count=20"]
        assert api.post("/containers/one/exec", json={"command": write}).json()["exit_code"] == 0
        ballast = fill(small_disk, but_bytes=6 * MIB)
        for path, body in (("/containers/one/snapshots", {}), ("/containers/one/clone", {"name": "two"})):
            operation = api.post(f"{path}?wait=60", json=body).json()
            assert (operation["status"], operation["error"]["code"]) == ("failed", "storage-full"), operation
            assert operation["error"]["errno"] == 28
            assert operation["error"]["path"].startswith(str(instance.state_dir))
            assert "no space left" in operation["message"]
        assert [row["name"] for row in api.get("/containers").json()["items"]] == ["one"]
        instance.nothing_left()

        ballast.unlink()
        fill(small_disk, but_bytes=0)
        refused = api.post("/containers/one/stop")
        assert refused.status_code == 503
        assert "full" in refused.json()["message"]
        assert api.get("/containers").status_code == 200
        watcher = instance.pids("manage.py")
        time.sleep(3)  # everything that logs has logged, onto a disk that takes no more
        assert set(watcher) & set(instance.pids("manage.py"))
        assert instance.pids("daphne")

        ballast.unlink()
        wait_until(lambda: healthy(instance), "healthy with room again")
        call(api, "POST", "/containers/one/snapshots", {})
        call(api, "POST", "/containers/one/stop", {"timeout": 10})
    instance.remove()


def image_name() -> str:
    return f"i-{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ({"suite": "bookworm", "mirror": "http://mirror.invalid/debian"}, "mirror.invalid"),
        ({"suite": "bookworm", "packages": ["no-such-package-at-all"]}, "no-such-package-at-all"),
    ],
)
def test_an_image_that_cannot_be_made_says_why(
    instance: Instance, api: httpx.Client, source: dict[str, Any], word: str
) -> None:
    name = image_name()
    asked = api.post("/images", json={"name": name, "source": {"type": "debootstrap", **source}})
    assert asked.status_code == 202, asked.text
    operation = ended(api, asked.json()["id"], 120)
    assert operation["status"] == "failed"
    assert word in f"{operation['message']} {operation['error']['console']}", operation
    instance.nothing_left()
    call(api, "DELETE", f"/images/{name}")


def test_a_build_is_cancelled_half_way(instance: Instance, api: httpx.Client) -> None:
    name = image_name()
    asked = api.post("/images", json={"name": name, "source": {"type": "debootstrap", "suite": "bookworm"}}).json()
    wait_until(
        lambda: api.get(f"/operations/{asked['id']}").json()["progress_pct"] >= 3, "some progress", timeout_sec=120
    )
    assert api.post(f"/operations/{asked['id']}/cancel").status_code in (200, 202)
    operation = ended(api, asked["id"])
    assert operation["status"] == "cancelled", operation
    wait_until(lambda: not instance.pids("debootstrap"), "the end of debootstrap")
    instance.nothing_left()
    call(api, "DELETE", f"/images/{name}")


def test_a_build_whose_worker_is_killed_begins_again(instance: Instance, api: httpx.Client) -> None:
    name = image_name()
    asked = api.post("/images", json={"name": name, "source": {"type": "debootstrap", "suite": "bookworm"}}).json()
    wait_until(
        lambda: api.get(f"/operations/{asked['id']}").json()["progress_pct"] >= 3, "some progress", timeout_sec=120
    )
    for pid in instance.pids("celery"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: healthy(instance), "healthy")
    wait_until(
        lambda: (
            "the worker was lost" in api.get(f"/operations/{asked['id']}").text.lower()
            or "resumed" in api.get(f"/operations/{asked['id']}").text.lower()
        ),
        "the build to begin again",
    )
    wait_until(lambda: api.post(f"/operations/{asked['id']}/cancel").status_code in (200, 202), "the cancel taken")
    assert ended(api, asked["id"])["status"] == "cancelled"
    instance.nothing_left()
    call(api, "DELETE", f"/images/{name}")


@pytest.mark.parametrize(
    ("init", "reason", "code"),
    [(["/bin/true"], "exit", 0), (["/bin/sh", "-c", "echo last words; exit 3"], "exit", 3)],
)
def test_an_init_that_exits_at_once(
    instance: Instance, api: httpx.Client, name: str, init: list[str], reason: str, code: int
) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "init_command": init})
    api.post(f"/containers/{name}/start?wait=60")
    row = wait_until(
        lambda: (lambda r: r if r["status"] == "stopped" and r["last_exit"] else None)(
            api.get(f"/containers/{name}").json()
        ),
        "stopped again",
    )
    assert (row["last_exit"]["reason"], row["last_exit"]["exit_code"]) == (reason, code)
    if code:
        assert "last words" in row["last_exit"]["console"]
    instance.nothing_left()


@pytest.mark.parametrize(("init", "number"), [("/sbin/missing", 2), ("/etc/passwd", 13), ("/root", 13)])
def test_an_init_that_is_none(instance: Instance, api: httpx.Client, name: str, init: str, number: int) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "init_command": [init]})
    operation = api.post(f"/containers/{name}/start?wait=60").json()
    assert operation["status"] == "failed"
    assert operation["error"]["errno"] == number, operation
    assert operation["error"]["path"] == init
    assert operation["error"]["step"]
    assert init in operation["message"]
    instance.nothing_left()


def test_a_host_that_restarts_with_containers_running(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Power is cut: everything dies at once, /run and the kernel's objects are gone, the boot id is another."""
    # a shell would hear SIGINT, and end before the power is cut on a busy machine
    deaf = ["/bin/sleep", "100000"]
    instance = Instance.start()
    request.addfinalizer(lambda: instance.state_dir.exists() and instance.remove())
    with instance.client() as api:
        for name, more in (("auto", {"autostart": True}), ("plain", {}), ("busy", {"init_command": deaf})):
            call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True, **more})
        stopping = api.post("/containers/busy/stop", json={"timeout": 300}).json()["id"]
        wait_until(lambda: api.get(f"/operations/{stopping}").json()["status"] == "running", "the stop to begin")
    cut_power(instance)

    boot_id = tmp_path / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    (tmp_path / "proc").mkdir()
    # a second proc: the kernel lets containers mount theirs only where one is there that nothing covers
    script = (
        f'mount -t proc proc {tmp_path}/proc && mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec "$@"'
    )
    instance.wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh")
    instance.up()
    instance.wrapper = ("nsenter", "--mount", "--target", str(instance.pids("manage.py up")[0]), "--")
    with instance.client() as api:
        wait_until(lambda: api.get("/containers/auto").json()["status"] == "running", "autostart")
        for name in ("plain", "busy"):
            row = wait_until(
                lambda name=name: (r := api.get(f"/containers/{name}").json())["status"] == "stopped" and r, name
            )
            assert row["last_exit"]["reason"] == "host-reboot", row["last_exit"]
        operation = ended(api, stopping)
        assert operation["status"] == "succeeded"
        assert "resumed" in operation["message"]
        call(api, "POST", "/containers/plain/start")
    instance.nothing_left()
    instance.down(containers=True)
    instance.wrapper = ()
    instance.remove()


def cut_power(instance: Instance) -> None:
    """End every process of an instance at once, then take away what a restart of the host takes away."""
    from containers.core.cgroups import detect
    from containers.core.host import Host
    from containers.core.hoststore import claims
    from containers.core.network import networks

    host = Host.open(instance.state_dir)
    cgroups = detect.open(host)
    kill(instance.pids("manage.py up"))
    kill(instance.pids(""))
    for path in host.containers_dir.iterdir():
        cgroups.kill(path.name)
        cgroups.wait_empty(path.name, 60)
        cgroups.remove(path.name)
    networks.remove_all(host)

    def dead() -> bool:
        kill(left := instance.pids(""))  # what one of them had just started is on no list
        return not left

    wait_until(dead, "the end of all processes")
    cgroups.remove_instance()
    claims.release(host)
    shutil.rmtree(host.run_dir)
