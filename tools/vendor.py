"""Fetch the pinned front-end packages and copy the few files that the pages use to static/vendor/.

    python3 tools/vendor.py            fetch and write everything, with vendor.json
    python3 tools/vendor.py --check    compare what lies there with vendor.json, offline; exit 1 on a difference

Each package is fetched with ``npm pack`` (npm checks the registry's integrity) and the tarball's own sha512 is compared
with the pin below. Nothing is built. Three changes are made to what upstream ships, and vendor.json names them:

- ``sourceMappingURL`` comments are removed, because the maps are not shipped and the static storage would miss them;
- of Tabler only the design tokens (colours, type, radii) are taken: its full style sheet is 635 kB of which a page
  would use a twentieth, and a purged one changes whenever a template does. The pages have a small style sheet of their
  own on these tokens, with Tabler's class names where there is one, so that its documentation helps;
- of Tabler's 5000 icons those in ICONS are joined to one sprite.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "static" / "vendor"
MANIFEST = VENDOR / "vendor.json"


@dataclass(frozen=True)
class Package:
    """One npm package. name: its folder here. files: path in the package → file name here."""

    name: str
    package: str
    version: str
    sha512: str
    files: dict[str, str]
    note: str = ""
    target: Path = VENDOR


PACKAGES: tuple[Package, ...] = (
    Package(
        "xterm",
        "@xterm/xterm",
        "6.0.0",
        "TQwDdQGtwwDt+2cgKDLn0IRaSxYu1tSUjgKarSDkUM0ZNiSRXFpjxEsvc/Zgc5kq5omJ+V0a8/kIM2WD3sMOYg==",
        {"lib/xterm.mjs": "xterm.mjs", "css/xterm.css": "xterm.css", "LICENSE": "LICENSE"},
        "source map comment removed",
    ),
    Package(
        "xterm-addon-fit",
        "@xterm/addon-fit",
        "0.11.0",
        "jYcgT6xtVYhnhgxh3QgYDnnNMYTcf8ElbxxFzX0IZo+vabQqSPAjC3c1wJrKB5E19VwQei89QCiZZP86DCPF7g==",
        {"lib/addon-fit.mjs": "addon-fit.mjs", "LICENSE": "LICENSE"},
        "source map comment removed",
    ),
    Package(
        "xterm-addon-webgl",
        "@xterm/addon-webgl",
        "0.19.0",
        "b3fMOsyLVuCeNJWxolACEUED0vm7qC0cy4wRvf3oURSzDTYVQiGPhTnhWZwIHdvC48Y+oLhvYXnY4XDXPoJo6A==",
        {"lib/addon-webgl.mjs": "addon-webgl.mjs", "LICENSE": "LICENSE"},
        "source map comment removed",
    ),
    Package(
        "xterm-addon-search",
        "@xterm/addon-search",
        "0.16.0",
        "9OeuBFu0/uZJPu+9AHKY6g/w0Czyb/Ut0A5t79I4ULoU4IfU5BEpPFVGQxP4zTTMdfZEYkVIRYbHBX1xWwjeSA==",
        {"lib/addon-search.mjs": "addon-search.mjs", "LICENSE": "LICENSE"},
        "source map comment removed",
    ),
    Package(
        "xterm-addon-web-links",
        "@xterm/addon-web-links",
        "0.12.0",
        "4Smom3RPyVp7ZMYOYDoC/9eGJJJqYhnPLGGqJ6wOBfB8VxPViJNSKdgRYb8NpaM6YSelEKbA2SStD7lGyqaobw==",
        {"lib/addon-web-links.mjs": "addon-web-links.mjs", "LICENSE": "LICENSE"},
        "source map comment removed",
    ),
    Package(
        "xterm-addon-unicode11",
        "@xterm/addon-unicode11",
        "0.9.0",
        "FxDnYcyuXhNl+XSqGZL/t0U9eiNb/q3EWT5rYkQT/zuig8Gz/VagnQANKHdDWFM2lTMk9ly0EFQxxxtZUoRetw==",
        {"lib/addon-unicode11.mjs": "addon-unicode11.mjs", "LICENSE": "LICENSE"},
        "source map comment removed",
    ),
    Package(
        "uplot",
        "uplot",
        "1.6.32",
        "KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        {"dist/uPlot.esm.js": "uPlot.esm.js", "dist/uPlot.min.css": "uPlot.min.css", "LICENSE": "LICENSE"},
        "",
    ),
    Package(
        "tabler",
        "@tabler/core",
        "1.6.1",
        "lgmR9gcxRp5JlLxcmRi9Rz85JrEvH6Bz71KnlcPVSa97wtwQNjgSs3g3fxwbAlulHyRMghhIV04QUuW3pqDsIg==",
        {"@tokens:dist/css/tabler.css": "tokens.css"},
        "only the design tokens of dist/css/tabler.css",
    ),
    Package(
        "tabler-icons",
        "@tabler/icons",
        "3.51.0",
        "0pinvPZz7YeX+OSfxuEAbnEPWbocVXW5iU8h5lh41pYG8sZuQfpWECC980lxOT0clGIcNGn8xsBr+zKaRGdA/g==",
        {"@sprite": "sprite.svg", "LICENSE": "LICENSE"},
        "the icons used, as one sprite",
    ),
    Package(
        "htmx",
        "htmx.org",
        "2.0.11",
        "Thx/WtpeOQqSrqBCw/A1cwGJGg4UrVa3+sW0GmrM3p4gJgO89ecH4qtbnyzDDWFvBTqjnIMCgELTNt636dtamA==",
        {"dist/htmx.min.js": "htmx.min.js", "LICENSE": "LICENSE"},
        "",
    ),
    Package(
        "idiomorph",
        "idiomorph",
        "0.8.0",
        "R47JBL+6jHDQvcnbppIUtXXcxi5h6+wuCEEZXnRhUltsgzPFKzThL5PuHppP9ypJuy+7WawcY1TsSBD/iQbMhw==",
        {"dist/idiomorph.min.js": "idiomorph.min.js", "LICENSE": "LICENSE"},
        "",
    ),
    Package(
        "axe",
        "axe-core",
        "4.14.1",
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        {"axe.min.js": "axe.min.js", "LICENSE": "LICENSE"},
        "for the tests only; not shipped to a browser by the panel",
        ROOT / "tests" / "vendor",
    ),
)

ICONS: tuple[str, ...] = (
    "upload",
    "activity",
    "accessible",
    "adjustments",
    "alert-triangle",
    "arrow-back-up",
    "arrows-maximize",
    "ban",
    "bolt-off",
    "box",
    "camera",
    "chart-line",
    "check",
    "chevron-down",
    "chevron-left",
    "chevron-right",
    "circle-check",
    "circle-x",
    "clipboard",
    "clock",
    "copy",
    "cpu",
    "device-desktop",
    "dots",
    "dots-vertical",
    "download",
    "external-link",
    "file-text",
    "filter",
    "folder",
    "hammer",
    "history",
    "info-circle",
    "key",
    "keyboard",
    "language",
    "layout-dashboard",
    "link",
    "list-details",
    "loader-2",
    "lock",
    "logout",
    "menu-2",
    "minus",
    "moon",
    "network",
    "pencil",
    "photo",
    "player-pause",
    "player-play",
    "player-stop",
    "plug-connected",
    "plus",
    "refresh",
    "search",
    "server-2",
    "settings",
    "shield-check",
    "snowflake",
    "snowflake-off",
    "sun",
    "tag",
    "terminal-2",
    "text-decrease",
    "text-increase",
    "trash",
    "user-plus",
    "users",
    "world",
    "x",
)

_TOKEN = re.compile(
    r"^  (--tblr-(?:black|white|(?:blue|azure|purple|red|orange|yellow|green|teal|cyan)|gray-\d00|"
    r"font-(?:sans-serif|monospace)|border-radius(?:-sm|-lg)?|body-font-size)): ([^;]+);$",
    re.MULTILINE,
)
_MAP = re.compile(rb"\n?(?://[#@] ?sourceMappingURL=\S*|/\*[#@] ?sourceMappingURL=[^*]*\*/)\s*$")


def main() -> int:
    """Fetch, or check with --check; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare the files with vendor.json, fetch nothing")
    if parser.parse_args().check:
        problems = check()
        sys.stdout.writelines(f"{problem}\n" for problem in problems)
        return 1 if problems else 0
    fetch()
    return 0


