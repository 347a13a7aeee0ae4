"""What an image says of itself, as far as it may: architecture, distribution, release, description. Pure.

Nothing else that an image brings along is taken: no configuration, no template, no script. Incus and LXD write
metadata.yaml; of YAML only flat scalars are read, so that there is nothing to expand, alias or construct.
Source of the names: the image formats' documentation of Incus, ``metadata.yaml``.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

MAX_BYTES: Final = 1 << 20
TEXT_MAX: Final = 300
_TOP: Final = ("architecture",)
_PROPERTIES: Final = {
    "architecture": "architecture",
    "description": "description",
    "name": "name",
    "os": "os",
    "release": "release",
    "serial": "serial",
    "variant": "variant",
    "version": "release",
}
_LINE = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z0-9_.-]{1,64}) *:(?: +(?P<value>[^\n]*))?", re.ASCII)
MACHINES: Final = {
    "amd64": "x86_64",
    "x86_64": "x86_64",
    "386": "i686",
    "i386": "i686",
    "i686": "i686",
    "arm64": "aarch64",
    "aarch64": "aarch64",
    "arm": "armv7l",
    "armhf": "armv7l",
    "armv7l": "armv7l",
}
"""The kernel's name of an architecture, by those that Debian, OCI and Incus have for it."""
_ALSO_RUN: Final = {"x86_64": ("i686",), "aarch64": ("armv7l",)}


def text(value: object) -> str:
    """Return a text as it may be shown: one line of printable characters, not too long."""
    return "".join(char for char in str(value) if char.isprintable())[:TEXT_MAX].strip()


def of_yaml(data: bytes) -> dict[str, str]:
    """Return what metadata.yaml tells; what it does not tell in the plainest way is left out."""
    found: dict[str, str] = {}
    inside = False
    for line in data[:MAX_BYTES].decode(errors="replace").splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            inside = inside and line.startswith((" ", "\t"))
            continue
        key, value = match["key"], _scalar(match["value"] or "")
        if not match["indent"]:
            inside = key == "properties" and not value
            if key in _TOP and value:
                found[key] = value
        elif inside and value and key in _PROPERTIES:
            found.setdefault(_PROPERTIES[key], value)
    return found


def _scalar(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return "" if value[:1] in ("&", "*", "!", "{", "[", "|", ">", "%", "@", "`") else text(value)


def of_os_release(data: bytes) -> dict[str, str]:
    """Return what /etc/os-release tells (os-release(5))."""
    found = {}
    for line in data[:MAX_BYTES].decode(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key in ("ID", "VERSION_ID", "PRETTY_NAME"):
            found[{"ID": "os", "VERSION_ID": "release", "PRETTY_NAME": "description"}[key]] = _scalar(value)
    return {key: value for key, value in found.items() if value}


def machine(name: str) -> str:
    """Return the kernel's name of an architecture; one that is not known, as it is."""
    return MACHINES.get(name.lower(), name)


def runs_here(architecture: str, *, here: str | None = None) -> bool:
    """Tell whether this host runs programs of an architecture; one that nobody told may be tried."""
    here = here or os.uname().machine
    return not architecture or machine(architecture) in (here, *_ALSO_RUN.get(here, ()))


def shown(**values: Any) -> dict[str, Any]:
    """Return an image's details without what is empty."""
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}
