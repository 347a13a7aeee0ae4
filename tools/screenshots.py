"""Take the screenshots of the main pages for the README, from a panel of its own whose containers have something to do.

    sudo python3 tools/screenshots.py            writes docs/screenshots/*.png

Needs what the tests need (requirements-dev.txt, Chromium) and nothing from a network. The pictures are reduced to 255
colours, so that each stays under 250 kB. Everything it starts is stopped and removed at the end.
"""

from __future__ import annotations

import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "docs" / "screenshots"
MOST_BYTES: Final = 250_000
FREQUENT: Final = 170
WARM_UP_SEC: Final = 75
"""How long the containers work before the pictures are taken, so that the graphs have a shape."""
sys.path.insert(0, str(ROOT))

from tests.e2e.browser import People, Terminal, chromium  # noqa: E402
from tests.e2e.instance import Instance, call  # noqa: E402

MIB: Final = 1024**2
TEAM: Final[tuple[tuple[str, str, list[str], dict[str, float], str], ...]] = (
    ("web-1", "Public site", ["web", "prod"], {"memory_bytes": 256 * MIB, "cpus": 0.5}, "waves"),
    ("web-2", "Public site, second half", ["web", "prod"], {"memory_bytes": 256 * MIB, "cpus": 0.5}, "waves"),
    ("api", "Orders and stock", ["prod"], {"memory_bytes": 512 * MIB, "cpus": 1}, "grows"),
    ("postgres", "Orders, nightly backup", ["db", "prod"], {"memory_bytes": 1024 * MIB}, "writes"),
    ("mail-relay", "Outbound only", ["prod"], {"memory_bytes": 128 * MIB, "pids": 100}, "idle"),
    ("runner-1", "Builds of the main branch", ["ci"], {"cpus": 0.75, "memory_bytes": 512 * MIB}, "bursts"),
    ("runner-2", "Builds of pull requests", ["ci"], {"cpus": 0.75, "memory_bytes": 512 * MIB}, "frozen"),
    ("wiki-old", "Kept until the move is done", ["legacy"], {}, "stopped"),
    ("sandbox", "Try things here", [], {"memory_bytes": 128 * MIB}, "idle"),
)
PAGES: Final = {
    "overview": "/",
    "graphs": "/containers/api/graphs?from={from}&to={to}",
    "container": "/containers/web-1",
    "snapshots": "/containers/postgres/snapshots",
    "files": "/containers/web-1/files?path=/srv/www",
    "backups": "/containers/postgres/backups",
    "operations": "/operations/",
    "create": "/containers/_create",
    "host": "/host/",
}
_BURN: Final = "i=0; while [ $i -lt {turns} ]; do i=$((i+1)); done"
SITE: Final = (
    "mkdir -p /srv/www/assets /srv/www/blog /srv/www/media && cd /srv/www && for n in index.html about.html robots.txt "
    "feed.xml style.css; do head -c $((${#n} * 731)) /dev/urandom > $n; done; echo 'listen 80' > site.conf; "
    "chmod 640 site.conf; ln -s index.html home.html; head -c 4200000 /dev/urandom > media.tar.gz"
)
WORK: Final = {
    "waves": f"while :; do {_BURN.format(turns=40000)}; sleep 1; {_BURN.format(turns=9000)}; sleep 2; done",
    "grows": "head -c 60000000 /dev/zero > /dev/shm/a; while :; do head -c 12000000 /dev/zero >> /dev/shm/a; sleep 4; "
    "[ $(stat -c %s /dev/shm/a) -gt 190000000 ] && head -c 60000000 /dev/zero > /dev/shm/a; done",
    "writes": "while :; do head -c 3000000 /dev/zero > /root/wal; sync; sleep 1; done",
    "bursts": f"while :; do {_BURN.format(turns=250000)}; sleep 7; done",
}


def main() -> int:
    """Make the containers, let them work, take the pictures; returns the exit status."""
    TARGET.mkdir(parents=True, exist_ok=True)
    instance = Instance.start()
    try:
        prepare(instance)
        time.sleep(WARM_UP_SEC)
        with chromium() as browser:
            people = People(instance, browser)
            take(people)
            people.leave()
    finally:
        instance.remove()
    return 0


def prepare(instance: Instance) -> None:
    """Make the containers and the people."""
    instance.manage("user", "add", "olga", "--project", "default", "--role", "operator")
    with instance.client() as api, instance.client("olga") as olga:
        for name, description, tags, limits, work in TEAM:
            body = {"name": name, "image": "busybox", "description": description, "tags": tags, "limits": limits}
            call(api, "POST", "/containers", {**body, "start": work != "stopped"})
        call(olga, "POST", "/containers/runner-2/freeze")
        call(olga, "POST", "/containers/postgres/snapshots", {"note": "before the update to 17"})
        call(api, "POST", "/containers/postgres/snapshots", {"note": "after the update"})
        call(olga, "POST", "/containers/web-1/snapshots", {"note": "release 2026.11"})
        call(olga, "POST", "/containers/web-2/restart")
        command = ["sh", "-c", SITE]
        assert api.post("/containers/web-1/exec", json={"command": command}).json()["exit_code"] == 0
        call(api, "POST", "/containers/postgres/backups", {})
        call(olga, "POST", "/containers/postgres/backups", {"snapshots": False})
        for name, _description, _tags, _limits, work in TEAM:
            if work in WORK:
                command = ["sh", "-c", f"({WORK[work]}) </dev/null >/dev/null 2>&1 &"]
                assert api.post(f"/containers/{name}/exec", json={"command": command}).status_code == 200


