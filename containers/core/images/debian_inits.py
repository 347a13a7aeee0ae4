"""What a Debian container is made of besides its base: packages for its init and its network, by release. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NETWORK: Final = tuple("ca-certificates ifupdown iproute2 iputils-ping less netbase procps".split())
_DHCLIENT: Final = ("bullseye", "bookworm", "oldstable")
"""The releases whose ifupdown recommends ISC's dhclient; the later ones recommend dhcpcd, and sid has no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """One way of starting a Debian. halt_signal: what asks it to end.

    excluded: packages that would be in its way. later: packages that take the place of others, which apt can do and
    debootstrap cannot.
    """

    packages: tuple[str, ...]
    halt_signal: str
    excluded: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


INITS: Final = {
    # SIGRTMIN+3 is halt.target. Source: systemd(1), SIGNALS
    "systemd": Init(packages=("dbus", "libpam-systemd", "systemd", "systemd-sysv"), halt_signal="SIGRTMIN+3"),
    # SIGPWR runs the powerfail line of inittab, which debian_fit makes a halt. Source: init(8), inittab(5)
    "sysvinit": Init(
        packages=("orphan-sysvinit-scripts", "sysvinit-core"), halt_signal="SIGPWR", excluded=("systemd-sysv",)
    ),
    # as Debian has it: OpenRC behind sysvinit's init, in the place of sysv-rc
    "openrc": Init(packages=("sysvinit-core",), halt_signal="SIGPWR", excluded=("systemd-sysv",), later=("openrc",)),
}
"""By the name that a source gives as its init."""


def packages(suite: str, init: str) -> tuple[str, ...]:
    """Return what every container of a release needs to boot, to have a network, and to be looked into."""
    return (*NETWORK, "isc-dhcp-client" if suite in _DHCLIENT else "dhcpcd-base", *INITS[init].packages)
