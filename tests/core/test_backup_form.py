"""The format of backups: what is written is read, and nothing else is."""

from __future__ import annotations

import datetime as dt
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.core.archives.headers import times
from containers.core.archives.rules import Refused
from containers.core.backups import form

POINT = form.Point(
    name="one", layers=(0,), container={"name": "c"}, note="a\nb", created_at="2026-01-01T00:00:00+00:00"
)
MANIFEST = form.Manifest(
    made_at="2026-01-01T00:00:00.000+00:00", container={"name": "c"}, sizes=(5, 7), root=(0, 1), points=(POINT,)
)


@given(st.integers(0, 9999), st.integers(0, 99_999_999), st.integers(0, form.PIECE_BYTES))
def test_a_header_is_read_as_it_was_written_and_by_every_tar(layer, piece, size):
    block = form.header(form.piece_name(layer, piece), size)
    assert form.read_header(block) == (form.piece_name(layer, piece), size)
    found = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    assert (found.name, found.size, found.isreg()) == (form.piece_name(layer, piece), size, True)


@given(st.integers(0, form.BLOCK - 1), st.integers(0, 255))
def test_a_header_with_another_byte_is_none(at, value):
    block = bytearray(form.header("manifest.json", 77))
    if block[at] == value:
        return
    block[at] = value
    with pytest.raises(Refused):
        form.read_header(bytes(block))


def test_a_whole_backup_is_a_tar_to_others():
    told = form.write_manifest(MANIFEST)
    plain = form.header(form.MANIFEST, len(told)) + told + form.padding(len(told)) + form.END
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert archive.getnames() == [form.MANIFEST]


def test_a_manifest_comes_back():
    back = form.read_manifest(form.write_manifest(MANIFEST))
    assert back.points[0].note == "a\nb"
    assert (back.sizes, back.root, back.name, back.size_bytes) == ((5, 7), (0, 1), "c", 12)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "tar"},
        {"version": 2},
        {"layers": []},
        {"layers": [{"size_bytes": -1}]},
        {"layers": "x"},
        {"root": {"layers": [0, 0], "lineage": []}},
        {"root": {"layers": [2], "lineage": []}},
        {"root": {"layers": [], "lineage": []}},
        {"root": {"layers": [True], "lineage": []}},
        {"root": {"layers": [0], "lineage": ["../x"]}},
        {"container": {"name": "/etc"}},
        {"container": []},
        {"made_at": "yesterday"},
        {"made_at": "2026-01-01T00:00:00"},
        {"points": [{}]},
        {"points": [{**json.loads(form.write_manifest(MANIFEST))["points"][0], "kind": "mine"}]},
        {"points": [{**json.loads(form.write_manifest(MANIFEST))["points"][0], "note": "\x1b"}]},
        {"points": json.loads(form.write_manifest(MANIFEST))["points"] * 2},
    ],
)
def test_a_manifest_that_is_none_is_refused(change):
    with pytest.raises(Refused):
        form.read_manifest(json.dumps({**json.loads(form.write_manifest(MANIFEST)), **change}).encode())


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_json_at_all_makes_more_than_a_refusal(value):
    for read in (form.read_manifest, form.read_digests):
        with pytest.raises(Refused):
            read(json.dumps(value).encode())
    whole = json.loads(form.write_manifest(MANIFEST))
    for key in ("root", "points", "layers", "container", "made_at"):
        try:
            form.read_manifest(json.dumps({**whole, key: value}).encode())
        except Refused:
            continue
        # what is taken is as it would be written
        assert key in ("points",)


def test_names_of_files():
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert form.file_name("web-1", at) == "web-1_20260102T030405Z.boxroom.tar.zst"
    for name in (form.file_name("web-1", at), form.file_name("a", at, 12)):
        assert form.is_file_name(name)
    for name in (
        "",
        "a",
        "../" + form.file_name("a", at),
        form.file_name("a", at) + "/x",
        "." + form.file_name("a", at),
    ):
        assert not form.is_file_name(name)


@given(st.integers(-(2**31) * 10**9, (2**34 - 1) * 10**9))
def test_times_are_exact_to_the_nanosecond(when):
    whole, part = divmod(abs(when), 10**9)
    info = tarfile.TarInfo("x")
    info.pax_headers = {"mtime": f"{'-' if when < 0 else ''}{whole}.{part:09d}", "atime": "5.000000001"}
    expected = when if when else 0
    assert times(info) == (5_000_000_001, expected)
