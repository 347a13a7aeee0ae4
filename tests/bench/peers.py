"""Other runtimes, started with the same root, limits and a veth on a bridge. All names are the bench's own.

Every peer's methods return what the call took, in ms; start() ends when init's first instruction has run, where the
marker is its init, else when the tool returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from containers.core.kernel import syscalls

from . import marker
from .measure import timed

BRIDGE: Final = "bxbench0"
CGROUP: Final = "boxroom-bench"
MEMORY_BYTES: Final = 64 * 1024**2
PIDS: Final = 100


def run(*command: str) -> None:
    """Run a command; raises with what it said where it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


@contextlib.contextmanager
def bridge() -> Iterator[None]:
    """Make the bench's bridge, without an address, and remove it."""
    with IPRoute() as ip:
        for stale in ip.link_lookup(ifname=BRIDGE):
            ip.link("del", index=stale)
        ip.link("add", ifname=BRIDGE, kind="bridge")
        ip.link("set", index=ip.link_lookup(ifname=BRIDGE)[0], state="up")
        try:
            yield
        finally:
            ip.link("del", index=ip.link_lookup(ifname=BRIDGE)[0])


class Lxc:
    """lxc-start without a distribution's hooks. mode: overlay (privileged) or idmap (an id-mapped mount)."""

    def __init__(self, work: Path, rootfs: Path, mode: str) -> None:
        self.path = work / f"lxc-{mode}"
        self.path.mkdir()
        self.rootfs, self.mode = rootfs, mode
        self.serial = 0

    @classmethod
    def installed(cls) -> bool:
        """Whether its programs are there."""
        return shutil.which("lxc-start") is not None

    def make(self, name: str, init: str, *, plain: bool = False) -> None:
        """Define a container; init: a path inside. plain: its root is a directory, for lxc-copy to put overlays on."""
        home = self.path / name
        home.mkdir()
        self.serial += 1
        if plain:
            shutil.copytree(self.rootfs, home / "rootfs", symlinks=True)
            root = [f"lxc.rootfs.path = dir:{home}/rootfs"]
        elif self.mode == "overlay":
            (home / "delta").mkdir()
            root = [f"lxc.rootfs.path = overlayfs:{self.rootfs}:{home}/delta"]
        else:
            shutil.copytree(self.rootfs, home / "rootfs", symlinks=True)
            root = [f"lxc.rootfs.path = dir:{home}/rootfs", "lxc.rootfs.options = idmap=container",
                    f"lxc.idmap = u 0 {_first_id('uid')} 65536",
                    f"lxc.idmap = g 0 {_first_id('gid')} 65536"]  # fmt: skip
        lines = [
            *root,
            f"lxc.uts.name = {name}",
            f"lxc.init.cmd = {init}",
            "lxc.signal.halt = SIGUSR2",
            "lxc.net.0.type = veth",
            f"lxc.net.0.link = {BRIDGE}",
            f"lxc.net.0.veth.pair = bxb{self.mode[0]}{self.serial}",
            "lxc.net.0.flags = up",
            f"lxc.cgroup.dir = {CGROUP}-lxc-{self.mode}-{name}",
            "lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed",
            "lxc.apparmor.profile = unconfined",
            "lxc.tty.max = 1",
            "lxc.pty.max = 64",
            f"lxc.cgroup.memory.limit_in_bytes = {MEMORY_BYTES}",
            f"lxc.cgroup.pids.max = {PIDS}",
            "lxc.cgroup.cpu.cfs_period_us = 100000",
            "lxc.cgroup.cpu.cfs_quota_us = 100000",
            f"lxc.log.file = {home}/log",
        ]
        (home / "config").write_text("\n".join(lines) + "\n")

    def root(self, name: str) -> Path:
        """Return where the container's writes are seen."""
        return self.path / name / ("delta" if self.mode == "overlay" else "rootfs")

    def start(self, name: str, *, to_marker: bool = True) -> float:
        marker.forget(self.root(name))
        began = time.monotonic()
        run("lxc-start", "-P", str(self.path), "-n", name, "-d")
        ended = marker.started_at(self.root(name)) if to_marker else time.monotonic()
        return (ended - began) * 1000

    def kill(self, name: str) -> float:
        return timed(lambda: run("lxc-stop", "-P", str(self.path), "-n", name, "-k"))

    def stop(self, name: str) -> float:
        return timed(lambda: run("lxc-stop", "-P", str(self.path), "-n", name, "-t", "20"))

    def exec(self, name: str) -> float:
        return timed(lambda: run("lxc-attach", "-P", str(self.path), "-n", name, "--clear-env", "--", "/bin/true"))

    def freeze(self, name: str) -> float:
        return timed(lambda: run("lxc-freeze", "-P", str(self.path), "-n", name))

    def thaw(self, name: str) -> None:
        run("lxc-unfreeze", "-P", str(self.path), "-n", name)

    def clone(self, name: str, new: str) -> float:
        return timed(
            lambda: run("lxc-copy", "-P", str(self.path), "-p", str(self.path), "-n", name, "-N", new,
                        "-s", "-B", "overlay")
        )  # fmt: skip

    def snapshot(self, name: str) -> float:
        return timed(lambda: run("lxc-snapshot", "-P", str(self.path), "-n", name))

    def delete(self, name: str) -> float:
        return timed(lambda: run("lxc-destroy", "-P", str(self.path), "-n", name, "-s", "-f"))