def fetch() -> None:
    """Fetch every package, write its files and vendor.json; SystemExit where a tarball is not the pinned one."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for package in PACKAGES:
            contents = _download(package, Path(scratch))
            folder = package.target / package.name / package.version
            folder.mkdir(parents=True, exist_ok=True)
            written = {name: _shipped(contents, source) for source, name in package.files.items()}
            for name, data in written.items():
                (folder / name).write_bytes(data)
            rows.append(
                {
                    "name": package.name,
                    "package": package.package,
                    "version": package.version,
                    "license": json.loads(contents["package.json"])["license"],
                    "tarball_sha512": package.sha512,
                    "changes": package.note,
                    "files": {
                        str((folder / name).relative_to(ROOT)): hashlib.sha256(data).hexdigest()
                        for name, data in written.items()
                    },
                }
            )
    MANIFEST.write_text(json.dumps(rows, indent=1) + "\n")


def check() -> list[str]:
    """Return what differs between vendor.json and the files: changed, missing, or not listed."""
    problems = []
    listed = set()
    for row in json.loads(MANIFEST.read_text()):
        for name, digest in row["files"].items():
            path = ROOT / name
            listed.add(path)
            if not path.is_file():
                problems.append(f"{name} is missing")
            elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                problems.append(f"{name} was changed")
    stray = {path for path in VENDOR.rglob("*") if path.is_file()} - listed - {MANIFEST}
    return problems + [f"{path.relative_to(ROOT)} is not in vendor.json" for path in sorted(stray)]


def _download(package: Package, scratch: Path) -> dict[str, bytes]:
    """Return the package's files by path, after comparing the tarball's sha512 with the pin."""
    command = ["npm", "pack", "--silent", f"{package.package}@{package.version}", "--pack-destination", str(scratch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    tarball = scratch / done.stdout.strip().splitlines()[-1]
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise SystemExit(f"{package.package} {package.version}: sha512 is {digest}, not the pinned one")
    with tarfile.open(tarball) as archive:
        found = {}
        for member in archive.getmembers():
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None:
                found[member.name.split("/", 1)[1]] = stream.read()
        return found


def _shipped(contents: dict[str, bytes], source: str) -> bytes:
    """Return what is written for one entry of Package.files."""
    if source == "@sprite":
        return _sprite(contents)
    if source.startswith("@tokens:"):
        return _tokens(contents[source.removeprefix("@tokens:")].decode())
    return _MAP.sub(b"\n", contents[source])


def _sprite(contents: dict[str, bytes]) -> bytes:
    """Join the outline icons of ICONS to one SVG of symbols, named as upstream."""
    symbols = []
    for icon in ICONS:
        folder, name = ("filled", icon.removesuffix("-filled")) if icon.endswith("-filled") else ("outline", icon)
        svg = contents[f"icons/{folder}/{name}.svg"].decode()
        inner = re.sub(r"\s*\n\s*", "", svg[svg.index(">", svg.index("<svg")) + 1 : svg.index("</svg>")])
        paint = (
            'fill="currentColor"'
            if folder == "filled"
            else 'fill="none" stroke="currentColor" stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round"'
        )
        symbols.append(f'<symbol id="{icon}" viewBox="0 0 24 24" {paint}>{inner}</symbol>')
    return ('<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n").encode()


def _tokens(style: str) -> bytes:
    """Take the first definition of each wanted custom property out of Tabler's style sheet."""
    values: dict[str, str] = {}
    for name, value in _TOKEN.findall(style):
        values.setdefault(name, value)
    lines = "".join(f"  {name}: {value};\n" for name, value in values.items())
    return f"/* Design tokens of Tabler, MIT, (c) The Tabler Authors */\n:root {{\n{lines}}}\n".encode()


if __name__ == "__main__":
    raise SystemExit(main())
