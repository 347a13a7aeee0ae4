"""Verbs that look: ls, info, top, monitor, wait, config, checkconfig."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.core.management import call_command

from containers.asking import waiting
from containers.clients import history, ticker_client
from containers.core.model.behaviour import Boot
from containers.core.units import format_bytes
from containers.models import Container, Event, local_host
from containers.showing import present

from . import base
from .base import Failed, Verbs, put, put_json, put_table

LOOK_SEC: Final = 0.1
FANCY: Final = ("NAME", "STATE", "AUTOSTART", "GROUPS", "IPV4", "IPV6", "UNPRIVILEGED")
STATES: Final = ("running", "frozen", "stopped")


def register(verbs: Verbs) -> None:
    """Add the verbs."""
    ls = base.verb(verbs, "ls", _ls, "list containers", container=False)
    ls.add_argument("-1", dest="line", action="store_true", help="one name on each line")
    ls.add_argument("-f", "--fancy", action="store_true", help=f"a table: {', '.join(FANCY)}")
    ls.add_argument("-F", "--columns", help=f"a table of these columns, of {', '.join(_COLUMNS)}")
    for state in STATES:
        ls.add_argument(f"--{state}", action="store_true", help=f"only those that are {state}")
    ls.add_argument("--active", action="store_true", help="only those that run or are frozen")
    ls.add_argument("-g", "--groups", help="only those of one of these groups (a,b)")
    ls.add_argument("--filter", help="only those whose name this regular expression finds")
    ls.add_argument("--json", action="store_true", help="as the API gives them")
    info = base.verb(verbs, "info", _info, "what a container is and what it uses")
    info.add_argument("-s", "--state", action="store_true", help="only its state")
    info.add_argument("-p", "--pid", action="store_true", help="only its first process's number on the host")
    info.add_argument("-i", "--ips", action="store_true", help="only its addresses")
    info.add_argument("-S", "--stats", action="store_true", help="only what it uses")
    info.add_argument("-c", "--config", action="append", default=[], metavar="KEY", help="a setting, as limits.pids")
    info.add_argument("-H", "--no-humanize", action="store_true", help="plain numbers")
    info.add_argument("--json", action="store_true", help="as the API gives it, with `stats`")
    top = base.verb(verbs, "top", _top, "what containers use, again and again", container=False)
    top.add_argument("-d", "--delay", type=base.seconds, default=3.0, help="seconds between two looks (3)")
    top.add_argument("-b", "--batch", action="store_true", help="one after the other, for programs")
    top.add_argument("-n", "--iterations", type=int, default=0, help="how many times (until ^C)")
    top.add_argument(
        "-s", "--sort", choices=("n", "c", "b", "m"), default="n", help="by name, CPU, block I/O or memory"
    )
    top.add_argument("-r", "--reverse", action="store_true", help="the other way round")
    monitor = base.verb(verbs, "monitor", _monitor, "tell what happens to containers, until ^C", container=False)
    monitor.add_argument("name", nargs="?", default=".*", metavar="REGEX", help="whose whole name it matches (all)")
    monitor.add_argument("--json", action="store_true", help="a JSON object on each line")
    wait = base.verb(verbs, "wait", _wait, "wait for a state; 1 where the time is up first")
    wait.add_argument("-s", "--state", required=True, help=f"{', '.join(waiting.STATES)}; several: 'STOPPED|FROZEN'")
    wait.add_argument("-t", "--timeout", type=base.seconds, default=-1, help="seconds; -1: for ever (-1)")
    config = base.verb(verbs, "config", _config, "where things are", container=False)
    config.add_argument("key", nargs="?", help="one of them")
    config.add_argument("-l", "--list", action="store_true", help="their names")
    check = base.verb(verbs, "checkconfig", _checkconfig, "what this host can do: as `doctor`", container=False)
    check.add_argument("--json", action="store_true")


def _groups(row: Container) -> tuple[str, ...]:
    return Boot.from_dict(row.boot).groups


def _addresses(row: Container, version: str) -> str:
    found = [getattr(nic, version) for nic in row.interfaces.all()]
    return ", ".join(address for address in found if address) or "-"


def _sampled(row: Container, name: str) -> str:
    try:
        sample = history.latest(row) if row.init_pid else None
    except ticker_client.TickerUnavailable:
        sample = None
    return format_bytes(sample[name]) if sample and sample.get(name) is not None else "-"


_COLUMNS: Final[dict[str, Callable[[Container], str]]] = {
    "NAME": lambda row: row.name,
    "STATE": lambda row: present.status(row).upper(),
    "PID": lambda row: str(row.init_pid or "-"),
    "RAM": lambda row: _sampled(row, "memory_bytes"),
    "SWAP": lambda row: _sampled(row, "swap_bytes"),
    "AUTOSTART": lambda row: str(int(row.autostart)),
    "GROUPS": lambda row: ",".join(_groups(row)) or "-",
    "INTERFACE": lambda row: ",".join(nic.name for nic in row.interfaces.all()) or "-",
    "IPV4": lambda row: _addresses(row, "ipv4"),
    "IPV6": lambda row: _addresses(row, "ipv6"),
    "UNPRIVILEGED": lambda row: str(not row.privileged).lower(),
    "PROJECT": lambda row: row.project.name,
    "IMAGE": lambda row: row.image_name,
}


def _ls(options: dict[str, Any]) -> int:
    base.local_root(options)
    rows = list(present.with_relations(Container.objects.order_by("name")))
    wanted = {state for state in STATES if options[state]} | ({"running", "frozen"} if options["active"] else set())
    if wanted:
        rows = [row for row in rows if present.status(row) in wanted]
    if options["groups"]:
        groups = set(options["groups"].split(","))
        rows = [row for row in rows if groups & set(_groups(row))]
    if options["filter"]:
        expression = _expression(options["filter"])
        rows = [row for row in rows if expression.search(row.name)]
    if options["json"]:
        put_json([present.container(row) for row in rows])
    elif options["fancy"] or options["columns"]:
        names = [name.strip().upper() for name in (options["columns"] or ",".join(FANCY)).split(",")]
        if unknown := [name for name in names if name not in _COLUMNS]:
            raise Failed(f"There is no column {unknown[0]}: use {', '.join(_COLUMNS)}.")
        put_table(names, [[_COLUMNS[name](row) for name in names] for row in rows])
    elif rows:
        put(("\n" if options["line"] else " ").join(row.name for row in rows))
    return 0


def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise Failed(f"{text!r} is no regular expression: {error}.") from None


def _info(options: dict[str, Any]) -> int:
    row = base.find(options)
    stats = history.latest(row) if row.init_pid else None
    shown = present.container(row)
    if options["json"]:
        put_json({**shown, "stats": stats})
        return 0
    if options["config"]:
        for key in options["config"]:
            value: Any = shown
            for part in key.split("."):
                if not isinstance(value, dict) or part not in value:
                    raise Failed(f"There is no setting {key}.")
                value = value[part]
            put(f"{key} = {value if isinstance(value, str) else json.dumps(value)}")
        return 0
    size = str if options["no_humanize"] else format_bytes
    lines = [("s", "Name", shown["name"]), ("state", "State", shown["status"].upper())]
    lines[0] = ("", "Name", shown["name"])
    lines += [("pid", "PID", str(shown["pid"]))] if shown["pid"] else []
    lines += [("ips", "IP", address) for address in shown["addresses"]]
    if stats:
        seconds = f"{stats['cpu_usage_usec'] / 1e6:.2f} seconds"
        lines.append(("stats", "CPU use", str(stats["cpu_usage_usec"]) if options["no_humanize"] else seconds))
        names = {"Memory use": "memory_bytes", "Swap use": "swap_bytes", "BlkIO read": "disk_read_bytes"}
        names |= {"BlkIO written": "disk_write_bytes", "RX bytes": "network_rx_bytes", "TX bytes": "network_tx_bytes"}
        lines += [("stats", word, size(stats[name])) for word, name in names.items() if stats.get(name) is not None]
    chosen = {name for name in ("state", "pid", "ips", "stats") if options[name]}
    lines = [line for line in lines if not chosen or line[0] in chosen]
    if options["no_humanize"] and len(lines) == 1:
        put(lines[0][2])
        return 0
    for _group, word, value in lines:
        put(f"{word + ':':<15} {value}")
    return 0


def _top(options: dict[str, Any]) -> int:
    base.local_root(options)
    number = 0
    while True:
        rows = list(Container.objects.exclude(init_pid=None).order_by("name"))
        samples = ticker_client.ask(cmd="latest", containers=[row.pk for row in rows])["containers"]
        used = [(row.name, samples[row.pk]) for row in rows if row.pk in samples]
        keys: dict[str, Callable[[tuple[str, Any]], Any]] = {
            "n": lambda one: one[0],
            "c": lambda one: -one[1]["cpu_usage_usec"],
            "b": lambda one: -((one[1]["disk_read_bytes"] or 0) + (one[1]["disk_write_bytes"] or 0)),
            "m": lambda one: -one[1]["memory_bytes"],
        }
        used.sort(key=keys[options["sort"]], reverse=options["reverse"])
        if not options["batch"] and sys.stdout.isatty():
            put("\x1b[H\x1b[2J")
        put_table(
            ("NAME", "CPU %", "CPU SECONDS", "BLKIO", "MEMORY"),
            [
                (
                    name,
                    f"{sample.get('cpu_pct') or 0:.1f}",
                    f"{sample['cpu_usage_usec'] / 1e6:.2f}",
                    format_bytes((sample["disk_read_bytes"] or 0) + (sample["disk_write_bytes"] or 0)),
                    format_bytes(sample["memory_bytes"]),
                )
                for name, sample in used
            ],
        )
        number += 1
        if number == options["iterations"]:
            return 0
        time.sleep(max(0.1, options["delay"]))


def _monitor(options: dict[str, Any]) -> int:
    base.local_root(options)
    expression = _expression(options["name"])
    last = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    while True:
        for event in Event.objects.filter(pk__gt=last).order_by("pk").select_related("container"):
            last = event.pk
            if not expression.fullmatch(event.container.name):
                continue
            if options["json"]:
                put(json.dumps({"container": event.container.name, **present.event(event)}))
            elif event.kind == "status":
                why = f" ({event.reason})" if event.reason else ""
                put(f"'{event.container.name}' changed state to [{event.new.upper()}]{why}")
            else:
                put(f"'{event.container.name}' {event.kind}{f': {event.reason}' if event.reason else ''}")
        time.sleep(LOOK_SEC)


def _wait(options: dict[str, Any]) -> int:
    wanted = waiting.parse(options["state"])
    watch = waiting.begin(base.find(options))
    deadline = time.monotonic() + options["timeout"] if options["timeout"] >= 0 else None
    while waiting.look(watch, wanted).reached is None:
        left = LOOK_SEC if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return base.FAILED
        time.sleep(min(left, LOOK_SEC))
    return 0


def _config(options: dict[str, Any]) -> int:
    values = {
        "state_dir": str(settings.STATE_DIR),
        "run_dir": str(settings.BOXROOM_RUN_DIR),
        "policy": f"{settings.STATE_DIR}/policy.toml",
        "instance": settings.BOXROOM_INSTANCE,
        "host": local_host().name,
    }
    if options["list"]:
        put("\n".join(values))
    elif options["key"] is None:
        put("\n".join(f"{name} = {value}" for name, value in values.items()))
    elif options["key"] in values:
        put(values[options["key"]])
    else:
        raise Failed(f"There is no {options['key']}: use {', '.join(values)}.")
    return 0


def _checkconfig(options: dict[str, Any]) -> int:
    call_command("doctor", state_dir=str(settings.STATE_DIR), json=options["json"])
    return 0
