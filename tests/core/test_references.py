"""How images in registries are named."""

from __future__ import annotations

import pytest

from containers.core.errors import SpecError
from containers.core.model.references import parse

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("text", "full", "endpoint", "host"),
    [
        ("alpine", "docker.io/library/alpine:latest", "registry-1.docker.io", "registry-1.docker.io"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "registry-1.docker.io", "registry-1.docker.io"),
        ("owner/name", "docker.io/owner/name:latest", "registry-1.docker.io", "registry-1.docker.io"),
        ("docker://ghcr.io/owner/name:1.0", "ghcr.io/owner/name:1.0", "ghcr.io", "ghcr.io"),
        ("localhost:5000/a/b/c:x_Y.z", "localhost:5000/a/b/c:x_Y.z", "localhost:5000", "localhost"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000", "[::1]"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000", "127.0.0.1"),
        (f"Registry.Example.org/a@{DIGEST}", f"registry.example.org/a@{DIGEST}", *["registry.example.org"] * 2),
        (f"a.b/c:tag@{DIGEST}", f"a.b/c@{DIGEST}", "a.b", "a.b"),
    ],
)
def test_a_name_is_what_everybody_takes_it_for(text, full, endpoint, host):
    found = parse(text)
    assert (str(found), found.endpoint, found.host) == (full, endpoint, host)


@pytest.mark.parametrize(
    "text",
    [
        *("", "A", "a/../b", "a//b", "/a", "a/", "a:", "a:b:c", "a@sha256:00", f"a@md5:{'0' * 32}", "a b", "a\n"),
        *("https://x.org/a", "user:pw@x.org/a", "x.org:0/a", "x.org:99999/a", "x.org/a?b", "x.org/a#b", "a" * 300),
        *("x.org/a:..", "x.org/ä", "-x.org/a", "x.org%2f/a", "[::1/a", "x.org/a:" + "t" * 129),
    ],
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(SpecError) as error:
        parse(text)
    assert error.value.field == "source.reference"
