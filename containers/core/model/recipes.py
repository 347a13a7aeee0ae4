"""What a Debian image may be made from: the fields of a debootstrap source, checked. Pure, so that the web may ask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from ..errors import SpecError
from ..sentences import say

Suite = Literal[
    "bookworm", "bullseye", "trixie", "forky", "duke", "oldstable", "stable", "testing", "sid", "unstable"
]  # fmt: skip
"""Debian's, those that its mirrors still have."""
Variant = Literal["minbase", "standard"]
Init = Literal["systemd", "sysvinit", "openrc"]
"""What runs as the first process. openrc is sysvinit's init with OpenRC behind it, as Debian has it."""
SUITES: Final = get_args(Suite)
VARIANTS: Final = get_args(Variant)
INITS: Final = get_args(Init)
PACKAGES_MAX: Final = 200
PACKAGE: Final = r"[a-z0-9][a-z0-9+.-]{1,99}"

_FIELDS: Final = {"type", "suite", "variant", "init", "packages", "mirror"}


def check(source: Mapping[str, Any]) -> None:
    """Raise SpecError naming the field (``source.suite``) where nothing could be made of a source."""
    for name in source:
        if name not in _FIELDS:
            raise SpecError(say("A debootstrap source has no %(name)r.", name=name), field=f"source.{name}")
    if source.get("suite", SUITES[0]) not in SUITES:
        raise SpecError(
            say("Use one of: %(names)s. Debian 12 is bookworm.", names=", ".join(SUITES)), field="source.suite"
        )
    if (source.get("variant") or VARIANTS[0]) not in VARIANTS:
        raise SpecError(say("Use one of: %(names)s.", names=", ".join(VARIANTS)), field="source.variant")
    if (source.get("init") or INITS[0]) not in INITS:
        raise SpecError(say("Use one of: %(names)s.", names=", ".join(INITS)), field="source.init")
    if (source.get("init") or INITS[0]) != INITS[0] and (source.get("variant") or VARIANTS[0]) != VARIANTS[0]:
        raise SpecError(say("The standard system is systemd's: use the variant minbase."), field="source.variant")
    packages = source.get("packages") or []
    if not isinstance(packages, list) or len(packages) > PACKAGES_MAX:
        raise SpecError(say("Give at most %(most)s packages, as a list.", most=PACKAGES_MAX), field="source.packages")
    for package in packages:
        if not isinstance(package, str) or not re.fullmatch(PACKAGE, package, re.ASCII):
            raise SpecError(say("%(package)r is not a package's name.", package=package), field="source.packages")
    if source.get("mirror"):
        split_mirror(source["mirror"])


def split_mirror(mirror: object) -> SplitResult:
    """Return the parts of a mirror's address, of which it has a host; raises SpecError for what is none."""
    field = "source.mirror"
    bad = SpecError("Give the mirror as http://HOST/PATH or https://HOST/PATH.", field=field)
    if not isinstance(mirror, str):
        raise bad
    try:
        uri = urlsplit(mirror)
        good = uri.scheme in ("http", "https") and bool(uri.hostname) and uri.port != 0
    except ValueError:
        raise bad from None
    if not good:
        raise bad
    if uri.username is not None or uri.query or uri.fragment or re.search(r"[^!-~]", mirror):
        raise SpecError("The mirror may hold no user, query, fragment or blanks.", field=field)
    return uri
