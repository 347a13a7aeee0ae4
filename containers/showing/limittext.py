"""The limits of disks, huge pages and any other file of a cgroup, as the texts that people read and write in forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from django.utils.translation import gettext as _

from ..core.errors import SpecError
from ..core.model.limits import DISK_INODES_MIN, DISK_MIN_BYTES, IO_MIN_BYTES_PER_SEC, IO_MIN_OPS_PER_SEC, IO_WEIGHT_MAX
from ..core.units import format_bytes

LIMITS: Final = {
    "io_read": "io_read_bytes_per_sec",
    "io_write": "io_write_bytes_per_sec",
    "io_read_ops": "io_read_ops_per_sec",
    "io_write_ops": "io_write_ops_per_sec",
    "io_weight": "io_weight",
    "hugepages": "hugepages",
    "cgroup": "cgroup",
}
"""Forms' fields → limits."""

Setting = Callable[..., dict[str, Any]]


def pairs(text: str, limit: str) -> dict[str, str]:
    """Return lines NAME=value; raises SpecError (field ``limits.LIMIT``)."""
    found = {}
    for line in text.splitlines():
        if line.strip():
            name, equals, value = line.partition("=")
            if not equals:
                raise SpecError(_("Write one NAME=value on each line."), field=f"limits.{limit}")
            found[name.strip()] = value.strip()
    return found


def disk_rows(limits: Mapping[str, Any], facts: Mapping[str, Any], setting: Setting, none: str) -> list[dict[str, Any]]:
    """Return the rows for what a container may write. facts: the host's; as rows()."""
    size, inodes = limits.get("disk_bytes"), limits.get("disk_inodes")
    help_text = _("from %(least)s; empty for no limit") % {"least": format_bytes(DISK_MIN_BYTES)}
    if not facts.get("disk_limits"):
        help_text = _("This host cannot hold a container to a size; its doctor says why.")
    elif facts.get("disk_growth"):
        help_text += ". " + _("Raised at once; for any other change stop it first.")
    else:
        help_text += ". " + _("Stop it first to change this.")
    raw = "" if size is None else f"{size / 1024**2:g}"
    files = _("files and directories, from %(least)s; empty for one in 16 KiB") % {"least": DISK_INODES_MIN}
    shown_inodes = inodes or (none if size is None else _("one in 16 KiB"))
    return [
        setting("disk", _("Disk space"), format_bytes(size) if size else none, raw, "memory", help_text),
        setting("disk_inodes", _("Files on the disk"), shown_inodes, inodes or "", "number", files),
    ]


def rows(limits: Mapping[str, Any], setting: Setting, none: str) -> list[dict[str, Any]]:
    """Return the rows of the settings page. setting: makes one of name, label, shown, raw, kind, help."""
    least = format_bytes(IO_MIN_BYTES_PER_SEC)
    speed = _("per second, from %(least)s; empty for no limit") % {"least": least}
    operations = _("per second, from %(least)s; empty for no limit") % {"least": IO_MIN_OPS_PER_SEC}
    found = []
    for name, label in (("io_read", _("Reading from disk")), ("io_write", _("Writing to disk"))):
        value = limits.get(LIMITS[name])
        raw = "" if value is None else f"{value / 1024**2:g}"
        found.append(setting(name, label, format_bytes(value) if value else none, raw, "memory", speed))
    for name, label in (("io_read_ops", _("Reads from disk")), ("io_write_ops", _("Writes to disk"))):
        value = limits.get(LIMITS[name])
        found.append(setting(name, label, value or none, value or "", "number", operations))
    weight, pages, files = (limits.get(name) for name in ("io_weight", "hugepages", "cgroup"))
    share = _("1 to %(most)s, when a disk is busy; every container has 100") % {"most": IO_WEIGHT_MAX}
    page_lines = "\n".join(f"{size}={format_bytes(value)}" for size, value in sorted((pages or {}).items()))
    file_lines = "\n".join(f"{file}={value}" for file, value in sorted((files or {}).items()))
    page_help = _("One SIZE=amount on each line, such as 2MB=64 MiB; empty for no limit.")
    file_help = _("One FILE=value on each line, such as memory.high=512M. Only files that the host's policy names.")
    return [
        *found,
        setting("io_weight", _("Disk weight"), weight or 100, weight or "", "number", share),
        setting("hugepages", _("Huge pages"), page_lines or none, page_lines, "lines", page_help),
        setting("cgroup", _("Files of its cgroup"), file_lines or "–", file_lines, "lines", file_help),
    ]
