"""Paths of files as calls carry them and as people read them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.core import filenames
from containers.core.errors import SpecError

names = st.binary(min_size=1, max_size=60).filter(lambda raw: b"/" not in raw and b"\0" not in raw)


@given(st.lists(names.filter(lambda raw: raw not in (b".", b"..")), max_size=5))
def test_every_path_can_be_said_and_comes_back(parts):
    path = os.fsdecode(b"/" + b"/".join(parts))
    told = filenames.written(path)
    assert told.isprintable()
    assert told.encode()
    assert filenames.parsed(told) == path


@given(st.text(max_size=80))
def test_whatever_is_sent_is_a_path_below_the_root_or_refused(text):
    try:
        found = filenames.parsed(text)
    except SpecError:
        return
    assert found.startswith("/")
    assert not {"..", "."} & set(found.split("/"))
    assert "\0" not in found
    assert found == "/" or not found.endswith("/")


@pytest.mark.parametrize(
    "text",
    [
        *("", "etc", "/..", "/a/../b", r"/a/\x2e\x2e/b", r"/a\x00b", "/a\0b", r"/a\q", "/a\\", r"/\x1"),
        *("/" + "a" * 256, "/" + "a/" * 3000, "/\ud800"),
    ],
)
def test_a_path_that_leads_elsewhere_or_nowhere_is_refused(text):
    with pytest.raises(SpecError) as refused:
        filenames.parsed(text)
    assert refused.value.field == "path"


def test_what_is_plain_stands_for_itself_and_what_deceives_is_shown():
    assert filenames.parsed("//etc/./passwd/") == "/etc/passwd"
    assert filenames.written("/a b/ü") == "/a b/ü"
    assert filenames.parsed(r"/dev\\x2d1") == r"/dev\x2d1"
    assert filenames.shown(os.fsdecode(b"a\xffb\n")) == r"a\xffb\n"
    assert filenames.shown("exe\u202egnp.txt") == r"exe\u202egnp.txt"
    assert filenames.one_name("x.txt") == "x.txt"
    for bad in ("", "a/b", "/a", "..", "."):
        with pytest.raises(SpecError):
            filenames.one_name(bad)
