"""The settings of a card of the host's on which it answers for the IPv6 addresses of routed NICs.

What is changed is written down before (``parents.json``), and set back when the last of them is gone, unless somebody
else has changed it meanwhile. Once the host as a whole forwards, a card's share in that stays: other links count on it.
The caller holds the lock of lending. Standard library only: supervisors use it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Final

from ..host import Host
from . import sysctls

_Changes = dict[str, dict[str, tuple[str, str]]]
"""By link: setting -> (before, ours)."""
_FILE: Final = "parents.json"


def _path(host: Host) -> Path:
    return host.run_dir / _FILE


def _read(host: Host) -> _Changes:
    try:
        found = json.loads(_path(host).read_text())
    except FileNotFoundError:
        return {}
    return {link: {key: (was, ours) for key, (was, ours) in changed.items()} for link, changed in found.items()}


def _write(host: Host, changes: _Changes) -> None:
    target = _path(host)
    if not changes:
        target.unlink(missing_ok=True)
        return
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(json.dumps(changes))
    temporary.replace(target)


def answering(host: Host, link: str) -> None:
    """Make a card one on which the host may answer for others' addresses. Raises SetupFailed."""
    if not sysctls.has_ipv6():
        return
    # only a router answers for others, and a router hears advertisements only where it is told to
    wanted = {"accept_ra": "2"} if sysctls.read(f"ipv6/conf/{link}/accept_ra") == "1" else {}
    wanted |= {"forwarding": "1", "proxy_ndp": "1"}
    present = {key: sysctls.read(f"ipv6/conf/{link}/{key}") for key in wanted}
    fresh = {key: (was, wanted[key]) for key, was in present.items() if was is not None and was != wanted[key]}
    if not fresh:
        return
    changes = _read(host)
    changes[link] = {**fresh, **changes.get(link, {})}
    _write(host, changes)
    for key in fresh:
        sysctls.write(f"ipv6/conf/{link}/{key}", wanted[key])


def settle(host: Host, needed: Collection[str]) -> None:
    """Set back what was changed of the cards that nobody needs any more; twice is once. Raises SetupFailed."""
    changes = _read(host)
    gone = [link for link in changes if link not in needed]
    for link in gone:
        changed = changes.pop(link)
        if "forwarding" not in changed:
            changed.pop("accept_ra", None)  # it forwards still, and so has to be told to hear advertisements
        for key in reversed(changed):
            was, ours = changed[key]
            if sysctls.read(f"ipv6/conf/{link}/{key}") == ours:
                sysctls.write(f"ipv6/conf/{link}/{key}", was)
    if gone:
        _write(host, changes)
