"""What a translation is put together in: the container as it will be, and what became of each key. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..idmap import IdMap
from .reading import Config, Entry

Fate = Literal["taken", "translated", "left out"]
_PLENTY: Final = 2**50


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one key. words: what it is now, or why there is nothing of it; one sentence without a full stop.

    The same without anything to do here is "taken"; what is said by other means here is "translated".
    """

    fate: Fate
    words: str


def taken(words: str) -> Told:
    """Return that a key says here what it said there."""
    return Told("taken", words)


def translated(words: str) -> Told:
    """Return that something else stands for a key here."""
    return Told("translated", words)


def left_out(words: str) -> Told:
    """Return that nothing here stands for a key."""
    return Told("left out", words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A setting and what became of it."""

    entry: Entry
    told: Told

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "key": self.entry.written,
            "value": self.entry.value,
            "file": self.entry.file,
            "line": self.entry.line,
            "fate": self.told.fate,
            "words": self.told.words,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a translation must know of here.

    name: the container's name here. network: the one that it joins. privileged: it stays privileged.
    memory_bytes, cpus, pids: what the host has, the ceilings of limits. machine: as uname(2) says it. fields: what of a
    container can be asked for; None for all.
    """

    name: str
    network: str = "default"
    privileged: bool = False
    memory_bytes: int = _PLENTY
    cpus: int = _PLENTY
    pids: int = _PLENTY
    machine: str = "x86_64"
    fields: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The network interface that is taken over. mac: None for one of our own."""

    name: str = "eth0"
    mac: str | None = None


@dataclass(slots=True, kw_only=True)
class Draft:
    """The container in the making. values: what requests name so (asking.requests.CHANGEABLE), JSON values."""

    config: Config
    facts: Facts
    values: dict[str, Any] = field(default_factory=dict)
    interface: Interface | None = None
    idmap: list[tuple[str, IdMap]] = field(default_factory=list)

    @property
    def limits(self) -> dict[str, Any]:
        """The limits, to be added to."""
        found: dict[str, Any] = self.values.setdefault("limits", {})
        return found

    @property
    def security(self) -> dict[str, Any]:
        """The rights, to be added to."""
        found: dict[str, Any] = self.values.setdefault("security", {})
        return found
