"""What the web is told of the host that this process runs on."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from ..core.errors import SpecError
from ..core.host import Host
from ..core.kernel import rtnetlink
from ..core.model.network_config import plain
from ..core.rules import policy, policy_file
from ..core.rules.grants import lies_in
from ..core.sentences import as_json


def of(host: Host) -> dict[str, Any]:
    """Return its size, what its doctor found, and what its policy gives; where shares and pools lie is left out."""
    problem: str = ""
    try:
        rules = policy_file.load(host)
    except SpecError as error:  # the doctor says so, and nothing is started meanwhile
        rules, problem = policy.DEFAULT, error.message
    findings = _findings(host)
    good = {one["id"] for one in findings if one["ok"]}
    return {
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cpus": os.cpu_count() or 1,
        "online": Path("/sys/devices/system/cpu/online").read_text().strip(),
        "pids": int(Path("/proc/sys/kernel/pid_max").read_text()),
        "disk_limits": "disk-limits" in good,
        "disk_growth": "disk-growth" in good,
        "kernel": platform.release(),
        "doctor": findings,
        "policy_problem": as_json(problem) or problem,
        "routed_own": _own_of_routed(rules),
        "policy": {
            "privileged": rules.containers.privileged,
            "nesting": rules.containers.nesting,
            "keyctl": rules.containers.keyctl,
            "ids": rules.containers.ids,
            "file_bytes": rules.containers.file_bytes,
            "hooks": {
                name: {"projects": list(one.projects), "points": list(one.points), "timeout_sec": one.timeout_sec}
                for name, one in rules.hooks.items()
            },
            "cgroup_files": list(rules.containers.cgroup_files),
            "apparmor": list(rules.containers.apparmor),
            "seccomp": {name: {"projects": list(one.projects)} for name, one in rules.seccomp.items()},
            "capabilities": list(rules.containers.capabilities),
            "pools": {
                name: {"projects": list(one.projects), "driver": one.driver, "disk_bytes": one.disk_bytes}
                for name, one in rules.pools.items()
            },
            "sources": list(rules.images.sources),
            "insecure": list(rules.images.insecure),
            "directories": sorted(rules.images.directories),
            "backups": rules.backups.names,
            # of shares no path: where they are is the host's business
            "host_network": rules.containers.host_network,
            "parents": {
                name: {key: list(getattr(one, key)) for key in ("projects", "types", "vlans", "addresses")}
                for name, one in rules.parents.items()
            },
            "shares": {
                name: {"projects": list(one.projects), "read_only": one.read_only, "submounts": one.submounts}
                for name, one in rules.shares.items()
            },
            "devices": {
                name: {"projects": list(one.projects), "path": one.path} for name, one in rules.devices.items()
            },
        },
    }


def _own_of_routed(rules: policy.Policy) -> list[str]:
    """Return the host's own addresses among those that the policy lets containers have by routed interfaces."""
    subnets = [text for parent in rules.parents.values() for text in parent.addresses]
    if not subnets:
        return []
    try:
        with rtnetlink.connect() as sock:
            own = rtnetlink.addresses(sock)
    except OSError:  # what there is of them is looked at again in a minute
        return []
    return [plain(text) for text in own if lies_in(subnets, text, whole=False)]


def _findings(host: Host) -> list[dict[str, Any]]:
    """Return what `doctor` found when the panel last started; an empty list where it has not looked yet."""
    try:
        checks: list[dict[str, Any]] = json.loads(host.doctor_path.read_text())["checks"]
    except (OSError, ValueError, KeyError):
        return []
    return checks