def take(people: People) -> None:
    """Take every picture."""
    page = people.page()
    page.goto("/containers/")
    page.wait_for_selector("#row-web-1 [data-stat=memory_bytes]:not(:empty)")
    page.wait_for_timeout(4000)
    save(page, "containers")
    page.goto("/containers/?panel=api")
    page.wait_for_selector("#panel-body [data-stat=memory_bytes]:not(:empty)")
    page.wait_for_timeout(2500)
    save(page, "panel")
    for name, path in PAGES.items():
        now = int(time.time())
        page.goto(path.replace("{from}", str(now - WARM_UP_SEC - 60)).replace("{to}", str(now)))
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(2500)
        save(page, name)
    terminal = Terminal(page, "web-1").open()
    terminal.run("ls --color=always /; ps | head -n 6; ping -c 2 postgres; free -m")
    save(page, "terminal")
    dark = people.page(color_scheme="dark")
    dark.goto("/containers/")
    dark.wait_for_selector("#row-web-1 [data-stat=memory_bytes]:not(:empty)")
    dark.wait_for_timeout(4000)
    save(dark, "containers-dark")
    phone = people.page(width=390, height=844, device_scale_factor=2)
    phone.goto("/containers/")
    phone.wait_for_selector("#row-web-1")
    phone.wait_for_timeout(1500)
    save(phone, "containers-phone")


def save(page: Any, name: str) -> None:
    """Write one picture as a palette PNG; fails where it is larger than the README should carry."""
    data = reduced(page.screenshot())
    assert len(data) < MOST_BYTES, f"{name}: {len(data)} bytes"
    (TARGET / f"{name}.png").write_bytes(data)
    sys.stdout.write(f"{name}.png {len(data) // 1000} kB\n")


# -- PNG ---------------------------------------------------------------------------------------------------------------


def reduced(png: bytes) -> bytes:
    """Return a truecolour PNG of 8 bits, not interlaced, as one with a palette: the most frequent colours, and of the
    others those that lie farthest from them."""
    width, height, pixels = decode(png)
    counts: dict[bytes, int] = {}
    colours = [pixels[at : at + 3] for at in range(0, len(pixels), 3)]
    for colour in colours:
        counts[colour] = counts.get(colour, 0) + 1
    palette = sorted(counts, key=lambda colour: -counts[colour])[:FREQUENT]
    far = {colour: min((distance(colour, one), n) for n, one in enumerate(palette)) for colour in counts}
    while len(palette) < min(255, len(counts)):
        palette.append(max(far, key=lambda colour: far[colour][0]))  # a small coloured dot is rare, and meant
        far = {colour: min(best, (distance(colour, palette[-1]), len(palette) - 1)) for colour, best in far.items()}
    nearest = {colour: index for colour, (_distance, index) in far.items()}
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        rows += bytes(nearest[colour] for colour in colours[y * width : (y + 1) * width])
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", b"".join(palette)),
            chunk(b"IDAT", zlib.compress(bytes(rows), 9)),
            chunk(b"IEND", b""),
        )
    )


def distance(one: bytes, other: bytes) -> int:
    """Return how far two colours lie apart."""
    return (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2 + (one[2] - other[2]) ** 2


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def decode(png: bytes) -> tuple[int, int, bytes]:
    """Return width, height and RGB bytes of a PNG as Chromium writes it (RGB or RGBA, 8 bits)."""
    at, data, header = 8, b"", b""
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            data += body
        at += 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    assert (depth, colour in (2, 6)) == (8, True), (depth, colour)
    step = 3 if colour == 2 else 4
    raw, stride = zlib.decompress(data), width * step
    before, out = bytearray(stride), bytearray()
    for y in range(height):
        start = y * (stride + 1)
        line = bytearray(raw[start + 1 : start + 1 + stride])
        unfilter(raw[start], line, before, step)
        before = line
        for x in range(0, stride, step):
            out += line[x : x + 3]
    return width, height, bytes(out)


def unfilter(kind: int, line: bytearray, before: bytearray, step: int) -> None:
    """Undo one line's filter in place (PNG specification, 9.2)."""
    for x in range(len(line)):
        left = line[x - step] if x >= step else 0
        above, corner = before[x], before[x - step] if x >= step else 0
        if kind == 1:
            line[x] = (line[x] + left) & 255
        elif kind == 2:
            line[x] = (line[x] + above) & 255
        elif kind == 3:
            line[x] = (line[x] + (left + above) // 2) & 255
        elif kind == 4:
            guess = left + above - corner
            best = min((abs(guess - left), 0, left), (abs(guess - above), 1, above), (abs(guess - corner), 2, corner))
            line[x] = (line[x] + best[2]) & 255


if __name__ == "__main__":
    raise SystemExit(main())
