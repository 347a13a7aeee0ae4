"""Which ids and subnets each instance on this host holds, so that several instances never clash.

One JSON file per instance in /run/boxroom/registry (the fields of Claim), changed under one lock. A claim counts
while it is of this boot and its state directory still exists: what a deleted or rebooted instance held is free
again by itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from ..errors import HostUnsupported, InUse
from ..host import IDS_PER_CONTAINER, RUN_ROOT, SLOTS, Host
from ..kernel import locking
from ..kernel.pids import boot_id
from ..model.subnets import overlaps
from ..sentences import say

REGISTRY_DIR: Final = RUN_ROOT / "registry"
ID_BLOCK_SIZE: Final = SLOTS * IDS_PER_CONTAINER
"""2^26 host ids per instance."""
FIRST_ID_BLOCK: Final = 2**28
LAST_ID: Final = 2**32 - 2
"""(uid_t) -1 means "no id" to the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one instance holds. id_block_base: the first of its ID_BLOCK_SIZE host ids, None before the first start."""

    instance: str
    boot_id: str
    state_dir: str
    id_block_base: int | None = None
    subnets: tuple[str, ...] = ()

    def counts(self, boot_id: str) -> bool:
        """Whether the claim is of this boot and its state directory is still there."""
        return self.boot_id == boot_id and Path(self.state_dir).is_dir()


def claims(registry: Path = REGISTRY_DIR) -> dict[str, Claim]:
    """Return the claims that count, by instance. Stale and unreadable files are ignored."""
    boot = boot_id()
    found: dict[str, Claim] = {}
    for path in sorted(registry.glob("*.json")):
        claim = _read(path, boot)
        if claim is not None:
            found[claim.instance] = claim
    return found


def _read(path: Path, boot: str) -> Claim | None:
    """Return the claim in a file, where it counts."""
    try:
        values = json.loads(path.read_text())
        claim = Claim(**{**values, "subnets": tuple(values.get("subnets", ()))})
    except (OSError, ValueError, TypeError):
        return None
    return claim if claim.instance == path.stem and claim.counts(boot) else None


def id_base(host: Host, slot: int, *, registry: Path = REGISTRY_DIR) -> int:
    """Return the first host id of a container's range, claiming the instance's block at the first call of a boot.

    slot: 0..1023. Raises HostUnsupported where no block is free.
    """
    if not 0 <= slot < SLOTS:
        raise ValueError(f"slot {slot} is not in 0..{SLOTS - 1}")
    return id_block(host, registry=registry) + slot * IDS_PER_CONTAINER


def id_block(host: Host, *, registry: Path = REGISTRY_DIR) -> int:
    """Return the first of the instance's host ids. It stays the same until the next boot.

    Skips ids of /etc/passwd and /etc/group, ranges of /etc/subuid and /etc/subgid, and other instances' blocks.
    """
    known = _read(registry / f"{host.instance}.json", boot_id())
    if known is not None and known.id_block_base is not None and known.state_dir == str(host.state_dir):
        return known.id_block_base
    with _own_claim(host, registry) as (own, others):
        if own.id_block_base is not None:
            return own.id_block_base
        taken = [*host_id_ranges(), *live_ids()]
        taken += [(c.id_block_base, ID_BLOCK_SIZE) for c in others if c.id_block_base is not None]
        base = choose_id_block(taken)
        _write(replace(own, id_block_base=base), registry)
        return base


def choose_id_block(taken: Iterable[tuple[int, int]]) -> int:
    """Return the lowest aligned block that touches none of the (first, count) ranges.

    Raises HostUnsupported (feature ``id-range``) where there is none. Pure.
    """
    ranges = [(first, first + count - 1) for first, count in taken if count > 0]
    for base in range(FIRST_ID_BLOCK, LAST_ID - ID_BLOCK_SIZE + 2, ID_BLOCK_SIZE):
        if all(last < base or first >= base + ID_BLOCK_SIZE for first, last in ranges):
            return base
    raise HostUnsupported(
        "No range of 67108864 host ids is free: see /etc/subuid, /etc/subgid and the other instances.",
        feature="id-range",
    )


def host_id_ranges(etc: Path = Path("/etc")) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of every id that the host's own files give away; a missing file gives none."""
    for name, first_column in (("passwd", 2), ("group", 2), ("subuid", 1), ("subgid", 1)):
        try:
            lines = (etc / name).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            columns = line.split(":")
            with contextlib.suppress(ValueError, IndexError):
                count = int(columns[2]) if name.startswith("sub") else 1
                yield int(columns[first_column]), count


