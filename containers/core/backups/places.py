"""Where backups of this host may lie: its own store (the place called local), and what the policy names."""

from __future__ import annotations

from pathlib import Path

from ..errors import PolicyDenied
from ..host import Host
from ..rules import policy_file
from ..sentences import say
from .buckets import Bucket
from .directories import LOCAL, Directory
from .place import Place


def of(host: Host, name: str) -> Place:
    """Return a place by its name; raises PolicyDenied where the host's policy names none such."""
    rules = policy_file.load(host).backups
    if name in rules.s3:
        return Bucket(host, name, rules.s3[name])
    found = {place.name: place for place in directories(host)}.get(name)
    if found is None:
        raise PolicyDenied(
            say("This host's policy names no place %(name)s for backups.", name=name), field="destination"
        )
    return found


def directories(host: Host) -> list[Directory]:
    """Return the places that are directories of this host."""
    rules = policy_file.load(host).backups
    own = [Directory(host, LOCAL, host.backups_dir)] if rules.local else []
    return own + [Directory(host, name, Path(path)) for name, path in rules.directories.items()]
