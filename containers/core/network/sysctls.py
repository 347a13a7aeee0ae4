"""The host's settings of its network, below /proc/sys/net. Root."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..errors import SetupFailed

_ROOT: Final = Path("/proc/sys/net")


def read(key: str) -> str | None:
    """Return a setting's value; None where this host has no such setting."""
    try:
        return (_ROOT / key).read_text().strip()
    except OSError:
        return None


def write(key: str, value: str) -> bool:
    """Set a kernel setting below net; return whether it had another value. One that is not there is passed by."""
    if read(key) in (value, None):
        return False
    try:
        (_ROOT / key).write_text(value)
    except OSError as error:
        raise SetupFailed.from_oserror("network settings", error) from error
    return True


def has_ipv6() -> bool:
    """Whether this network namespace speaks IPv6 at all."""
    return (_ROOT / "ipv6/conf/all/forwarding").exists()


def forward_ipv6(links: Iterable[str], uplinks: Iterable[str] = ()) -> list[str]:
    """Have IPv6 forwarded between these links and those; return what was changed on the host itself.

    uplinks: links with the host's default route, which it may have by router advertisements.
    """
    changed = []
    links, uplinks = list(links), sorted(uplinks)
    if read("ipv6/conf/all/forwarding") != "0":
        return []
    if links and read(f"ipv6/conf/{links[0]}/force_forwarding") is not None:
        # Linux 6.17: one link forwards without the whole host becoming a router
        for link in (*links, *uplinks):
            if write(f"ipv6/conf/{link}/force_forwarding", "1") and link != links[0]:
                changed.append(f"net.ipv6.conf.{link}.force_forwarding=1")
        return changed
    # a router ignores router advertisements, and the host would lose its own default route
    for link in uplinks:
        if read(f"ipv6/conf/{link}/accept_ra") == "1" and write(f"ipv6/conf/{link}/accept_ra", "2"):
            changed.append(f"net.ipv6.conf.{link}.accept_ra=2")
    if write("ipv6/conf/all/forwarding", "1"):
        changed.append("net.ipv6.conf.all.forwarding=1")
    return changed
