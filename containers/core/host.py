"""Where one instance keeps its things on this host: every path and every kernel name is made here.

The state directory (root, 0711)::

    instance.json            {"id": "k3v9q", "host": "local", ...}
    policy.toml              the floor under every role; root only writes it
    seccomp/NAME hooks/NAME  system call profiles and programs that policy.toml gives by name; root only writes them
    host/                    0700: the host store
        containers/ID/       spec.json, root.json, snapshots/NAME.json, console.log, last_exit.json
        layers/ID/           rootfs/, layer.json, and work/ while it is some container's writable layer
        images/NAME.json     which layers an image is made of
        lists/DIGEST.json    how new an image server's list was when it was seen last
        imports/ID.json      what of LXC's a container is to be made of, until it is
        tmp/ trash/          what is being made, what is being removed
        backups/FILE         backups that lie on this host itself; holds/ what they are being made of
        basket/ID/           what was deleted and can be had back for some days
    stats/                   0700: samples, one file per container
    panel/                   root:boxroom, 0750: web.json (the panel's settings, the web's secrets), static files
    web/                     0700, user boxroom: the database, uploads; nothing there is believed by root
    redis/ log/

The run directory (/run/boxroom/ID, 0755) holds sockets, locks and what dies with the boot.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

RUN_ROOT: Final = Path("/run/boxroom")
WEB_USER: Final = "boxroom"
IDS_PER_CONTAINER: Final = 65536
SLOTS: Final = 1024
"""Containers per instance; slot * IDS_PER_CONTAINER is a container's place in the instance's block of ids."""


@dataclass(frozen=True)
class Host:
    """One instance on this host. instance: five characters of a-z and 2-7, in the name of every kernel object."""

    state_dir: Path
    instance: str

    @classmethod
    def open(cls, state_dir: str | os.PathLike[str]) -> Self:
        """Open the instance of a state directory; raises FileNotFoundError where none was made."""
        state = Path(state_dir).resolve()
        return cls(state, json.loads((state / "instance.json").read_text())["id"])

    @cached_property
    def run_dir(self) -> Path:
        """/run/boxroom/ID: short, because socket paths end at 107 bytes."""
        return RUN_ROOT / self.instance

    @cached_property
    def store_dir(self) -> Path:
        """The host store, readable by root only."""
        return self.state_dir / "host"

    @cached_property
    def containers_dir(self) -> Path:
        """One directory per container, named by id."""
        return self.store_dir / "containers"

    @cached_property
    def layers_dir(self) -> Path:
        """One directory per read-only layer."""
        return self.store_dir / "layers"

    @property
    def images_dir(self) -> Path:
        """One JSON file per image."""
        return self.store_dir / "images"

    @property
    def pools_dir(self) -> Path:
        """One link per storage pool beside the store itself."""
        return self.store_dir / "pools"

    @property
    def imports_dir(self) -> Path:
        """One JSON file per container that is being taken over from LXC."""
        return self.store_dir / "imports"

    @property
    def tmp_dir(self) -> Path:
        """What is being made; a leftover is litter."""
        return self.store_dir / "tmp"

    @property
    def trash_dir(self) -> Path:
        """What is being removed; a leftover is removed at the next chance."""
        return self.store_dir / "trash"

    @property
    def downloads_dir(self) -> Path:
        """What downloads of images have brought so far, by digest; kept for a day, to go on with."""
        return self.store_dir / "downloads"

    @property
    def lists_dir(self) -> Path:
        """How new the lists of image servers were that have been seen, one JSON file for each list."""
        return self.store_dir / "lists"

    @property
    def holds_dir(self) -> Path:
        """Which layers are being read or made, and nothing refers to."""
        return self.store_dir / "holds"

    @property
    def backups_dir(self) -> Path:
        """Backups on this host itself."""
        return self.store_dir / "backups"

    @property
    def basket_dir(self) -> Path:
        """What was deleted and can be had back."""
        return self.store_dir / "basket"

    @property
    def stats_dir(self) -> Path:
        """One file of samples per container."""
        return self.state_dir / "stats"

    @property
    def panel_dir(self) -> Path:
        """What root makes for the web process, which may read it: settings, its secrets, static files."""
        return self.state_dir / "panel"

    @property
    def web_dir(self) -> Path:
        """The only directory that the web process may write, and so one whose names root follows nowhere."""
        return self.state_dir / "web"

    @property
    def log_dir(self) -> Path:
        """One log file per process."""
        return self.state_dir / "log"

    @property
    def policy_path(self) -> Path:
        """The root-owned policy file; absent means the defaults."""
        return self.state_dir / "policy.toml"

    @property
    def audit_path(self) -> Path:
        """Key and ends of the audit trail's chain; root's."""
        return self.state_dir / "audit.json"

    @property
    def seccomp_dir(self) -> Path:
        """System call profiles of the host's administrator, each known by its name; it need not be there."""
        return self.state_dir / "seccomp"

    @property
    def hooks_dir(self) -> Path:
        """Programs of the host's administrator, each known by its name; it need not be there."""
        return self.state_dir / "hooks"

    @property
    def doctor_path(self) -> Path:
        """What `doctor` found when the panel last started: {"checks": [...]}."""
        return self.state_dir / "doctor.json"

    def container_dir(self, container_id: str) -> Path:
        """Return a container's directory in the store."""
        return self.containers_dir / container_id

    def spec_path(self, container_id: str) -> Path:
        """Return the path of a container's spec."""
        return self.containers_dir / container_id / "spec.json"

    def supervisor_dir(self) -> Path:
        """Return the directory of the supervisors' sockets and run files (root:boxroom, 0750)."""
        return self.run_dir / "c"

    def supervisor_socket(self, container_id: str) -> Path:
        """Return the socket of a running container's supervisor (root:boxroom, 0660)."""
        return self.supervisor_dir() / f"{container_id}.sock"

    def run_path(self, container_id: str) -> Path:
        """Return the JSON file that a supervisor writes before its init may run, and removes last."""
        return self.supervisor_dir() / f"{container_id}.json"

    def stdio_socket(self, name: str) -> Path:
        """Where somebody waits for the standard streams of an application. name: letters and digits."""
        return self.run_dir / f"stdio-{name}.sock"

    @property
    def netns_dir(self) -> Path:
        """Mounts that hold the network namespaces of containers that were lent a network card (root, 0700)."""
        return self.run_dir / "netns"

    @property
    def launcher_socket(self) -> Path:
        """The launcher's socket (root, 0600)."""
        return self.run_dir / "launcher.sock"

    @property
    def ticker_socket(self) -> Path:
        """The ticker's socket for live samples and history (root:boxroom, 0660)."""
        return self.run_dir / "ticker.sock"

    @property
    def reader_socket(self) -> Path:
        """Where the web asks for what is in snapshots (root:boxroom, 0660)."""
        return self.run_dir / "reader.sock"

    @property
    def filer_socket(self) -> Path:
        """Where the web asks for what is in containers now, and has it changed (root:boxroom, 0660)."""
        return self.run_dir / "filer.sock"

    @property
    def backup_socket(self) -> Path:
        """Where the ticker hands out the bytes of backups."""
        return self.run_dir / "backup.sock"

    @property
    def events_socket(self) -> Path:
        """The ticker's datagram socket, where supervisors report what happened (root, 0600)."""
        return self.run_dir / "events.sock"

    @property
    def redis_socket(self) -> Path:
        """The private Redis's socket, in a directory of the Redis user's."""
        return self.run_dir / "redis" / "redis.sock"

    @cached_property
    def locks_dir(self) -> Path:
        """Files for flock; they die with their holders."""
        return self.run_dir / "locks"

    @property
    def cgroup_name(self) -> str:
        """The instance's directory at the root of every cgroup hierarchy."""
        return f"boxroom-{self.instance}"

    @property
    def nft_table(self) -> str:
        """The name of the instance's nftables tables (families inet and bridge)."""
        return f"boxroom_{self.instance}"

    def bridge_name(self, number: int) -> str:
        """Return the name of the instance's bridge number 0..999; 14 characters at most."""
        return f"boxbr{self.instance}{number}"

    def veth_name(self, slot: int, nic: int = 0) -> str:
        """Return the host side's link name of a container's NIC; at most 15 characters (IFNAMSIZ - 1)."""
        return f"vb{self.instance}{slot:x}.{nic:x}"

    def link_alias(self, container_id: str) -> str:
        """Return the ifalias that leads from a host link back to its container."""
        return f"boxroom:{self.instance}:{container_id}"
