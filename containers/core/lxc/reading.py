"""Reads LXC configuration, of today's and of the older names, into what is in force at its end. Pure: files come from
the caller.

One ``key = value`` a line. A line that begins with ``#``, or does not begin with ``lxc.``, says nothing. A value may
stand in quotation marks. A key that is a list grows when it is repeated, any other is replaced; a key without a value
is forgotten, with all keys below it. ``lxc.include`` names a file, or a directory whose ``*.conf`` are read in order of
their names; ``lxc.mount.fstab`` a file of lines of lxc.mount.entry. Interfaces are ``lxc.net.N.*``; each
``lxc.network.type`` of old begins the next one.
Source: lxc.container.conf(5).
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from ..errors import SpecError
from . import keys

Read = Callable[[str], str | tuple[str, ...]]
"""Returns the text of a file, or the paths of a directory's ``*.conf``, in order; raises OSError."""

DEPTH_MAX: Final = 16
FILES_MAX: Final = 256
ENTRIES_MAX: Final = 20_000
INTERFACES_MAX: Final = 1000
_KEY: Final = re.compile(r"lxc\.[A-Za-z0-9_.*-]+", re.ASCII)
_INDEX: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One setting in force. key: by today's name. written: by the name in the file. file, line: where, from 1."""

    key: str
    value: str
    written: str
    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A line that says nothing that can be used. what: why, in words."""

    file: str
    line: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """entries: what is in force, in the order it was said. files: what was read, in order."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()

    def get(self, key: str) -> str | None:
        """Return the last value of a key, or None."""
        return next((entry.value for entry in reversed(self.entries) if entry.key == key), None)

    def all(self, key: str) -> list[str]:
        """Return every value of a key, in order."""
        return [entry.value for entry in self.entries if entry.key == key]

    def interfaces(self) -> dict[int, dict[str, list[str]]]:
        """Return the values below each ``lxc.net.N``, by N in ascending order."""
        found: dict[int, dict[str, list[str]]] = {}
        for entry in self.entries:
            if entry.key.startswith("lxc.net."):
                _lxc, _net, index, name = entry.key.split(".", 3)
                found.setdefault(int(index), {}).setdefault(name, []).append(entry.value)
        return dict(sorted(found.items()))