def _first_id(kind: str) -> int:
    """Return where root's ids for containers begin (subuid(5)); anywhere, where nobody has said so."""
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/etc/sub{kind}").read_text().splitlines():
            if line.startswith("root:"):
                return int(line.split(":")[1])
    return 2_000_000_000


class Crun:
    """crun with a directory as its root and a veth made by hand between create and start.

    crun 1.8 does not know hybrid cgroups: it runs in a mount namespace without the unified tree.
    """

    def __init__(self, work: Path, rootfs: Path) -> None:
        self.path = work / "crun"
        (self.path / "state").mkdir(parents=True)
        self.rootfs = rootfs
        self.serial = 0
        self._ip = IPRoute()
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c",
             "umount /sys/fs/cgroup/unified 2>/dev/null; echo ready; exec sleep infinity"],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self._namespace = os.open(f"/proc/{self._holder.pid}/ns/mnt", os.O_RDONLY)

    @classmethod
    def installed(cls) -> bool:
        """Whether it is there."""
        return shutil.which("crun") is not None

    def close(self) -> None:
        """Let go of the mount namespace."""
        os.close(self._namespace)
        self._holder.kill()
        self._holder.wait()
        self._ip.close()

    def _run(self, *arguments: str) -> None:
        command = ["crun", "--root", str(self.path / "state"), *arguments]
        # no shell and no nsenter(1) between: the child enters, and becomes crun
        with (self.path / "log").open("wb") as log:
            # a file, not a pipe: the container's init keeps it
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
                preexec_fn=lambda: syscalls.setns(self._namespace, syscalls.CLONE_NEWNS),
            )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {(self.path / 'log').read_text()}")

    def make(self, name: str, init: str) -> None:
        """Define a container; init: a path inside."""
        home = self.path / name
        home.mkdir()
        shutil.copytree(self.rootfs, home / "rootfs", symlinks=True)
        subprocess.run(["crun", "spec"], cwd=home, check=True)
        config: dict[str, Any] = json.loads((home / "config.json").read_text())
        config["process"] |= {"args": [init], "terminal": False}
        config["root"]["readonly"] = False
        config["linux"] |= {
            "cgroupsPath": f"/{CGROUP}-crun-{name}",
            "resources": {
                "memory": {"limit": MEMORY_BYTES},
                "pids": {"limit": PIDS},
                "cpu": {"quota": 100000, "period": 100000},
                "devices": [{"allow": False, "access": "rwm"}],
            },
        }
        (home / "config.json").write_text(json.dumps(config))

    def root(self, name: str) -> Path:
        """Return where the container's writes are seen."""
        return self.path / name / "rootfs"

    def start(self, name: str, *, to_marker: bool = True) -> float:
        marker.forget(self.root(name))
        self.serial += 1
        began = time.monotonic()
        pid_file = self.path / name / "pid"
        self._run("create", "-b", str(self.path / name), "--pid-file", str(pid_file), name)
        peer = {"ifname": "eth0", "net_ns_fd": f"/proc/{pid_file.read_text()}/ns/net"}
        link = f"bxbc{self.serial}"
        self._ip.link("add", ifname=link, kind="veth", peer=peer)
        master = self._ip.link_lookup(ifname=BRIDGE)[0]
        self._ip.link("set", index=self._ip.link_lookup(ifname=link)[0], master=master, state="up")
        self._run("start", name)
        ended = marker.started_at(self.root(name)) if to_marker else time.monotonic()
        return (ended - began) * 1000

    def kill(self, name: str) -> float:
        return timed(lambda: self._run("delete", "-f", name))

    def stop(self, name: str) -> float:
        def call() -> None:
            pid = int((self.path / name / "pid").read_text())
            pidfd = os.pidfd_open(pid)
            self._run("kill", name, "USR2")
            with contextlib.closing(os.fdopen(pidfd)):
                _wait(pidfd)
            self._run("delete", "-f", name)

        return timed(call)

    def exec(self, name: str) -> float:
        return timed(lambda: self._run("exec", name, "/bin/true"))

    def freeze(self, name: str) -> float:
        return timed(lambda: self._run("pause", name))

    def thaw(self, name: str) -> None:
        self._run("resume", name)


