"""Storage pools as the policy names them: made when the first container is to lie there, looked at, chosen from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import drivers
from ..errors import CoreError, SetupFailed
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import pools
from ..rules import policy_file
from ..rules.grants import given_to
from ..rules.pool_rules import DEFAULT, Candidate, PoolRule, check_given
from ..rules.pool_rules import best as best_of
from ..sentences import say
from ..storage import room

_PROBE: Final = Path(__file__).parents[1] / "proc/probe.py"
_PROBE_SEC: Final = 120
_GOOD: Final[set[tuple[str, int, str]]] = set()
"""What was seen to work: directories, the numbers of their file systems, drivers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A pool now. room: None where it is not there. problem: why nothing can be made in it, "" where it can."""

    name: str
    driver: str
    room: room.Room | None
    problem: str = ""


def settle(host: Host, rules: Mapping[str, PoolRule], name: str) -> pools.Pool:
    """See that a pool of the policy's is there; raises SetupFailed where it cannot be."""
    rule = rules.get(name)
    if rule is None:
        raise SetupFailed(say("The policy names no storage pool %(name)s any more.", name=name), step="open the pool")
    _tried(pools.look(host, name, rule.path, rule.driver), name, rule.driver)
    found = pools.settle(host, name, rule.path, rule.driver)
    failpoint(host.state_dir, "pool.settled")
    return found


def given(host: Host, name: str, project: str) -> pools.Pool:
    """Return a pool that the policy gives to a project, and see that it is there; raises PolicyDenied, SetupFailed."""
    if name == DEFAULT:
        return pools.default(host)
    rules = policy_file.load(host).pools
    check_given(rules, project, name)
    return settle(host, rules, name)


def seen(host: Host, rules: Mapping[str, PoolRule]) -> Iterator[Seen]:
    """Look at every pool, the default one first; makes none that is not there yet."""
    yield Seen(name=DEFAULT, driver=pools.default(host).kind, room=room.of(host.layers_dir))
    for name, rule in sorted(rules.items()):
        try:
            _tried(pools.look(host, name, rule.path, rule.driver), name, rule.driver)
            found = room.of(Path(rule.path))
        except (CoreError, OSError) as error:
            yield Seen(name=name, driver=rule.driver, room=None, problem=getattr(error, "message", str(error)))
        else:
            yield Seen(name=name, driver=rule.driver, room=found)


def _tried(directory: Path, name: str, kind: str) -> None:
    """Try a pool's driver, and mount overlay over its file system as a container does; raises SetupFailed.

    What worked is not tried again by this process, as long as the same file system is there.
    """
    key = (str(directory), os.stat(directory).st_dev, kind)
    if key in _GOOD:
        return
    if problem := drivers.named(kind).problem(directory):
        raise pools.refused(name, problem)
    command = [os.path.realpath(sys.executable), "-I", "-S", str(_PROBE), str(directory), "overlay"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SEC, check=False)
        problem = json.loads(done.stdout)["overlay"]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        problem = f"the probe did not run: {error}"
    if problem is not None:
        raise pools.refused(name, f"No overlay mounts work there: {problem}.")
    _GOOD.add(key)


def best(host: Host, rules: Mapping[str, PoolRule], project: str) -> str:
    """Return the name of the pool that suits a new container of a project best."""
    own = {name: rule for name, rule in rules.items() if given_to(rule.projects, project)}
    there = [
        Candidate(
            name=one.name,
            driver=one.driver,
            total_bytes=one.room.total_bytes,
            free_bytes=one.room.free_bytes,
        )
        for one in seen(host, own)
        if one.room is not None
    ]
    return best_of(there)
