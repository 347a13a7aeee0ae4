"""What an archive may hold: names, owners, extended attributes, amounts, kinds of files. No kernel, no files."""

from __future__ import annotations

import io
import struct
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.core.archives import formats, rules
from containers.core.archives.rules import Limits, Refused


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/b", ("a", "b")),
        ("./a//b/", ("a", "b")),
        ("/etc/passwd", ("etc", "passwd")),
        (".", ()),
        ("./", ()),
        ("...", ("...",)),
        ("a/..b", ("a", "..b")),
    ],
)
def test_a_name_is_what_tar_takes_it_for(name, found):
    assert rules.parts(name) == found


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("..", ""),
        ("a/../../etc", ""),
        ("/..", ""),
        ("a/..", ""),
        ("a\0b", ""),
        ("a" * 256, "name"),
        ("ä" * 128, "name"),
        ("/".join(["a" * 250] * 20), "path"),
        ("a/" * 129, "depth"),
    ],
)
def test_a_name_that_leads_out_or_is_too_long_is_refused(name, limit):
    with pytest.raises(Refused) as refused:
        rules.parts(name)
    assert refused.value.limit == limit


@given(st.text(st.sampled_from("a./\0é") | st.characters(), max_size=300))
def test_whatever_a_name_is_its_parts_stay_inside(name):
    try:
        found = rules.parts(name)
    except Refused:
        return
    assert all(part not in ("", ".", "..") and "/" not in part and "\0" not in part for part in found)
    assert all(len(part.encode("utf-8", "surrogateescape")) <= 255 for part in found)
    assert rules.parts("/".join(found)) == found


@pytest.mark.parametrize("ids", [(65536, 0), (0, 65536), (-1, 0), (100000, 100000), (2**32, 0)])
def test_an_owner_beyond_the_range_is_refused(ids):
    with pytest.raises(Refused, match=r"owns an entry"):
        rules.owner(*ids, "x")
    assert rules.owner(65535, 65534, "x") == (65535, 65534)


def text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


CAP_V2 = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
CAP_V3 = struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, 100000)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("user.note", b"\xff\x00x", b"\xff\x00x"),
        ("user.overlay.opaque", b"y", None),
        ("user.overlay.redirect", b"/etc", None),
        ("trusted.overlay.opaque", b"y", None),
        ("trusted.x", b"y", None),
        ("security.selinux", b"y", None),
        ("security.ima", b"y", None),
        ("user.", b"y", None),
        ("user.long", b"x" * 65537, None),
        ("security.capability", CAP_V2, CAP_V2),
        ("security.capability", CAP_V3, CAP_V2),
        ("security.capability", CAP_V3[:-1], None),
        ("security.capability", b"", None),
        ("system.posix_acl_access", b"\2\0\0\0", b"\2\0\0\0"),
    ],
)
def test_extended_attributes_are_an_allow_list(name, value, kept):
    found, refused = rules.xattrs({f"SCHILY.xattr.{name}": text(value), "mtime": "1"}, directory=False)
    assert found == ({} if kept is None else {name: kept})
    assert refused == (kept is None)


def test_a_directory_has_no_capabilities():
    assert rules.xattrs({"SCHILY.xattr.security.capability": text(CAP_V2)}, directory=True) == ({}, 1)


def test_what_comes_out_is_bounded_by_amount_and_by_ratio():
    limits = Limits(bytes=1 << 30, ratio=200)
    limits.check_flow(rules.RATIO_FLOOR_BYTES, 1)
    limits.check_flow(200 << 20, 1 << 20)
    with pytest.raises(Refused) as refused:
        limits.check_flow((200 << 20) + 1, 1 << 20)
    assert refused.value.limit == "ratio"
    with pytest.raises(Refused) as refused:
        limits.check_flow((1 << 30) + 1, 1 << 30)
    assert refused.value.limit == "bytes"


def test_kinds_of_files_are_told_by_their_first_bytes():
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    assert formats.detect(plain.getvalue()[:512]) is formats.TAR
    assert formats.detect(b"\x1f\x8b\x08" + b"\0" * 509) is formats.GZIP
    assert formats.detect(b"\xfd7zXZ\x00") is formats.XZ
    assert formats.detect(b"\x28\xb5\x2f\xfd") is formats.ZSTD
    assert formats.detect(b"hsqs") is formats.SQUASHFS
    for other in (b"", b"\0" * 512, b"x" * 512, b"BZh9", b"\x7fELF"):
        assert formats.detect(other) is None
    assert formats.name_of(b"BZh9") == "bzip2"