def live_ids(proc: Path = Path("/proc")) -> Iterator[tuple[int, int]]:
    """Yield (id, 1) of every user that a process runs as: whoever gave them away, they are not free."""
    for status in proc.glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            for line in status.read_text(errors="replace").splitlines():
                if line.startswith(("Uid:", "Gid:")):
                    yield from ((one, 1) for one in set(map(int, line.split()[1:])))


def claim_subnets(host: Host, subnets: Iterable[str], *, registry: Path = REGISTRY_DIR) -> None:
    """Make these the instance's subnets, instead of what it held.

    Raises InUse where another instance holds one of them, or a part of it; nothing is changed then.
    """
    wanted = tuple(sorted({str(ipaddress.ip_network(text, strict=False)) for text in subnets}))
    with _own_claim(host, registry) as (own, others):
        for other in others:
            for text in wanted:
                if overlaps(text, other.subnets):
                    raise InUse(
                        say(
                            "The subnet %(subnet)s belongs to another Boxroom on this host (%(path)s).",
                            subnet=text,
                            path=other.state_dir,
                        ),
                        field="ipv4" if ":" not in text else "ipv6",
                        users=[other.state_dir],
                    )
        if wanted != own.subnets:
            _write(replace(own, subnets=wanted), registry)


def foreign_subnets(host: Host, *, registry: Path = REGISTRY_DIR) -> tuple[str, ...]:
    """Return the subnets that other instances on this host hold."""
    held = [claim.subnets for name, claim in claims(registry).items() if name != host.instance]
    return tuple(subnet for subnets in held for subnet in subnets)


def release(host: Host, *, registry: Path = REGISTRY_DIR) -> None:
    """Give everything back: nothing of the instance may run. Twice is once."""
    with locked(registry):
        (registry / f"{host.instance}.json").unlink(missing_ok=True)
        for path in (registry / "ids").glob(f"{host.instance}.*.json"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _own_claim(host: Host, registry: Path) -> Iterator[tuple[Claim, list[Claim]]]:
    """Hold the lock; yield the instance's own claim (a new one where it has none) and those of the others."""
    with locked(registry):
        known = claims(registry)
        own = known.pop(host.instance, None)
        if own is not None and own.state_dir != str(host.state_dir):
            raise InUse(
                say(
                    "%(path)s is the same instance (%(name)s): use either it or its copy.",
                    path=own.state_dir,
                    name=host.instance,
                ),
                users=[own.state_dir],
            )
        fresh = Claim(instance=host.instance, boot_id=boot_id(), state_dir=str(host.state_dir))
        yield own or fresh, list(known.values())


@contextlib.contextmanager
def locked(registry: Path) -> Iterator[None]:
    """Hold the lock under which the registry changes."""
    # /run/boxroom is everybody's to pass through (the web process has a socket below it), the registry is not
    registry.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    registry.mkdir(mode=0o700, exist_ok=True)
    with locking.held(registry / ".lock"):
        yield


def _write(claim: Claim, registry: Path) -> None:
    path = registry / f"{claim.instance}.json"
    temporary = registry / f".{claim.instance}.tmp"
    temporary.write_text(json.dumps(asdict(claim), sort_keys=True))
    temporary.replace(path)
