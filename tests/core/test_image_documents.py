"""Documents of images that are small, and would be large when they have been read."""

from __future__ import annotations

import pytest

from containers.core.archives.unpacking import BadArchive
from containers.core.images import oci


def test_a_document_of_too_many_things_is_not_read():
    few = b'{"a": [' + b"[]," * 1000 + b"[]]}"
    assert len(oci.document(few)["a"]) == 1001
    for thing in (b"[],", b"{},", b"0,"):
        many = b'{"a": [' + thing * oci.VALUES_MAX + b"0]}"
        assert len(many) < 4 << 20
        with pytest.raises(BadArchive, match="lists more than"):
            oci.document(many)
