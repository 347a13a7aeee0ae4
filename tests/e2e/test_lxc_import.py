"""Containers made by Debian's own LXC tools, taken over by `manage.py import-lxc`, run under Boxroom."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .. import lxc as lxc_tools
from .instance import Instance, call

pytestmark = pytest.mark.e2e

PLAIN = """
lxc.include = /usr/share/lxc/config/common.conf
lxc.net.0.type = veth
lxc.net.0.link = lxcbr0
lxc.net.0.hwaddr = {mac}
lxc.cgroup2.memory.max = 256M
lxc.environment = FROM=lxc
lxc.start.auto = 0
"""
IDMAPPED = """
lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
lxc.idmap = u 0 1000000 65536
lxc.idmap = g 0 1000000 65536
lxc.net.0.type = empty
"""
OLD = """
# as LXC 1 and 2 wrote it
lxc.utsname = {name}
lxc.rootfs = {rootfs}
lxc.tty = 4
lxc.pts = 1024
lxc.cap.drop = sys_module mac_admin mac_override
lxc.haltsignal = SIGUSR1
lxc.cgroup.memory.limit_in_bytes = 128M
lxc.network.type = veth
lxc.network.flags = up
lxc.network.link = lxcbr0
"""


@pytest.fixture
def lxc() -> Iterator[Path]:
    """An LXC directory of its own."""
    path = Path(tempfile.mkdtemp(prefix="lxc-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def lxc_create(lxc: Path, name: str, config: str) -> None:
    base = lxc / "base.conf"
    base.write_text(config)
    command = [*lxc_tools.prefix(), "lxc-create", "-P", str(lxc), "-n", name, "-t", "busybox", "-f", str(base)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    base.unlink()


def beside_lxc(instance: Instance) -> Instance:
    """Return the instance as somebody would command it where LXC is installed: includes are of its files."""
    return dataclasses.replace(instance, wrapper=lxc_tools.prefix())


def run(instance: Instance, lxc: Path, *arguments: str, status: int = 0) -> list[dict[str, object]]:
    """Run import-lxc, and return what it says."""
    done = beside_lxc(instance).manage("import-lxc", "--path", str(lxc), "--json", *arguments, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def fates_of(said: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(one["key"], one["value"]): one["fate"] for one in said["keys"]}


def inside(api: httpx.Client, name: str, *command: str) -> str:
    answer = api.post(f"/containers/{name}/exec", json={"command": list(command)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["exit_code"] == 0, answer.text
    return str(answer.json()["stdout"]).strip()


def owner(path: Path) -> int:
    return path.lstat().st_uid


@pytest.mark.lxc("A container made by Debian's lxc-create is taken over and boots", "lxc-create")
def test_a_privileged_one(instance: Instance, api: httpx.Client, lxc: Path, name: str) -> None:
    mac = f"10:66:6a:{':'.join(f'{byte:02x}' for byte in uuid.uuid4().bytes[:3])}"
    lxc_create(lxc, name, PLAIN.format(mac=mac))
    (lxc / name / "rootfs/etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")

    (planned,) = run(instance, lxc, name, "--dry-run")
    assert planned["operation"] is None
    assert api.get(f"/containers/{name}").status_code == 404

    (said,) = run(instance, lxc, name)
    assert said["status"] == "succeeded", said
    assert said["problems"] == []
    fates = fates_of(said)
    assert fates_of(planned) == fates
    assert fates["lxc.net.0.hwaddr", mac] == "taken"
    assert fates["lxc.net.0.link", "lxcbr0"] == "translated"
    assert fates["lxc.cgroup2.memory.max", "256M"] == "translated"
    assert fates["lxc.signal.halt", "SIGUSR1"] == "taken"
    assert fates["lxc.tty.dir", "lxc"] == "left out"
    assert (lxc / name / "rootfs/sbin/init").exists(), "LXC's own stays"

    row = api.get(f"/containers/{name}").json()
    assert (row["status"], row["limits"]["memory_bytes"]) == ("stopped", 256 << 20)
    call(api, "POST", f"/containers/{name}/start")
    assert inside(api, name, "/bin/hostname") == name
    assert inside(api, name, "/bin/cat", "/etc/machine-id") == "0123456789abcdef0123456789abcdef"
    assert inside(api, name, "/bin/sh", "-c", "echo $FROM") == "lxc"
    assert inside(api, name, "/bin/cat", "/sys/class/net/eth0/address") == mac
    assert inside(api, name, "/bin/sh", "-c", "read a b c </proc/self/uid_map; echo $b") != "0", "unprivileged here"
    assert inside(api, name, "/bin/cat", "/proc/1/comm") == "init"
    call(api, "POST", f"/containers/{name}/stop")

    (again,) = run(instance, lxc, name, status=1)
    assert again["error"]["code"] == "already-exists"  # type: ignore[index]
    (twin,) = run(instance, lxc, name, "--name", f"{name}-2", "--dry-run")
    others = dict(fates_of(twin).items() - fates.items())
    assert others == {("lxc.net.0.hwaddr", mac): "left out", ("lxc.uts.name", name): "translated"}
    audit = api.get("/audit").json()["items"]
    assert [one["outcome"] for one in audit if (one["action"], one["object"]) == ("container.import", name)] == [
        "succeeded"
    ]


@pytest.mark.lxc("An unprivileged one is moved, its owners shifted back", "lxc-create", "lxc.idmap")
def test_an_idmapped_one_is_moved(instance: Instance, api: httpx.Client, lxc: Path, name: str) -> None:
    lxc_create(lxc, "was", IDMAPPED)
    rootfs = lxc / "was/rootfs"
    assert owner(rootfs / "etc/passwd") == 1_000_000
    (said,) = run(instance, lxc, "was", "--name", name, "--move")
    assert (said["lxc"], said["name"], said["status"]) == ("was", name, "succeeded")
    assert list(lxc.iterdir()) == []
    call(api, "POST", f"/containers/{name}/start")
    assert inside(api, name, "/bin/stat", "-c", "%u", "/etc/passwd") == "0"
    assert inside(api, name, "/bin/hostname") == name
    call(api, "POST", f"/containers/{name}/stop")
    assert api.get(f"/containers/{name}").json()["last_exit"]["reason"] == "stopped", "its own halt signal ends it"


@pytest.mark.lxc("The names of before LXC 2.1 are understood", "lxc-update-config")
def test_one_of_lxc_1_and_what_speaks_against_others(
    instance: Instance, api: httpx.Client, lxc: Path, name: str
) -> None:
    lxc_create(lxc, "made", "lxc.net.0.type = empty\n")
    (lxc / "made").rename(lxc / name)
    config = lxc / name / "config"
    config.write_text(OLD.format(name=name, rootfs=lxc / name / "rootfs"))
    (lxc / "bad").mkdir()
    (lxc / "bad/config").write_text("lxc.rootfs.path = zfs:tank/bad\nlxc.include = /none\n")
    bad, good = run(instance, lxc, status=1)
    assert bad["error"]["field"] == "rootfs"  # type: ignore[index]
    assert "/none" in bad["problems"][0]["what"]  # type: ignore[index]
    assert good["status"] == "succeeded", good
    row = api.get(f"/containers/{name}").json()
    assert row["limits"]["memory_bytes"] == 128 << 20
    call(api, "POST", f"/containers/{name}/start")
    assert inside(api, name, "/bin/id", "-u") == "0"

    asked = ("--config", str(config), "--name", f"{name}-2", "--dry-run")
    words = beside_lxc(instance).manage("import-lxc", *asked).stdout
    assert f"{name} -> {name}-2" in words
    assert "taken       lxc.haltsignal = SIGUSR1: " in words
    assert words.strip().endswith("nothing was changed")
