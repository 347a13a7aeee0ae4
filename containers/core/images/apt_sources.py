"""Which Debian mirror this host was told to use: its apt sources, in both formats. Source: sources.list(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

DEFAULT_MIRROR: Final = "http://deb.debian.org/debian"
DEFAULT_SECURITY: Final = "http://deb.debian.org/debian-security"
_ARCHIVE_KEYRING: Final = "debian-archive-keyring"
_OWN_FILES: Final = ("sources.list", "debian.sources")
_ONE_LINE: Final = re.compile(
    r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>.*)"
)
_OFF: Final = {"no", "false", "without", "off", "disable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One place that packages come from. file: the name of the file it stands in."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str
    file: str


def mirrors(apt_dir: Path = Path("/etc/apt")) -> tuple[str, str]:
    """Return the URIs of the host's Debian mirror and of its mirror for security updates; Debian's own by default.

    Only what is Debian's is taken: Debian's own source files, or what Debian's keyring signs. No URI with a password.
    """
    main, security = DEFAULT_MIRROR, DEFAULT_SECURITY
    for source in reversed(list(read(apt_dir))):
        uri = urlsplit(source.uri)
        own = source.file in _OWN_FILES or _ARCHIVE_KEYRING in source.signed_by
        if not own or uri.scheme not in ("http", "https") or uri.username or "main" not in source.components:
            continue
        last = uri.path.rstrip("/").rpartition("/")[2]
        if last == "debian":
            main = source.uri.rstrip("/")
        elif last == "debian-security":
            security = source.uri.rstrip("/")
    return main, security


def read(apt_dir: Path) -> Iterator[Source]:
    """Yield the enabled binary sources of a host, in the order that apt reads them."""
    extra = apt_dir / "sources.list.d"
    listed = sorted(extra.iterdir()) if extra.is_dir() else []
    for path in (apt_dir / "sources.list", *listed):
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".list":
            yield from parse_one_line(text, path.name)
        elif path.suffix == ".sources":
            yield from parse_deb822(text, path.name)


def parse_one_line(text: str, file: str) -> Iterator[Source]:
    """Yield the sources of the one-line format: ``deb [options] uri suite component...``."""
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match:
            options = dict(option.partition("=")[::2] for option in (match["options"] or "").split())
            yield Source(
                uri=match["uri"],
                suites=(match["suite"],),
                components=tuple(match["components"].split()),
                signed_by=options.get("signed-by", ""),
                file=file,
            )


def parse_deb822(text: str, file: str) -> Iterator[Source]:
    """Yield the sources of the deb822 format: paragraphs of ``Field: value`` lines, each with one or more URIs."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')} {line.strip()}".strip()
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in _OFF:
            continue
        for uri in fields.get("uris", "").split():
            yield Source(
                uri=uri,
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", ""),
                file=file,
            )
