"""The host's own Debian mirror, out of its apt sources in both formats."""

from __future__ import annotations

import pytest

from containers.core.images import apt_sources

DEB822 = """\
# made by the installer
Types: deb deb-src
URIs: http://mirror.example.org/debian/
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example.org/debian-security
Suites: bookworm-security
Components: main
"""


def write(apt_dir, name, text):
    path = apt_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_no_sources_give_debians_own_mirrors(tmp_path):
    assert apt_sources.mirrors(tmp_path) == (apt_sources.DEFAULT_MIRROR, apt_sources.DEFAULT_SECURITY)


def test_deb822_sources_are_read(tmp_path):
    write(tmp_path, "sources.list.d/debian.sources", DEB822)
    assert apt_sources.mirrors(tmp_path) == (
        "http://mirror.example.org/debian",
        "http://mirror.example.org/debian-security",
    )


def test_one_line_sources_are_read_with_their_options(tmp_path):
    write(
        tmp_path,
        "sources.list",
        "# deb http://old.example.org/debian bookworm main\n"
        "deb-src http://src.example.org/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] https://a.example.org/debian bookworm main # comment\n"
        "deb https://a.example.org/debian-security bookworm-security main\n",
    )
    assert apt_sources.mirrors(tmp_path) == ("https://a.example.org/debian", "https://a.example.org/debian-security")


@pytest.mark.parametrize(
    "line",
    [
        "deb http://apt.example.com/debian bookworm main",  # somebody else's packages, in a file of his own
        "deb http://user:secret@mirror.example.org/debian bookworm main",
        "deb cdrom:[Debian]/debian bookworm main",
        "deb http://mirror.example.org/debian bookworm contrib",
    ],
)
def test_what_is_no_debian_mirror_is_passed_over(tmp_path, line):
    name = "sources.list" if "secret" in line or "cdrom" in line or "contrib" in line else "sources.list.d/other.list"
    write(tmp_path, name, f"{line}\n")
    assert apt_sources.mirrors(tmp_path)[0] == apt_sources.DEFAULT_MIRROR


def test_a_disabled_paragraph_is_passed_over(tmp_path):
    write(tmp_path, "sources.list.d/debian.sources", "Enabled: no\n" + DEB822.split("\n", 1)[1])
    assert apt_sources.mirrors(tmp_path)[0] == apt_sources.DEFAULT_MIRROR


def test_the_first_of_several_counts(tmp_path):
    write(
        tmp_path,
        "sources.list",
        "deb http://one.example.org/debian bookworm main\ndeb http://two.example.org/debian bookworm main\n",
    )
    assert apt_sources.mirrors(tmp_path)[0] == "http://one.example.org/debian"
