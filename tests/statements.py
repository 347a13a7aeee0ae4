"""The table at the end of docs/lxc.md: what holds here of what LXC does, and of the bugs of its field, by which test.

A test says so by ``@pytest.mark.lxc("what holds", "L#2644", ...)``, or by a name that begins with the bug's, such as
``test_cve_2021_30465_a_directory_...`` or ``test_lxc_2878_no_veth_...``. Read from the source; nothing is imported.

``python -m tests.statements --write`` writes the table; tests/arch holds that it is current.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
DOCUMENT: Final = PROJECT / "docs/lxc.md"
BEGIN: Final = "<!-- made by: python -m tests.statements --write -->\n"
END: Final = "<!-- end of what is made -->\n"
TRACKERS: Final = {"lxc": "L", "lxd": "D", "incus": "I", "lxcfs": "lxcfs", "runc": "runc", "crun": "crun"}
"""Whose bug a name tells, and what it is called in the table."""
REFERENCE: Final = re.compile(r"CVE-\d{4}-\d{4,5}|[A-Za-z-]+#\d+|lxc-[a-z-]+|lxc\.[a-z._-]+")
"""A CVE, an issue of a project, a tool of LXC's, or a key of its configuration."""
_NAME: Final = re.compile(rf"test_(?:(cve)_(\d{{4}})_(\d+)|({'|'.join(TRACKERS)})_(\d+))_(\w+)")


@dataclass(frozen=True, order=True)
class Statement:
    """One row. file: below tests/."""

    file: str
    line: int
    test: str
    words: str
    references: tuple[str, ...]


def found() -> list[Statement]:
    """Return all statements, in the order of files and lines."""
    paths = sorted((PROJECT / "tests").rglob("test_*.py"))
    return sorted(statement for path in paths for statement in _of(path))


def _of(path: Path) -> Iterator[Statement]:
    file = str(path.relative_to(PROJECT / "tests"))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            words, references = _said(node)
            if words:
                yield Statement(file, node.lineno, node.name, words, tuple(dict.fromkeys(references)))


def _said(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, list[str]]:
    """Return what a test says that holds, and of what; its name counts where it begins with a bug's."""
    words, references = "", []
    named = _NAME.fullmatch(node.name)
    if named:
        cve, year, number, tracker, issue, rest = named.groups()
        words = rest.replace("_", " ")
        references.append(f"CVE-{year}-{number}" if cve else f"{TRACKERS[tracker]}#{issue}")
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.lxc":
            first, *more = (ast.literal_eval(argument) for argument in mark.args)
            words = first
            references += more
    return words, references


def table() -> str:
    """Return the text between the marks: a heading for each file that has statements, and its rows."""
    parts = []
    files: dict[str, list[Statement]] = {}
    for statement in found():
        files.setdefault(statement.file, []).append(statement)
    for file, statements in files.items():
        parts.append(f"\n`tests/{file}`\n\n| holds | there |\n|---|---|\n")
        parts += [f"| {one.words} | {', '.join(one.references)} |\n" for one in statements]
    return "".join(parts) + "\n"


def document() -> str:
    """Return the document with the table as it should be."""
    text = DOCUMENT.read_text()
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return before + BEGIN + table() + END + after


def main() -> int:
    """Write the table, or say whether it is current."""
    wanted = document()
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(wanted)
        return 0
    return int(wanted != DOCUMENT.read_text())


if __name__ == "__main__":
    sys.exit(main())
