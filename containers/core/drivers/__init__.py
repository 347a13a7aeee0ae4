"""The kinds of storage pools: one module each, behind the interface of base.py. A new one is one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from ..errors import SetupFailed
from ..sentences import say
from . import btrfs, dir, loop, overlay
from .base import Driver

DRIVERS: Final[Mapping[str, Driver]] = {
    "overlay": cast("Driver", overlay),
    "btrfs": cast("Driver", btrfs),
    "dir": cast("Driver", dir),
    "loop": cast("Driver", loop),
}


def named(name: str) -> Driver:
    """Return a driver; raises SetupFailed where there is none of that name."""
    try:
        return DRIVERS[name]
    except KeyError:
        raise SetupFailed(say("There is no storage driver %(name)s.", name=name), step="find-driver") from None
