"""Verbs about what is kept and changed: snapshot, copy, device, cgroup."""

from __future__ import annotations

from typing import Any

from containers.clients import cgroupfile
from containers.showing import present

from . import base, limiting
from .base import Failed, Verbs, put, put_json, put_table

EVERY = "ALL"


def register(verbs: Verbs) -> None:
    """Add the verbs."""
    snapshot = base.verb(verbs, "snapshot", _snapshot, "take, list, restore or delete snapshots")
    snapshot.add_argument("snapshot", nargs="?", metavar="SNAPSHOT", help="the new one's name (snap0, snap1, …)")
    what = snapshot.add_mutually_exclusive_group()
    what.add_argument("-L", "--list", action="store_true", help="list them")
    what.add_argument("-r", "--restore", metavar="SNAPSHOT", help="take the container back to it")
    what.add_argument("-d", "--delete", metavar="SNAPSHOT", help=f"delete one, or {EVERY}")
    snapshot.add_argument("-N", "--newname", help="with -r: make a container of this name from it instead")
    snapshot.add_argument("-c", "--comment", default="", help="a note for the new one")
    snapshot.add_argument("-C", "--showcomments", action="store_true", help="with -L: the notes too")
    snapshot.add_argument("--json", action="store_true", help="with -L: as the API gives them")
    copy = base.verb(verbs, "copy", _copy, "make another container from one's present state, or from a snapshot")
    copy.add_argument("new", metavar="NEW", help="the other one's name")
    copy.add_argument("-s", "--snapshot", help="from this snapshot")
    copy.add_argument("-B", "--pool", help="the storage pool that the other one lies in, or best (where this one does)")
    copy.add_argument("--full", action="store_true", help="copy everything: it shares no file with its origin")
    copy.add_argument("-R", "--rename", action="store_true", help="give the container itself the new name")
    copy.add_argument("-e", "--ephemeral", action="store_true", help="delete the new one when it stops, and start it")
    device = base.verb(verbs, "device", _device, "give a container devices of the host, or take them away; live")
    device.add_argument("what", choices=("add", "del", "list"))
    device.add_argument("device", nargs="?", metavar="DEVICE", help="by its name in the host's policy")
    device.add_argument("path", nargs="?", default="", metavar="PATH", help="where it is inside")
    cgroup = base.verb(verbs, "cgroup", _cgroup, "a file of a container's cgroup: what it says, or a limit set by it")
    cgroup.add_argument("file", metavar="FILE", help="such as memory.max or pids.current")
    cgroup.add_argument(
        "value",
        nargs="?",
        metavar="VALUE",
        help=f"live, and kept: {', '.join(limiting.FILES)}; others where the policy names them",
    )


def _snapshot(options: dict[str, Any]) -> int:
    _check_snapshot(options)
    name = options["name"]
    if options["list"]:
        rows = base.find(options).snapshots.order_by("created_at", "pk")
        if options["json"]:
            put_json([present.snapshot(row) for row in rows])
        elif rows:
            columns = ["NAME", "CREATED", *(["NOTE"] if options["showcomments"] else [])]
            put_table(
                columns, [[row.name, str(present.time(row.created_at)), row.note][: len(columns)] for row in rows]
            )
    elif options["restore"] and options["newname"]:
        base.ask(options, name, "clone", {"name": options["newname"], "snapshot": options["restore"]})
    elif options["restore"]:
        base.ask(options, name, "restore", {"snapshot": options["restore"]})
    elif options["delete"] == EVERY:
        names = list(base.find(options).snapshots.order_by("-created_at").values_list("name", flat=True))
        return base.each(names, lambda one: base.ask(options, name, "snapshot-delete", {"snapshot": one}))
    elif options["delete"]:
        base.ask(options, name, "snapshot-delete", {"snapshot": options["delete"]})
    else:
        done = base.ask(options, name, "snapshot", {"name": options["snapshot"], "note": options["comment"]})
        put(str(done.arguments["name"]))
    return 0


def _check_snapshot(options: dict[str, Any]) -> None:
    """Refuse what goes with something else only: half of what was meant must not become a snapshot."""
    asked = next((name for name in ("list", "restore", "delete") if options[name] not in (None, False)), "")
    if asked in ("restore", "delete") and not options[asked]:
        raise Failed(f"Name the snapshot to {asked}.")
    if options["newname"] is not None and asked != "restore":
        raise Failed("-N goes with -r only.")
    if (options["showcomments"] or options["json"]) and asked != "list":
        raise Failed("-C and --json go with -L only.")
    if asked and (options["snapshot"] is not None or options["comment"]):
        raise Failed("A new snapshot's name and note do not go with -L, -r and -d.")


def _copy(options: dict[str, Any]) -> int:
    if options["rename"]:
        if any(options[name] for name in ("snapshot", "pool", "full", "ephemeral")):
            raise Failed("-R goes with neither -s, -B, --full nor -e: nothing is copied.")
        base.ask(options, options["name"], "rename", {"name": options["new"]})
        return 0
    asked = {key: options[key] for key in ("snapshot", "pool", "full")}
    base.ask(options, options["name"], "clone", {"name": options["new"], **asked})
    if options["ephemeral"]:
        base.ask(options, options["new"], "update", {"ephemeral": True})
        base.ask(options, options["new"], "start")
    return 0


def _device(options: dict[str, Any]) -> int:
    there = list(base.find(options).devices)
    if options["what"] == "list":
        if options["device"] is not None:
            raise Failed("list takes no device.")
        put_table(("DEVICE", "PATH", "MODE"), [(one["device"], one["path"] or "-", one["mode"]) for one in there])
        return 0
    name = options["device"]
    if name is None:
        raise Failed("Name a device of the host's policy.")
    left = [one for one in there if one["device"] != name]
    if options["what"] == "del" and len(left) == len(there):
        raise Failed(f"{options['name']} has no device {name}.")
    added = [{"device": name, "path": options["path"]}] if options["what"] == "add" else []
    base.ask(options, options["name"], "update", {"devices": [*left, *added]})
    return 0


def _cgroup(options: dict[str, Any]) -> int:
    file, value = options["file"], options["value"]
    row = base.find(options, action="cgroup")
    if value is None:
        put(cgroupfile.read(row, file).rstrip("\n"))
        return 0
    base.ask(options, options["name"], "update", {"limits": limiting.limit_of(file, value, row.limits)})
    return 0
