"""What of its host's a start uses beside layers, shares and devices, as the worker found it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from ..model.hooks import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Of one start, and of the reboots that follow it.

    seccomp: the compiled system call profile's name in the run directory, "" for Boxroom's own list. apparmor: the
    profile that is loaded for the container, "" for none. hooks: what is run for it, in order. lxcfs:
    where the host has lxcfs mounted, "" where it has not.
    """

    seccomp: str = ""
    apparmor: str = ""
    lxcfs: str = ""
    hooks: tuple[Call, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Parse what dataclasses.asdict made; the sender is root, so that no more than the shape is checked."""
        return cls(**{**values, "hooks": tuple(Call.from_dict(one) for one in values.get("hooks", ()))})
