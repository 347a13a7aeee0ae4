"""Ids beyond the 65536 that every container has: out of what /etc/subuid and /etc/subgid give to root.

One JSON file per container in the registry's directory ``ids``, changed under the registry's lock. What a container was
given stays its own until it is deleted or the host boots: no range goes to another while anything of it may be left.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ..errors import HostUnsupported
from ..host import IDS_PER_CONTAINER, Host
from ..kernel.pids import boot_id
from ..model.idmap import IdMap, for_container, unused
from ..model.spec import Spec
from ..sentences import say
from . import claims

ETC: Final = Path("/etc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one container holds: count host ids from first on."""

    instance: str
    container: str
    boot_id: str
    state_dir: str
    first: int
    count: int


def of(host: Host, spec: Spec) -> tuple[int, int] | None:
    """Return (first host id, count) of what a container has beyond the usual, None for nothing; raises as claim()."""
    count = 0 if spec.privileged else spec.security.ids - IDS_PER_CONTAINER
    return (claim(host, spec.id, count, etc=ETC), count) if count > 0 else None


def map_lines(host: Host, spec: Spec) -> str:
    """Return the lines for uid_map and gid_map with which a container's files are read and changed; raises as claim().

    A privileged container's may have any owner: they are mapped to ids that nobody has.
    """
    if spec.privileged:
        return unused().line()
    more = of(host, spec)
    own = for_container(claims.id_base(host, spec.slot)).line()
    return own + (IdMap(IDS_PER_CONTAINER, *more).line() if more else "")


def claim(host: Host, container_id: str, count: int, *, etc: Path = ETC) -> int:
    """Return the first of count host ids that are the container's alone; the same at each call of a boot.

    Raises HostUnsupported (field ``security.ids``) where root is given none, or not enough that are free.
    """
    with claims.locked(claims.REGISTRY_DIR):
        place = claims.REGISTRY_DIR / "ids"
        place.mkdir(mode=0o700, exist_ok=True)
        held = list(_held(place))
        for one in held:
            if (one.instance, one.container, one.count) == (host.instance, container_id, count):
                return one.first
        taken = [
            (one.first, one.count) for one in held if (one.instance, one.container) != (host.instance, container_id)
        ]
        taken += [(block, claims.ID_BLOCK_SIZE) for block in _blocks()]
        taken += [*_others(etc), *claims.live_ids()]
        first = choose(given(etc), taken, count)
        entry = Held(
            instance=host.instance,
            container=container_id,
            boot_id=boot_id(),
            state_dir=str(host.state_dir),
            first=first,
            count=count,
        )
        temporary = place / f".{host.instance}.{container_id}.tmp"
        temporary.write_text(json.dumps(asdict(entry), sort_keys=True))
        temporary.replace(place / f"{host.instance}.{container_id}.json")
    return first


def release(host: Host, container_id: str = "*") -> None:
    """Give back what a container holds, or every one of the instance. Twice is once."""
    place = claims.REGISTRY_DIR / "ids"
    if place.is_dir():
        with claims.locked(claims.REGISTRY_DIR):
            for path in place.glob(f"{host.instance}.{container_id}.json"):
                path.unlink(missing_ok=True)


def choose(ranges: Iterable[tuple[int, int]], taken: Iterable[tuple[int, int]], count: int) -> int:
    """Return the lowest first id of count, a multiple of 65536 into one of the ranges, that touches none taken. Pure.

    ranges, taken: (first, count). Raises HostUnsupported.
    """
    held = [(first, first + number - 1) for first, number in taken if number > 0]
    for start, number in sorted(ranges):
        for first in range(start, start + number - count + 1, IDS_PER_CONTAINER):
            if all(last < first or other >= first + count for other, last in held):
                return first
    raise HostUnsupported(
        say(
            "This host has no %(count)s ids to give: add a line root:FIRST:COUNT to /etc/subuid and /etc/subgid.",
            count=count,
        ),
        feature="id-range",
        field="security.ids",
    )


def given(etc: Path = ETC) -> list[tuple[int, int]]:
    """Return the ranges, (first, count), that both files give to root."""
    both = [_lines(etc / name, root=True) for name in ("subuid", "subgid")]
    found = []
    for first, count in both[0]:
        for other, number in both[1]:
            start, end = max(first, other), min(first + count, other + number)
            if start < end:
                found.append((start, end - start))
    return found


def _others(etc: Path) -> Iterator[tuple[int, int]]:
    """Yield what belongs to users of the host, and what is given to others than root."""
    for name in ("subuid", "subgid"):
        yield from _lines(etc / name, root=False)
    for name in ("passwd", "group"):
        with contextlib.suppress(FileNotFoundError):
            for line in (etc / name).read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, IndexError):
                    yield int(line.split(":")[2]), 1


def _lines(path: Path, *, root: bool) -> list[tuple[int, int]]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(errors="replace").splitlines():
            columns = line.strip().split(":")
            with contextlib.suppress(ValueError, IndexError):
                first, count = int(columns[1]), int(columns[2])
                if (columns[0] in ("root", "0")) is root and 0 < first and first + count - 1 <= claims.LAST_ID:
                    found.append((first, count))
    return found


def _held(place: Path) -> Iterator[Held]:
    boot = boot_id()
    for path in sorted(place.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            one = Held(**json.loads(path.read_text()))
            if one.boot_id == boot and Path(one.state_dir).is_dir():
                yield one


def _blocks() -> list[int]:
    return [one.id_block_base for one in claims.claims().values() if one.id_block_base is not None]
