"""Static addresses in a container's own network configuration: a copy that kept them would be its origin's rival.

Pure: text in, text out. What is static becomes automatic; everything else stays as it is. Sources: interfaces(5) of
ifupdown, systemd.network(5).
"""

from __future__ import annotations

import re
from typing import Final

_STANZA: Final = re.compile(r"^(iface|mapping|auto|allow-\S+|source|source-directory|no-auto-down|no-scripts|rename)\b")
_STATIC: Final = re.compile(r"^(\s*iface\s+(\S+)\s+(inet6?)\s+)static(.*)$")
_OF_STATIC: Final = re.compile(r"^\s*(address|netmask|broadcast|gateway|metric|pointopoint|preferred-lifetime|scope)\b")
_SECTION: Final = re.compile(r"^\s*\[(\w+)\]\s*$")
_ADDRESSES: Final = re.compile(r"^\s*(Address|Gateway)\s*=")
_DHCP: Final = re.compile(r"^\s*DHCP\s*=")


def without_static(text: str) -> str:
    """Return the text of /etc/network/interfaces with dhcp (auto for IPv6) instead of static addresses; lo stays."""
    lines, inside = [], False
    for line in text.split("\n"):
        static = _STATIC.match(line)
        if static and static[2] != "lo":
            inside = True
            lines.append(f"{static[1]}{'dhcp' if static[3] == 'inet' else 'auto'}{static[4]}")
            continue
        if _STANZA.match(line.lstrip()):
            inside = False
        if not (inside and _OF_STATIC.match(line)):
            lines.append(line)
    return "\n".join(lines)


def without_addresses(text: str) -> str:
    """Return the text of a .network file with DHCP instead of addresses and gateways; one without any is left alone."""
    if not any(_ADDRESSES.match(line) for line in text.split("\n")):
        return text
    lines: list[str] = []
    section, at = "", None
    for line in text.split("\n"):
        header = _SECTION.match(line)
        section = header[1] if header else section
        if section in ("Network", "Address", "Route") and _ADDRESSES.match(line):
            continue
        if section == "Network" and _DHCP.match(line):
            continue
        lines.append(line)
        if header and section == "Network":
            at = len(lines)
    if at is None:
        return text
    lines.insert(at, "DHCP=yes")
    # sections that held nothing but what is gone
    told = "\n".join(lines)
    return re.sub(r"(?m)^\[(?:Address|Route)\]\n(?:[ \t]*\n)*(?=\[|\Z)", "", told)
