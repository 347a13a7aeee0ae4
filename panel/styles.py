"""The panel's own style sheets inside its pages, so that a page is painted without asking for anything else.

The Content-Security-Policy of an answer names the digest of every sheet that is in it, and so allows these texts and
no other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from django.contrib.staticfiles import finders
from django.http import HttpRequest

_STRING_SIGN_OR_SPACE: Final = re.compile(r"""("[^"]*"|'[^']*')|/\*.*?\*/|\s*([{};,])\s*|\s+""", re.DOTALL)
_INLINE: Final = "_inline_styles"


@dataclass(frozen=True)
class Sheet:
    """A style sheet's text, and the source expression that allows it: 'sha256-…'."""

    text: str
    source: str


@cache
def sheet(*names: str) -> Sheet:
    """Return static style sheets, by their names there, as one; raises FileNotFoundError where one is not there."""
    text = "".join(smaller(_read(name)) for name in names)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Sheet(text, f"'sha256-{digest}'")


def _read(name: str) -> str:
    path = finders.find(name)
    if path is None:
        raise FileNotFoundError(name)
    return Path(path).read_text(encoding="utf-8")


def smaller(css: str) -> str:
    """Return a style sheet without its comments and with no more space than it needs; strings stay as they are."""
    return _STRING_SIGN_OR_SPACE.sub(lambda found: found[1] or found[2] or " ", css).strip()


def allow(request: HttpRequest, source: str) -> None:
    """Have the answer to this request allow a sheet that is put into it."""
    vars(request).setdefault(_INLINE, {})[source] = None


def allowed(request: HttpRequest) -> list[str]:
    """Return the source expressions of the sheets in the answer to this request."""
    return list(vars(request).get(_INLINE, {}))
