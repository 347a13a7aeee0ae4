"""What lies in static/vendor is what vendor.json says, and nothing else."""

import importlib.util
import json
import re
import sys
from pathlib import Path

from containers.showing.rows import ICONS

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("vendor", ROOT / "tools" / "vendor.py")
assert _spec is not None
assert _spec.loader is not None
vendor = importlib.util.module_from_spec(_spec)
sys.modules["vendor"] = vendor
_spec.loader.exec_module(vendor)


def test_every_file_has_the_checksum_of_the_manifest() -> None:
    assert vendor.check() == []


def test_a_changed_file_and_a_stray_one_are_told(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "static" / "vendor"
    folder.mkdir(parents=True)
    (folder / "good.js").write_text("1")
    (folder / "stray.js").write_text("2")
    manifest = folder / "vendor.json"
    manifest.write_text(json.dumps([{"files": {"static/vendor/good.js": "0" * 64, "static/vendor/gone.js": "0" * 64}}]))
    for name, value in (("ROOT", tmp_path), ("VENDOR", folder), ("MANIFEST", manifest)):
        monkeypatch.setattr(vendor, name, value)
    assert vendor.check() == [
        "static/vendor/good.js was changed",
        "static/vendor/gone.js is missing",
        "static/vendor/stray.js is not in vendor.json",
    ]


def test_every_package_of_the_tool_is_vendored_with_its_licence() -> None:
    rows = {row["package"]: row for row in json.loads(vendor.MANIFEST.read_text())}
    assert {package.package: package.version for package in vendor.PACKAGES} == {
        name: row["version"] for name, row in rows.items()
    }
    assert all(row["license"] for row in rows.values())


def test_every_icon_of_the_templates_is_in_the_sprite() -> None:
    sprite = next(vendor.VENDOR.glob("tabler-icons/*/sprite.svg")).read_text()
    there = set(re.findall(r'<symbol id="([^"]+)"', sprite))
    used: set[str] = set()
    for path in (ROOT / "templates").rglob("*.html"):
        used |= set(re.findall(r"""{% icon ["']([a-z0-9-]+)["']""", path.read_text()))
    assert used | set(ICONS.values()) <= there


def test_nothing_shipped_points_to_a_source_map() -> None:
    shipped = [path for path in vendor.VENDOR.rglob("*") if path.suffix in (".js", ".mjs", ".css")]
    assert shipped
    assert [path.name for path in shipped if b"sourceMappingURL=" in path.read_bytes()] == []