class Lxd:
    """LXD with a daemon, a directory pool and an image of its own; its client starts a container and waits for it.

    Its network is the bench's bridge. The daemon takes what is its own away when it ends, but for a few mounts.
    """

    def __init__(self, work: Path, rootfs: Path) -> None:
        self.path = work / "lxd"
        self.path.mkdir()
        self._home = self.path / "state"
        self._home.mkdir(mode=0o711)
        self._environment = {**os.environ, "LXD_DIR": str(self._home)}
        with (self.path / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                ["lxd"], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._call("lxd", "waitready", "--timeout=60")
            pool = {"name": "default", "driver": "dir"}
            profile = {"name": "default", "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}}
            self._call("lxd", "init", "--preseed", said=json.dumps({"storage_pools": [pool], "profiles": [profile]}))
            image = self.path / "image.tar"
            (self.path / "metadata.yaml").write_text("architecture: x86_64\ncreation_date: 1700000000\n")
            run("tar", "-cf", str(image), "-C", str(self.path), "metadata.yaml",
                "-C", str(rootfs.parent), rootfs.name)  # fmt: skip
            self._call("lxc", "image", "import", str(image), "--alias", "bench")
        except BaseException:
            self.close()
            raise

    @classmethod
    def installed(cls) -> bool:
        """Whether daemon and client are there."""
        return shutil.which("lxd") is not None and shutil.which("lxc") is not None

    def close(self) -> None:
        """End the daemon and its containers, and take away what it leaves mounted."""
        with contextlib.suppress(RuntimeError):
            self._call("lxd", "shutdown", "--timeout", "60")
        self._daemon.kill()
        self._daemon.wait()
        for name in ("shmounts", "guestapi", "devlxd"):
            subprocess.run(["umount", "-l", str(self._home / name)], capture_output=True, check=False)

    def _call(self, *command: str, said: str = "") -> None:
        done = subprocess.run(
            command, env=self._environment, input=said, capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")

    def make(self, name: str, init: str) -> None:
        """Define a container; init: a path inside."""
        limits = (
            f"limits.memory={MEMORY_BYTES}", f"limits.processes={PIDS}", "limits.cpu.allowance=100ms/100ms",
            f"raw.lxc=lxc.init.cmd={init}",
        )  # fmt: skip
        self._call("lxc", "init", "bench", name, *(part for one in limits for part in ("-c", one)))
        nic = ("nictype=bridged", f"parent={BRIDGE}", "name=eth0")
        self._call("lxc", "config", "device", "add", name, "eth0", "nic", *nic)

    def root(self, name: str) -> Path:
        """Return where the container's writes are seen."""
        return self._home / "storage-pools/default/containers" / name / "rootfs"

    def start(self, name: str, *, to_marker: bool = True) -> float:
        """As a whole, with or without the marker: what the client waits for, as whoever clicks does."""
        return timed(lambda: self._call("lxc", "start", name))

    def kill(self, name: str) -> float:
        return timed(lambda: self._call("lxc", "stop", "--force", name))


def _wait(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(30_000)


def sweep() -> None:
    """Remove the bench's links and cgroups that a tool left behind."""
    for top in (
        Path("/sys/fs/cgroup").glob("*/") if Path("/sys/fs/cgroup/memory").exists() else [Path("/sys/fs/cgroup")]
    ):
        for tree in top.glob(f"{CGROUP}-*"):
            for directory, _names, _files in os.walk(tree, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
    with IPRoute() as ip:
        for link in ip.get_links():
            if str(link.get("ifname")).startswith("bxb") and link.get("ifname") != BRIDGE:
                with contextlib.suppress(NetlinkError):
                    ip.link("del", index=link["index"])
