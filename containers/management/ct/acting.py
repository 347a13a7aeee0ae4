"""Verbs that start and end: create, start, stop, restart, freeze, unfreeze, destroy, autostart."""

from __future__ import annotations

import time
from typing import Any, Final

from containers.asking import requests, services
from containers.core.errors import CoreError, InvalidTransition
from containers.models import Container, Operation
from containers.showing import present
from containers.upkeep import autostart

from . import base
from .base import Failed, Verbs, put, say


def register(verbs: Verbs) -> None:
    """Add the verbs."""
    create = base.verb(verbs, "create", _create, "make a container from an image")
    create.add_argument("--image", required=True, metavar="IMAGE", help="an image's name")
    create.add_argument("--project", default="default", help="the project it belongs to (default)")
    create.add_argument("--network", default="default", help="the network it joins (default)")
    create.add_argument("-B", "--pool", default="default", help="the storage pool it lies in; best: whichever suits")
    create.add_argument("--start", action="store_true", help="start it too")
    create.add_argument("--ephemeral", action="store_true", help="delete it when it stops")
    create.add_argument("--autostart", action="store_true", help="start it with the host")
    create.add_argument("--privileged", action="store_true", help="without a user namespace, if the policy allows it")
    start = base.verb(verbs, "start", _start, "start containers; one that runs already is left running", many=True)
    start.add_argument("-d", "--daemon", action="store_true", help="as always: the containers run on by themselves")
    stop = base.verb(
        verbs, "stop", _stop, "stop containers cleanly, and by force when the time is up; 2: not running", many=True
    )
    stop.add_argument("-t", "--timeout", type=int, default=60, help="seconds for a clean stop (60)")
    stop.add_argument("-k", "--kill", action="store_true", help="by force, at once")
    stop.add_argument("--nokill", action="store_true", help="fail instead of using force")
    stop.add_argument("-r", "--reboot", action="store_true", help="stop and start again")
    stop.add_argument("-W", "--nowait", action="store_true", help="do not wait until it is done")
    restart = base.verb(verbs, "restart", _restart, "stop and start containers", many=True)
    restart.add_argument("-t", "--timeout", type=int, default=60, help="seconds for a clean stop (60)")
    restart.add_argument("--inside", action="store_true", help="have its init boot again, as `reboot` inside does")
    base.verb(verbs, "freeze", _freeze, "freeze containers; one that is frozen is left so", many=True)
    base.verb(verbs, "unfreeze", _unfreeze, "let frozen containers run on", many=True)
    destroy = base.verb(verbs, "destroy", _destroy, "delete containers with their snapshots", many=True)
    destroy.add_argument("-f", "--force", action="store_true", help="stop one that runs first")
    auto = base.verb(
        verbs,
        "autostart",
        _autostart,
        "start those that start with the host, in their order, or stop them the other way round; 2: some failed",
        container=False,
    )
    what = auto.add_mutually_exclusive_group()
    what.add_argument("-s", "--shutdown", action="store_true", help="stop them cleanly")
    what.add_argument("-k", "--kill", action="store_true", help="stop them by force")
    what.add_argument("-r", "--reboot", action="store_true", help="stop and start those that run")
    what.add_argument("-L", "--list", action="store_true", help="only their names and delays")
    auto.add_argument("-A", "--ignore-auto", action="store_true", help="those, too, that do not start with the host")
    auto.add_argument("-g", "--groups", help="only those of these groups, one group after the other (a,b)")
    auto.add_argument("-t", "--timeout", type=int, default=60, help="seconds for a clean stop (60)")


_ASKED: Final = ("image", "project", "network", "pool", "start", "ephemeral", "autostart")


def _create(options: dict[str, Any]) -> int:
    given = {name: options[name] for name in _ASKED}
    wanted = services.ContainerRequest(name=options["name"], privileged=options["privileged"], **given)
    base.follow(services.create_container(base.local_root(options), wanted), options)
    return 0


def _start(options: dict[str, Any]) -> int:
    def start(name: str) -> None:
        if present.status(base.find(options, name)) == "running":
            say(f"{name} runs already.")
        else:
            base.ask(options, name, "start")

    return base.each(options["names"], start)