@dataclass(slots=True)
class _Reader:
    read: Read
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    interface: int | None = None
    """The one that ``lxc.network.*`` without an index is about."""

    def load(self, path: str, within: tuple[str, ...] = (), line: int = 0) -> None:
        """Read a file or directory that the last of within names in a line."""
        path = os.path.normpath(path)
        asker = within[-1] if within else path
        if path in within:
            raise SpecError(f"{asker}, line {line}: {path} includes itself.", field="config")
        if len(within) >= DEPTH_MAX or len(self.files) >= FILES_MAX:
            raise SpecError(f"{asker}, line {line}: files include each other too deeply, or too many.", field="config")
        try:
            text = self.read(path)
        except (OSError, ValueError) as error:
            if not within:
                raise
            reason = getattr(error, "strerror", None) or str(error)
            self.problems.append(Problem(file=asker, line=line, what=f"{path} could not be read: {reason}"))
            return
        self.files.append(path)
        if isinstance(text, tuple):
            for name in text:
                self.load(name, (*within, path), line)
            return
        for number, content in enumerate(text.split("\n"), 1):
            self._line(content, path, number, within)

    def fstab(self) -> None:
        """Put the lines of lxc.mount.fstab behind it, each as an lxc.mount.entry."""
        entry = next((known for known in self.entries if known.key == "lxc.mount.fstab"), None)
        if entry is None:
            return
        path = os.path.join(os.path.dirname(entry.file), entry.value)
        try:
            text = self.read(path)
            if isinstance(text, tuple):
                raise IsADirectoryError(21, "Is a directory", path)
        except (OSError, ValueError) as error:
            what = f"{path} could not be read: {getattr(error, 'strerror', None) or error}"
            self.problems.append(Problem(file=entry.file, line=entry.line, what=what))
            return
        self.files.append(path)
        found = []
        for number, content in enumerate(text.split("\n"), 1):
            value = " ".join(content.split())
            if not value or value.startswith("#"):
                continue
            if not value.isprintable():
                what = "it holds characters that no setting has"
                self.problems.append(Problem(file=path, line=number, what=what))
                continue
            line = replace(entry, key="lxc.mount.entry", value=value, file=path, line=number)
            found.append(line)
        if len(self.entries) + len(found) > ENTRIES_MAX:
            raise SpecError(f"{path}: more than {ENTRIES_MAX} settings.", field="config")
        place = self.entries.index(entry) + 1
        self.entries[place:place] = found

    def _line(self, content: str, file: str, number: int, within: tuple[str, ...]) -> None:
        content = content.strip()
        if not content.startswith("lxc."):
            return
        written, equals, value = (part.strip() for part in content.partition("="))
        try:
            if not equals:
                raise ValueError("there is no = in this line")
            value = _unquoted(value)
            if not _KEY.fullmatch(written) or "\0" in value or not value.isprintable():
                raise ValueError("it holds characters that no setting has")
            if written == "lxc.include":
                if value:
                    self.load(os.path.join(os.path.dirname(file), value), (*within, file), number)
                return
            self._set(Entry(key=self._key(written, value), value=value, written=written, file=file, line=number))
        except ValueError as error:
            self.problems.append(Problem(file=file, line=number, what=str(error)))

    def _set(self, entry: Entry) -> None:
        if not entry.value:
            self.entries = [known for known in self.entries if not _below(known.key, entry.key)]
            if entry.key == "lxc.net":
                self.interface = None
            return
        if not keys.is_list(entry.key):
            self.entries = [known for known in self.entries if known.key != entry.key]
        if len(self.entries) >= ENTRIES_MAX:
            raise SpecError(f"{entry.file}: more than {ENTRIES_MAX} settings.", field="config")
        self.entries.append(entry)

    def _key(self, written: str, value: str) -> str:
        """Return a key's name of today; raises ValueError for an interface that is none."""
        head, _dot, rest = written.removeprefix("lxc.").partition(".")
        if head not in ("net", "network"):
            return keys.modern(written)
        index, _dot, name = rest.partition(".")
        if not index:
            if value:
                raise ValueError(f"{written} takes no value; say which interface")
            return "lxc.net"
        if index.isdigit():
            number = self._index(index)
        elif head == "net":
            raise ValueError(f"{written}: an interface is named by its number, as in lxc.net.0.{rest}")
        else:
            number, name = self._old_index(rest, value), rest
        if head == "network":
            name = keys.modern_network(name)
        if value and not name:
            raise ValueError(f"{written} takes no value; say what of the interface")
        return f"lxc.net.{number}.{name}" if name else f"lxc.net.{number}"

    def _index(self, text: str) -> int:
        if not _INDEX.fullmatch(text) or int(text) >= INTERFACES_MAX:
            raise ValueError(f"interfaces have numbers from 0 to {INTERFACES_MAX - 1}")
        return int(text)

    def _old_index(self, name: str, value: str) -> int:
        """Return the interface that an ``lxc.network.*`` without a number is about; its type begins a new one."""
        if name == "type" and value:
            taken = [int(entry.key.split(".")[2]) for entry in self.entries if entry.key.startswith("lxc.net.")]
            self.interface = self._index(str(max(taken, default=-1) + 1))
        if self.interface is None:
            raise ValueError(f"lxc.network.{name} comes before any lxc.network.type")
        return self.interface


def _below(key: str, above: str) -> bool:
    return key == above or key.startswith(f"{above}.")


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] in "'\"" and value[-1] == value[0]:
        return value[1:-1]
    return value


def parse(path: str, read: Read) -> Config:
    """Return what a configuration file says at its end, with what it includes.

    read: gives the texts. Raises what read raises for path itself, and SpecError (field ``config``) where files include
    each other in a ring, or are too many. What is included and can't be read, or is malformed, is among the problems.
    """
    reader = _Reader(read)
    reader.load(path)
    reader.fstab()
    return Config(entries=tuple(reader.entries), problems=tuple(reader.problems), files=tuple(reader.files))


def lines(config: Config) -> Iterator[str]:
    """Yield the settings as today's LXC would take them, one line each, without includes."""
    for entry in config.entries:
        quote = "'" if entry.value[0] in "'\"" or entry.value != entry.value.strip() else ""
        yield f"{entry.key} = {quote}{entry.value}{quote}"
