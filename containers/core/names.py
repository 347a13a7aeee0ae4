"""Names of containers, images, snapshots, networks, projects and users: one rule for all."""

from __future__ import annotations

import re

from .errors import SpecError

NAME_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(NAME_PATTERN, re.ASCII)
NAME_RULE = "Use 1 to 63 lower-case letters, digits and dashes; begin and end with a letter or a digit."


def check_name(value: str, *, field: str = "name") -> str:
    """Return value if it is a valid name (an RFC 1123 label in lower case); raises SpecError naming the field."""
    if len(value) > 63 or not _NAME.fullmatch(value):
        raise SpecError(NAME_RULE, field=field)
    return value
