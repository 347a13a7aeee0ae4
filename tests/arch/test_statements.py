"""The table of docs/lxc.md is that of the tests."""

from __future__ import annotations

import re

from tests import statements


def test_the_table_is_current() -> None:
    assert statements.BEGIN in statements.DOCUMENT.read_text()
    assert statements.document() == statements.DOCUMENT.read_text(), "python -m tests.statements --write"


def test_each_statement_says_something_of_something_that_is() -> None:
    rows = statements.found()
    assert len(rows) > 60
    for row in rows:
        assert "|" not in row.words, row
        assert len(row.words) > 10, row
        for reference in row.references:
            assert statements.REFERENCE.fullmatch(reference), (row.test, reference)
    tests = [(row.file, row.test) for row in rows]
    assert len(set(tests)) == len(tests)


def test_every_tool_that_is_named_is_one_of_the_document() -> None:
    tools = set(re.findall(r"lxc-[a-z-]+", statements.DOCUMENT.read_text().partition(statements.BEGIN)[0]))
    named = {name for row in statements.found() for name in row.references if name.startswith("lxc-")}
    assert named <= tools
