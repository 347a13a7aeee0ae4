"""The source of the pages can be read: an element a line, and no line of markup, script or style is too long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TEMPLATES = PROJECT / "templates"
SCRIPTS_AND_SHEETS = sorted(path for path in (PROJECT / "static/app").rglob("*") if path.suffix in (".js", ".css"))
WIDTH = 120
_WHOLE = re.compile(r"\{% blocktranslate\b.*?\{% endblocktranslate %\}|\{%.*?%\}|\{\{.*?\}\}")
"""What cannot be broken: a sentence keeps its text, and a tag ends in the line where it began."""


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_lines_are_short(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if len(line) > WIDTH:
            markup = _WHOLE.sub("", line)
            elements = len(re.findall(r"<[a-z]", markup))
            assert elements <= 2, f"{path}:{number} has {len(line)} columns and {elements} elements"
            assert len(markup) <= WIDTH, f"{path}:{number} has {len(markup)} columns of markup"


@pytest.mark.parametrize("path", SCRIPTS_AND_SHEETS, ids=lambda path: path.name)
def test_lines_of_scripts_and_sheets_are_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > WIDTH] == []


def test_every_token_that_is_used_is_defined() -> None:
    """A token that is not there is silently another colour: one that was not chosen for the dark theme."""
    sources = [path.read_text(encoding="utf-8") for path in (*SCRIPTS_AND_SHEETS, *TEMPLATES.rglob("*.html"))]
    vendored = [path.read_text(encoding="utf-8") for path in (PROJECT / "static/vendor/tabler").rglob("*.css")]
    used = {name for text in sources for name in re.findall(r"var\((--[a-z0-9-]+)", text)}
    defined = {name for text in (*sources, *vendored) for name in re.findall(r"(--[a-z0-9-]+)[\"'`]?\s*[:,]", text)}
    assert len(used) > 30
    assert used - defined == set()