def _stop(options: dict[str, Any]) -> int:
    if options["kill"] and (options["nokill"] or options["reboot"]):
        raise Failed("-k goes with neither --nokill nor -r.")
    requests.check_stop({"timeout": options["timeout"]})
    arguments = {"timeout": options["timeout"], "force": options["kill"], "kill": not options["nokill"]}
    not_running = []

    def stop(name: str) -> None:
        row = base.find(options, name)
        if present.status(row) == "stopped" and not row.restarts:
            not_running.append(name)
            say(f"{name} is not running.")
            return
        operation = services.act(base.local_root(options), name, "restart" if options["reboot"] else "stop", arguments)
        if not options["nowait"]:
            base.follow(operation, options)

    status = base.each(options["names"], stop)
    return status or (base.NOT_RUNNING if not_running else 0)


def _restart(options: dict[str, Any]) -> int:
    arguments = {"timeout": options["timeout"], "inside": options["inside"]}
    return base.each(options["names"], lambda name: base.ask(options, name, "restart", arguments))


def _freeze(options: dict[str, Any]) -> int:
    return base.each(options["names"], lambda name: _unless(options, name, "freeze", "frozen"))


def _unfreeze(options: dict[str, Any]) -> int:
    return base.each(options["names"], lambda name: _unless(options, name, "unfreeze", "running"))


def _unless(options: dict[str, Any], name: str, action: str, already: str) -> None:
    if present.status(base.find(options, name)) != already:
        base.ask(options, name, action)


def _destroy(options: dict[str, Any]) -> int:
    return base.each(options["names"], lambda name: base.ask(options, name, "delete", {"force": options["force"]}))


def _autostart(options: dict[str, Any]) -> int:
    base.local_root(options)
    stages = _stages(options)
    if options["list"]:
        for row in (row for together in stages for row in together):
            put(f"{row.name} {autostart.boot_of(row).delay_sec}")
        return 0
    ending = options["shutdown"] or options["kill"]
    failed = done = 0
    for together in stages:
        well = _together(options, together)
        done += len(together)
        failed += len(together) - len(well)
        if not ending and (delay := max((autostart.boot_of(row).delay_sec for row in well), default=0)):
            time.sleep(delay)
    return 0 if not failed else 1 if failed == done else 2


def _stages(options: dict[str, Any]) -> list[list[Container]]:
    """Return what is done together, the first one first: group after group as they were given, in each by order."""
    rows = [row for row in Container.objects.order_by("name") if row.autostart or options["ignore_auto"]]
    live = options["shutdown"] or options["kill"] or options["reboot"]
    if not options["list"]:
        rows = [row for row in rows if (present.status(row) in ("running", "frozen")) == live]
    step = -1 if options["shutdown"] or options["kill"] else 1
    if options["groups"] is None:
        return autostart.in_order(rows)[::step]
    stages = []
    for group in dict.fromkeys(options["groups"].split(",")):
        members = [row for row in rows if group in (autostart.boot_of(row).groups or ("",))]
        rows = [row for row in rows if row not in members]
        stages += autostart.in_order(members)[::step]
    return stages


def _together(options: dict[str, Any], rows: list[Container]) -> list[Container]:
    """Ask for all of one order, then wait for all; return those that went well."""
    actor = base.local_root(options)
    asked: list[tuple[Container, Operation | None]] = []
    action = "restart" if options["reboot"] else "stop" if options["shutdown"] or options["kill"] else "start"
    arguments = {} if action == "start" else {"timeout": options["timeout"], "force": options["kill"]}
    for row in rows:
        try:
            asked.append((row, services.act(actor, row.name, action, arguments)))
        except InvalidTransition:
            # somebody else was faster
            asked.append((row, None))
        except CoreError as error:
            say(f"{row.name}: {error.message}")
    well = []
    for row, operation in asked:
        try:
            if operation is not None:
                base.follow(operation, options)
            well.append(row)
        except Failed as error:
            say(str(error))
    return well
