"""A container's own passwd and group files, read as what they are: bytes that somebody hostile wrote. Pure.

Nothing of it reaches libc, NSS or a path on the host. Sizes, line lengths, numbers of groups are bounded.
Source: passwd(5), group(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

FILE_MAX_BYTES: Final = 1024 * 1024
"""More of a file is not looked at."""
LINE_MAX_BYTES: Final = 64 * 1024
USER_MAX_CHARS: Final = 256
GROUPS_MAX: Final = 256
ID_MAX: Final = 2**32 - 2
"""(uid_t) -1 means "leave it" to the kernel."""
DEFAULT_SHELL: Final = "/bin/sh"


class UnknownUser(LookupError):
    """The container has no such user, or what was given is none."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a command runs as. groups: supplementary, without gid. name: empty where passwd has no line for the uid."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    name: str = ""
    home: str = "/"
    shell: str = DEFAULT_SHELL


def resolve(user: str | None, passwd: bytes, group: bytes) -> Account:
    """Return the account for a name, a uid, either with ":" and a group or gid, or None (root), from the two files.

    With an explicit group there are no supplementary groups. A uid without a line is fine, a name without one raises
    UnknownUser.
    """
    wanted = "0" if user is None else user
    if not wanted or len(wanted) > USER_MAX_CHARS or "\0" in wanted:
        raise UnknownUser("Name a user, a uid or uid:gid.")
    owner, colon, group_text = wanted.partition(":")
    uid = _number(owner)
    found = _find(owner, uid, passwd)
    if found is None:
        if uid is None:
            raise UnknownUser(f"The container has no user {owner!r}.")
        found = Account(uid, 0)
    if colon:
        gid = _number(group_text)
        if gid is None:
            gid = _gid_of(group_text, group)
        if gid is None:
            raise UnknownUser(f"The container has no group {group_text!r}.")
        return Account(found.uid, gid, (), found.name, found.home, found.shell)
    groups = tuple(sorted(_groups(found.name, group) - {found.gid})[:GROUPS_MAX]) if found.name else ()
    return Account(found.uid, found.gid, groups, found.name, found.home, found.shell)


def names(data: bytes) -> dict[int, str]:
    """Return the names by id of a passwd or group file, which is hostile; the first one of an id counts."""
    found: dict[int, str] = {}
    for count in (7, 4):
        for fields in _lines(data, count):
            number = _number(fields[2])
            if number is not None and fields[0]:
                found.setdefault(number, fields[0].encode(errors="surrogateescape").decode(errors="replace"))
    return found


def _find(name: str, uid: int | None, passwd: bytes) -> Account | None:
    for fields in _lines(passwd, 7):
        number, gid = _number(fields[2]), _number(fields[3])
        if number is None or gid is None or not fields[0]:
            continue
        if (number == uid) if uid is not None else (fields[0] == name):
            home = fields[5] if fields[5].startswith("/") else "/"
            shell = fields[6] if fields[6].startswith("/") else DEFAULT_SHELL
            return Account(number, gid, (), fields[0], home, shell)
    return None


def _gid_of(name: str, group: bytes) -> int | None:
    for fields in _lines(group, 4):
        if name and fields[0] == name:
            return _number(fields[2])
    return None


def _groups(name: str, group: bytes) -> set[int]:
    found: set[int] = set()
    for fields in _lines(group, 4):
        gid = _number(fields[2])
        if gid is not None and name in fields[3].split(","):
            found.add(gid)
            if len(found) > GROUPS_MAX:
                break
    return found


def _lines(data: bytes, count: int) -> Iterator[list[str]]:
    for line in data[:FILE_MAX_BYTES].split(b"\n"):
        if len(line) > LINE_MAX_BYTES or b"\0" in line or line.startswith((b"#", b"+", b"-")):
            continue
        fields = line.decode("utf-8", "surrogateescape").split(":")
        if len(fields) == count:
            yield fields


def _number(text: str) -> int | None:
    """Return a decimal id, None where text is none: no sign, no blanks, no digits but ASCII's."""
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    value = int(text)
    return value if value <= ID_MAX else None
