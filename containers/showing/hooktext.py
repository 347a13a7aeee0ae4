"""Hooks as the text that people read and write in a form, one on each line, and back."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from ..core.errors import SpecError
from ..core.model.hooks import START
from ..core.sentences import say


def parse(text: str) -> list[dict[str, Any]]:
    """Return hooks of lines "POINT NAME" and "start PROGRAM ARGUMENTS", as `update` takes them; raises SpecError."""
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            point, *rest = shlex.split(line)
        except ValueError:
            raise SpecError(_("A quotation mark is not closed."), field="hooks") from None
        if point == START:
            found.append({"point": point, "command": rest})
        elif len(rest) == 1:
            found.append({"point": point, "hook": rest[0]})
        else:
            raise SpecError(say("Write a point and a hook's name: %(line)s", line=line.strip()), field="hooks")
    return found


def written(hooks: Sequence[Mapping[str, Any]]) -> str:
    """Return hooks as parse() reads them."""
    return "\n".join(
        f"{one['point']} {shlex.join(one['command']) if one['point'] == START else one['hook']}" for one in hooks
    )
