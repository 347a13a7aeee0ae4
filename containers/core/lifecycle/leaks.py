"""What of an instance leads back to no container: found by looking at the host, and taken away on request.

Everything that the runtime makes is named after its instance and its container, or carries the state directory in its
environment. What belongs to a container that is there, running or starting, is none of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..cgroups import cages, detect
from ..cgroups.base import Cgroups
from ..errors import CoreError
from ..host import IDS_PER_CONTAINER, Host
from ..hoststore import claims, every, store
from ..kernel import syscalls
from ..kernel.pids import opened, start_time
from ..model.network_config import NetworkConfig
from ..model.spec import Spec
from ..network import dnsmasq, lending, nft, rates, veth
from . import stored

SAMPLES_KEPT_SEC: Final = 3600
_ID: Final = re.compile(r"[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that leads back to no container. name: of the object itself; what: in words."""

    kind: str
    name: str
    what: str

    def as_dict(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {"kind": self.kind, "name": self.name, "what": self.what}


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known before the search. live: ids of the host's containers that have a living supervisor."""

    host: Host
    cgroups: Cgroups
    specs: Mapping[str, Spec]
    stored_ids: frozenset[str]
    live: frozenset[str]
    configs: Sequence[NetworkConfig] | None


def scene(host: Host, configs: Sequence[NetworkConfig] | None = None) -> Scene:
    """Look at what there is. configs: the instance's networks; None leaves bridges alone."""
    specs, _damaged = every.load_all(host)
    stored_ids = frozenset(store.container_ids(host))
    live = frozenset(container_id for _pid, container_id in supervisors(host)) & stored_ids
    return Scene(host, detect.open(host), specs, stored_ids, live, configs)


def find(host: Host, configs: Sequence[NetworkConfig] | None = None) -> list[Leak]:
    """Return everything of the instance that leads back to no container, sorted. Changes nothing; root."""
    seen = scene(host, configs)
    found = [leak for search in _SEARCHES for leak in search(seen)]
    return sorted(set(found), key=lambda leak: (leak.kind, leak.name))


def repair(host: Host, leaks: Iterable[Leak], configs: Sequence[NetworkConfig] | None = None) -> list[Leak]:
    """Take leaks away; return those that could not be, with the reason in `what`. What is gone already is fine."""
    failed = []
    # processes first: they may hold a cgroup, a mount or a link
    order = list(_MENDS)
    for leak in sorted(leaks, key=lambda leak: order.index(leak.kind)):
        try:
            _MENDS[leak.kind](scene(host, configs), leak)
        except (OSError, CoreError) as error:
            failed.append(Leak(leak.kind, leak.name, f"{leak.what} It could not be taken away: {error}"))
    return failed


def supervisors(host: Host) -> Iterator[tuple[int, str]]:
    """Yield (pid, container id) of every supervisor process of the instance."""
    for pid in _pids():
        words = _cmdline(pid).split()
        if len(words) == 4 and words[:2] == ["supervisor", host.instance]:
            yield pid, words[3]


# searches


def _processes(seen: Scene) -> Iterator[Leak]:
    for pid, container_id in supervisors(seen.host):
        if container_id not in seen.stored_ids:
            yield Leak("process", str(pid), f"A supervisor of {container_id}, which is not in the store.")
    block = claims.claims().get(seen.host.instance)
    base = block.id_block_base if block and block.state_dir == str(seen.host.state_dir) else None
    slots = {spec.slot for spec in seen.specs.values() if spec.id in seen.live}
    own_dnsmasq = dnsmasq.running(seen.host)
    for pid in _pids():
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
        except FileNotFoundError:
            continue
        if start_time(pid) is None:
            continue  # gone, or waits to be reaped
        if base is not None and base <= uid < base + claims.ID_BLOCK_SIZE:
            slot = (uid - base) // IDS_PER_CONTAINER
            if slot not in slots and not _of_instance(seen.host, pid):
                yield Leak("process", str(pid), f"Runs as user {uid}, of a slot where no container runs: {_name(pid)}")
        elif pid != own_dnsmasq and f"--conf-file={dnsmasq.directory(seen.host)}/" in _cmdline(pid):
            yield Leak("process", str(pid), "A dnsmasq that is not the instance's present one.")


def _cgroups(seen: Scene) -> Iterator[Leak]:
    for container_id in seen.cgroups.orphans(seen.live):
        yield Leak("cgroup", container_id, f"The control groups of {container_id}, which does not run.")
    for name in cages.abandoned(seen.cgroups):
        yield Leak("cage", name, "The control groups of what read an archive; whoever made them has ended.")


def _lent(seen: Scene) -> Iterator[Leak]:
    for container_id in lending.borrowers(seen.host):
        if container_id not in seen.live:
            yield Leak("lent", container_id, f"{container_id} was lent network cards or addresses, and does not run.")


def _mounts(seen: Scene) -> Iterator[Leak]:
    own = {str(seen.host.run_dir / "mnt")}
    borrowers = lending.borrowers(seen.host)
    own |= {str(one) for one in lending.pins(seen.host) if one.name.partition(".")[0] in borrowers}
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        below = any(point.startswith(f"{place}/") for place in (seen.host.state_dir, seen.host.run_dir))
        if below and not any(point == path or point.startswith(f"{path}/") for path in own):
            yield Leak("mount", point, "Something is mounted within the instance's directories.")


def _links(seen: Scene) -> Iterator[Leak]:
    wanted = {nic.host_link for spec in seen.specs.values() if spec.id in seen.live for nic in spec.nics}
    bridges = None
    if seen.configs is not None:
        bridges = {seen.host.bridge_name(config.number) for config in seen.configs}
    for _index, name in socket.if_nameindex():
        if name.startswith(f"vb{seen.host.instance}") and name not in wanted:
            yield Leak("link", name, "The host side of a NIC of no running container.")
        elif bridges is not None and name.startswith(f"boxbr{seen.host.instance}") and name not in bridges:
            yield Leak("link", name, "The bridge of no network.")


def _filters(seen: Scene) -> Iterator[Leak]:
    links = {nic.host_link for spec in seen.specs.values() for nic in spec.nics}
    wanted = {element for spec in seen.specs.values() for element in nft.wanted(spec)}
    for name, element in nft.elements(seen.host):
        if element[0] not in links or (name, element) not in wanted:
            yield Leak("nft", f"{name} {' '.join(element)}", "An element of the packet filter for no container.")
    chains = {name for spec in seen.specs.values() for name in nft.chains_of(spec)}
    rated = {rates.chain(spec.id, nic.index) for spec in seen.specs.values() for nic in spec.nics if rates.wanted(nic)}
    for chain in rates.chains(seen.host):
        if chain not in rated:
            yield Leak("rate", chain, "A rate of a NIC that is not there.")
    for chain in nft.own_chains(seen.host):
        if chain not in chains:
            yield Leak("nft", chain, "A chain of the packet filter for no container.")


def _names(seen: Scene) -> Iterator[Leak]:
    for container_id in sorted(dnsmasq.registered(seen.host) - seen.stored_ids):
        yield Leak("dnsmasq", container_id, "A reservation and names for no container.")
    macs = {nic.mac for spec in seen.specs.values() for nic in spec.nics}
    for mac, address in dnsmasq.leases(seen.host):
        if mac not in macs:
            yield Leak("lease", f"{mac} {address}", "A DHCP lease of no container.")


def _run_files(seen: Scene) -> Iterator[Leak]:
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(os.listdir(seen.host.supervisor_dir())):
            container_id = entry.lstrip(".").partition(".")[0]
            if entry.endswith(lending.SUFFIX) and not entry.startswith("."):
                continue  # not to be removed before what it tells of was given back
            if _ID.fullmatch(container_id) and container_id not in seen.live:
                yield Leak("run-file", entry, f"A run file or socket of {container_id}, which does not run.")


def _locks(seen: Scene) -> Iterator[Leak]:
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(os.listdir(seen.host.locks_dir)):
            kind, _, name = entry.partition("-")
            if kind in ("files", "container", "run") and _ID.fullmatch(name) and name not in seen.stored_ids:
                yield Leak("lock", entry, f"The lock of {name}, which is not in the store.")


def _samples(seen: Scene) -> Iterator[Leak]:
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(os.listdir(seen.host.stats_dir)):
            container_id = entry.partition(".")[0]
            if not _ID.fullmatch(container_id) or container_id in seen.stored_ids:
                continue
            # the ticker takes them away itself, at its own pace
            if time.time() - (seen.host.stats_dir / entry).stat().st_mtime > SAMPLES_KEPT_SEC:
                yield Leak("samples", entry, f"Samples of {container_id}, which is not in the store.")


def _directories(seen: Scene) -> Iterator[Leak]:
    try:
        for orphan in stored.orphans(seen.host):
            yield Leak("directory", orphan.path, orphan.why)
    except CoreError as error:
        # a container that cannot be read: what it refers to is unknown, so that nothing may be called litter
        yield Leak("damaged", str(seen.host.containers_dir), error.message)


_SEARCHES: Final[tuple[Callable[[Scene], Iterator[Leak]], ...]] = (
    _processes,
    _cgroups,
    _lent,
    _mounts,
    _links,
    _filters,
    _names,
    _run_files,
    _locks,
    _samples,
    _directories,
)


# mends


def _end_process(seen: Scene, leak: Leak) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = opened(int(leak.name))
        try:
            # the number may be another's by now: it has to be found again while the pidfd holds it
            if any(again == leak for again in _processes(seen)):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def _remove_cgroup(seen: Scene, leak: Leak) -> None:
    seen.cgroups.kill(leak.name)
    seen.cgroups.wait_empty(leak.name, 5.0)
    seen.cgroups.remove(leak.name)


def _remove_cages(seen: Scene, _leak: Leak) -> None:
    cages.sweep(seen.cgroups)


def _unmount(_seen: Scene, leak: Leak) -> None:
    with contextlib.suppress(FileNotFoundError):
        syscalls.umount(leak.name, 2)  # MNT_DETACH: it goes when its last user does


def _delete_link(_seen: Scene, leak: Leak) -> None:
    veth.delete([leak.name])


def _give_back(seen: Scene, leak: Leak) -> None:
    if problems := lending.give_back(seen.host, leak.name):
        raise CoreError(" ".join(problems))


def _forget_rate(seen: Scene, leak: Leak) -> None:
    rates.remove(seen.host, [name for name in rates.chains(seen.host) if name == leak.name])


def _clean_filter(seen: Scene, _leak: Leak) -> None:
    nft.keep_only(seen.host, list(seen.specs.values()))


def _forget_names(seen: Scene, leak: Leak) -> None:
    dnsmasq.unregister(seen.host, leak.name)


def _forget_lease(seen: Scene, leak: Leak) -> None:
    dnsmasq.forget_leases(seen.host, [leak.name.split()[0]])


def _remove_file(directory: Callable[[Host], Path]) -> Callable[[Scene, Leak], None]:
    def remove(seen: Scene, leak: Leak) -> None:
        (directory(seen.host) / leak.name).unlink(missing_ok=True)

    return remove


def _remove_directory(seen: Scene, leak: Leak) -> None:
    stored.recover(seen.host)
    path = Path(leak.name)
    if path.exists() and any(again.path == leak.name for again in stored.orphans(seen.host)):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _leave_alone(_seen: Scene, _leak: Leak) -> None:
    raise CoreError("Look at it: what is damaged is never removed by itself.")


_MENDS: Final[dict[str, Callable[[Scene, Leak], Any]]] = {
    "process": _end_process,
    "cgroup": _remove_cgroup,
    "cage": _remove_cages,
    "lent": _give_back,
    "mount": _unmount,
    "link": _delete_link,
    "nft": _clean_filter,
    "rate": _forget_rate,
    "dnsmasq": _forget_names,
    "lease": _forget_lease,
    "run-file": _remove_file(Host.supervisor_dir),
    "lock": _remove_file(lambda host: host.locks_dir),
    "samples": _remove_file(lambda host: host.stats_dir),
    "directory": _remove_directory,
    "damaged": _leave_alone,
}


# /proc


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _name(pid: int) -> str:
    return _cmdline(pid)[:80] or "a kernel thread or a zombie"


def _of_instance(host: Host, pid: int) -> bool:
    """Whether a process, or one that it descends from, is one of the panel's: an image that is being built, say."""
    wanted = f"BOXROOM_STATE_DIR={host.state_dir}".encode()
    while pid > 1:
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return True
            pid = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False
