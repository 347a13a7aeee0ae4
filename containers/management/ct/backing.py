"""Verbs about backups: backups, export, import."""

from __future__ import annotations

from typing import Any

from containers.asking import backups
from containers.models import Backup
from containers.showing import present

from . import base
from .base import Failed, Verbs, put, put_json, put_table


def register(verbs: Verbs) -> None:
    """Add the verbs."""
    listed = base.verb(verbs, "backups", _backups, "list backups", container=False)
    listed.add_argument("name", nargs="?", metavar="NAME", help="of this container only")
    listed.add_argument("--json", action="store_true", help="as the API gives them")
    export = base.verb(verbs, "export", _export, "back a container up; it runs on meanwhile")
    export.add_argument("--to", default=backups.LOCAL, metavar="PLACE", help="a place of the host's policy (local)")
    export.add_argument("--no-snapshots", action="store_true", help="leave its snapshots out")
    take_in = base.verb(verbs, "import", _import, "make a container of a backup", container=False)
    take_in.add_argument("backup", metavar="BACKUP", help="its file's name, as `ct backups` lists it")
    take_in.add_argument("name", metavar="NAME", help="the new container's name, or that of one with --in-place")
    take_in.add_argument(
        "--in-place", action="store_true", help="replace a container's files; a snapshot is made first"
    )
    take_in.add_argument("--snapshot", default="", help="with --in-place: those of a snapshot in the backup")
    take_in.add_argument("--project", default="default")
    take_in.add_argument("--network", default="default")
    take_in.add_argument(
        "-B", "--pool", default="default", help="the storage pool that the new container lies in, or best"
    )
    take_in.add_argument("--start", action="store_true", help="start the new container")
    verify = base.verb(verbs, "verify", _verify, "read a backup to its end and compare its digests", container=False)
    verify.add_argument("backup", metavar="BACKUP", help="its file's name")


def _backups(options: dict[str, Any]) -> int:
    rows = backups.visible(base.local_root(options)).order_by("created_at", "pk")
    if options["name"]:
        rows = rows.filter(container=options["name"])
    if options["json"]:
        put_json([present.backup(row) for row in rows])
    elif rows:
        head = ("CONTAINER", "CREATED", "PLACE", "SIZE", "VERIFIED", "FILE")
        put_table(head, [_line(row) for row in rows])
    return 0


def _line(row: Backup) -> tuple[str, ...]:
    verified = "damaged" if row.problem else str(present.time(row.verified_at) or "-")
    return row.container, str(present.time(row.created_at)), row.destination, str(row.size_bytes), verified, row.file


def _export(options: dict[str, Any]) -> int:
    asked = backups.export(
        base.local_root(options),
        options["name"],
        destination=options["to"],
        with_snapshots=not options["no_snapshots"],
    )
    put(str(base.follow(asked, options).journal["file"]))
    return 0


def _import(options: dict[str, Any]) -> int:
    who, source = base.local_root(options), {"backup": _found(options).pk}
    if options["in_place"]:
        asked = backups.put_back(who, options["name"], source, snapshot=options["snapshot"])
    else:
        places = {name: options[name] for name in ("project", "network", "pool", "start")}
        asked = backups.take_in(who, source, options["name"], **places)
    base.say(base.follow(asked, options).message)
    return 0


def _verify(options: dict[str, Any]) -> int:
    asked = backups.verify(base.local_root(options), _found(options))
    base.say(base.follow(asked, options).message)
    return 0


def _found(options: dict[str, Any]) -> Backup:
    row: Backup | None = backups.visible(base.local_root(options)).filter(file=options["backup"]).first()
    if row is None:
        raise Failed(f"There is no backup {options['backup']}; `ct backups` lists them.")
    return row
