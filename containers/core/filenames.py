"""Names and paths of files inside containers, which are bytes, as text: what people read, and what calls carry. Pure.

A path in a call is text in which ``\\xNN`` is a byte and ``\\\\`` a backslash, so that every name can be said, also one
that is no UTF-8 or has a line end in it; a path without a backslash stands for itself. Inside, paths are what Python's
own file functions take (surrogateescape).
"""

from __future__ import annotations

import re
from typing import Final

from .errors import SpecError

PATH_MAX: Final = 4095
"""Bytes, as the kernel's PATH_MAX without its end."""
NAME_MAX: Final = 255
_ESCAPE: Final = re.compile(r"\\(\\|x[0-9a-fA-F]{2})|\\", re.ASCII)
_TEXT_MAX: Final = 4 * PATH_MAX + 4


def shown(name: str) -> str:
    """Return a name for people: what is no UTF-8, a control or a direction character is told as an escape."""
    return "".join(_told_char(char) if not char.isprintable() else char for char in name)


def _told_char(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def written(path: str) -> str:
    """Return a path as calls carry it; parsed() gives back exactly that path."""
    return "".join(_written_char(char) for char in path)


def _written_char(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def parsed(text: str, *, field: str = "path") -> str:
    """Return the absolute path that a call means, without a slash at its end, "." and empty parts; "/" is the root.

    Raises SpecError for a relative one, for "..", for a NUL, for one that is too long.
    """
    if not text.startswith("/") or len(text) > _TEXT_MAX:
        raise SpecError("Give an absolute path.", field=field)
    raw = b"".join(_bytes_of(part, field) for part in _split(text))
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in raw:
        raise SpecError("A path has no .. and no NUL in it.", field=field)
    if len(raw) > PATH_MAX or any(len(part) > NAME_MAX for part in parts):
        raise SpecError("This path is too long.", field=field)
    return "/" + b"/".join(parts).decode("utf-8", "surrogateescape")


def one_name(text: str, *, field: str = "name") -> str:
    """Return the name that a call means, as it is in paths; raises SpecError for what is none, or is several."""
    found = parsed(f"/{text}", field=field) if text else "/"
    if found == "/" or "/" in found[1:] or text.startswith("/"):
        raise SpecError("Give a name without a slash.", field=field)
    return found[1:]


def _split(text: str) -> list[str]:
    found, at = [], 0
    for match in _ESCAPE.finditer(text):
        found += [text[at : match.start()], match[0]]
        at = match.end()
    return [*found, text[at:]]


def _bytes_of(part: str, field: str) -> bytes:
    if part == "\\":
        raise SpecError(r"Write a backslash as \\, and a byte as \xNN.", field=field)
    if part == "\\\\":
        return b"\\"
    if part.startswith("\\x"):
        return bytes([int(part[2:], 16)])
    try:
        return part.encode()
    except UnicodeEncodeError:
        raise SpecError(r"Write a backslash as \\, and a byte as \xNN.", field=field) from None
