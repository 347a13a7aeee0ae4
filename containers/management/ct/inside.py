"""Verbs that go inside: attach, execute, console."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from containers.asking import services, waiting
from containers.asking.requests import ContainerRequest
from containers.clients import consolelog, relay, stdio
from containers.core.errors import CoreError
from containers.core.model.behaviour import Consoles
from containers.models import Container
from containers.showing import present
from panel.accounts import audit

from . import base, namespaces
from .base import Failed, Verbs, say

ESCAPE = "^a"
LOOK_SEC = 0.05
_RUN = "run the init command"
"""The step of a start that is the command's own."""
_OWN = frozenset({"PATH", "HOME", "SHELL", "USER", "LOGNAME", "PWD", "OLDPWD", "MAIL", "BOXROOM_STATE_DIR", "_"})
"""Variables that say something of the host, or of who sits there."""


def register(verbs: Verbs) -> None:
    """Add the verbs."""
    attach = base.verb(
        verbs, "attach", _attach, "run a command inside, or a shell; the exit status is the command's, or 128 + signal"
    )
    _identity(attach)
    attach.add_argument("--cwd", help="the directory to be in (the user's home)")
    attach.add_argument("--timeout", type=float, help="seconds, after which all that was started is killed (137)")
    attach.add_argument("--clear-env", action="store_true", help="as always: nothing of this environment goes along")
    attach.add_argument("--keep-env", action="store_true", help="take this environment along, but for PATH and HOME")
    attach.add_argument("--keep-var", action="append", default=[], metavar="NAME", help="take this variable along")
    attach.add_argument(
        "-s",
        "--namespaces",
        help=f"enter only these namespaces, as the host's root with its own programs: {'|'.join(namespaces.FLAGS)}",
    )
    attach.add_argument("command", nargs="*", metavar="-- COMMAND", help="what to run (the user's shell)")
    execute = base.verb(
        verbs,
        "execute",
        _execute,
        "run one command in a container of its own, and end with its exit status; what it writes is shown",
    )
    execute.add_argument("--image", help="make the container, of this image; it is deleted afterwards")
    execute.add_argument("--keep", action="store_true", help="with --image: do not delete it afterwards")
    execute.add_argument("--project", default="default", help="with --image: the project it belongs to (default)")
    execute.add_argument("-d", "--daemon", action="store_true", help="only start it")
    _identity(execute)
    execute.add_argument("--cwd", default="/", help="the directory to be in (/)")
    execute.add_argument("command", nargs="+", metavar="-- COMMAND", help="what to run")
    console = base.verb(verbs, "console", _console, f"sit down at a console; {ESCAPE} q leaves")
    console.add_argument("-t", "--tty", type=int, default=0, help="0: /dev/console, N: /dev/ttyN (0)")
    console.add_argument("-e", "--escape", default=ESCAPE, help=f"the key that comes before q ({ESCAPE})")


def _identity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-u", "--user", default="", help="a name or uid (root)")
    parser.add_argument("-g", "--group", default="", help="a group's name or gid")
    parser.add_argument("-v", "--set-var", action="append", default=[], metavar="NAME=VALUE", help="a variable")


def _user(options: dict[str, Any]) -> str:
    user, group = options["user"], options["group"]
    return f"{user or '0'}:{group}" if group else user


def _attach(options: dict[str, Any]) -> int:
    row = base.find(options, action="exec")
    command, user = options["command"], _user(options) or None
    environment = _kept(options) | base.pairs(options["set_var"], "-v")
    actor = base.local_root(options)
    if options["namespaces"]:
        if user or options["cwd"] or options["timeout"]:
            raise Failed("-s goes with neither -u, -g, --cwd nor --timeout: it is the host's root that enters.")
        flags, command = namespaces.parse(options["namespaces"]), command or ["/bin/sh"]
        detail = {"program": command[0][:255], "user": "host root", "namespaces": options["namespaces"]}
        _record(options, row, "container.exec", detail)
        return namespaces.run(row, flags, command, {**os.environ, **environment})
    if relay.is_terminal() and options["timeout"] is None:
        viewer = {"user": actor.name, "user_id": actor.user.pk, "mode": "rw"}
        _record(options, row, "session.open", {"command": command or None, "user": user})
        more = {"command": command or None, "user": user, "cwd": options["cwd"], "environment": environment}
        code = relay.run_terminal(row.pk, viewer=viewer, **more)
        return code or 0
    if not command:
        raise Failed("Give a command after --, or a terminal for a shell.")
    _record(options, row, "container.exec", {"program": command[0][:255], "user": user})
    return relay.run_command(
        row.pk,
        command=command,
        user=user,
        cwd=options["cwd"],
        environment=environment,
        timeout=options["timeout"],
    )


def _kept(options: dict[str, Any]) -> dict[str, str]:
    """Return what of this process's environment goes along: nothing, unless it was asked for."""
    names = [name for name in os.environ if options["keep_env"] and name not in _OWN]
    return {name: os.environ[name] for name in (*names, *options["keep_var"]) if name in os.environ}


def _record(options: dict[str, Any], row: Container, action: str, detail: dict[str, Any]) -> None:
    actor = base.local_root(options)
    audit.record(actor, action, "container", row.name, project=row.project.name, detail=detail)


def _console(options: dict[str, Any]) -> int:
    row = base.find(options, action="terminal")
    if not relay.is_terminal():
        raise Failed("A console needs a terminal.")
    actor = base.local_root(options)
    session = f"tty{options['tty']}" if options["tty"] else "console"
    viewer = {"user": actor.name, "user_id": actor.user.pk, "mode": "rw"}
    key, there = _key(options["escape"]), Consoles.from_dict(row.console).ttys
    if not 0 <= options["tty"] <= there:
        raise Failed(f"{row.name} has no tty {options['tty']}: there are 0 to {there}; 0 is /dev/console.")
    if not row.init_pid:
        raise Failed(f"{row.name} is not running.")
    say(f"Connected to {session} of {row.name}. {options['escape']} q leaves.")
    relay.run_terminal(row.pk, escape=key, viewer=viewer, session=session)
    say("")
    return 0


def _key(text: str) -> int:
    """Return the byte of "^a" or "a"."""
    if len(text) == 2 and text[0] == "^" and text[1].isascii() and text[1].isalpha():
        return ord(text[1].upper()) - 64
    if len(text) == 1 and text.isascii():
        return ord(text)
    raise Failed(f"{text!r} is no key: use ^a, say.")


def _execute(options: dict[str, Any]) -> int:
    name = options["name"]
    init = {"kind": "application", "arguments": options["command"][1:], "user": _user(options), "cwd": options["cwd"]}
    environment = base.pairs(options["set_var"], "-v")
    if options["image"]:
        wanted = ContainerRequest(
            name=name,
            image=options["image"],
            project=options["project"],
            init_command=(options["command"][0],),
            init=init,
            environment=environment or None,
        )
        base.follow(services.create_container(base.local_root(options), wanted), {**options, "quiet": True})
        with _signals_end_in_order():
            try:
                return _run(options, name)
            finally:
                if not options["keep"] and not options["daemon"]:
                    base.ask({**options, "quiet": True}, name, "delete", {"force": True})
    row = base.find(options)
    if present.status(row) != "stopped":
        raise Failed(f"{name} runs already: `attach` runs a command inside.")
    with _signals_end_in_order(), _for_one_run(options, row, init, environment):
        return _run(options, name)


@contextlib.contextmanager
def _for_one_run(
    options: dict[str, Any], row: Container, init: dict[str, Any], environment: dict[str, str]
) -> Iterator[None]:
    """Let a container that there is run a command instead of its init, this once; with -d it stays so.

    Neither the signal that its init hears nor its restart policy is the command's.
    """
    quiet = {**options, "quiet": True}
    before = {
        "init_command": list(row.init_command),
        "init": {name: row.init.get(name) for name in init},
        "environment": dict(row.environment),
        "halt_signal": row.halt_signal,
        "restart": row.restart,
    }
    once = {"init_command": [options["command"][0]], "init": init, "environment": {**row.environment, **environment}}
    base.ask(quiet, row.name, "update", {**once, "halt_signal": "", "restart": "no"})
    try:
        yield
    finally:
        # one that is ephemeral has gone with its end
        if not options["daemon"] and Container.objects.filter(pk=row.pk).exists():
            base.ask(quiet, row.name, "update", before)


@contextlib.contextmanager
def _signals_end_in_order() -> Iterator[None]:
    """End by SIGTERM or SIGHUP as by ^C: what was made for one command goes with it."""

    def leave(number: int, _frame: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    ends = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(options: dict[str, Any], name: str) -> int:
    row = base.find(options)
    watch = waiting.begin(row)
    if options["daemon"]:
        _begin(options, name)
        return 0
    (_at_its_console if relay.is_terminal() else _with_our_streams)(options, row, watch)
    row.refresh_from_db()
    last = row.last_exit or {}
    if last.get("exit_code") is not None:
        return int(last["exit_code"])
    if last.get("signal"):
        return 128 + int(last["signal"])
    raise Failed(f"{name} ended: {last.get('reason', 'nobody knows how')}")


def _begin(options: dict[str, Any], name: str, arguments: dict[str, Any] | None = None) -> None:
    """Start it; a command that cannot be run ends this process as it ends a shell: 127 (no such thing) or 126."""
    try:
        base.ask({**options, "quiet": True}, name, "start", arguments)
    except Failed as failed:
        if failed.error.get("step") == _RUN:
            failed.status = 127 if failed.error.get("errno") == errno.ENOENT else 126
        raise


def _await_end(watch: waiting.Watch) -> None:
    while waiting.look(watch, frozenset({"stopped", "deleted"})).reached is None:
        time.sleep(LOOK_SEC)


def _at_its_console(options: dict[str, Any], row: Container, watch: waiting.Watch) -> None:
    """Start it and sit at its console until it ends."""
    before, actor = consolelog.read(row, 1).size_bytes, base.local_root(options)
    _begin(options, row.name)
    who = {"user": actor.name, "user_id": actor.user.pk, "mode": "rw"}
    shown = True
    try:
        relay.run_terminal(row.pk, viewer=who, session="console", until_closed=True)
    except CoreError:
        shown = False
    _await_end(watch)
    if not shown:
        # it had ended before anybody could listen
        wrote = consolelog.read(row, consolelog.TAIL_MAX_BYTES)
        relay.write(
            relay.lines(wrote.text.encode()[-max(0, wrote.size_bytes - before) :] if wrote.size_bytes > before else b"")
        )


def _with_our_streams(options: dict[str, Any], row: Container, watch: waiting.Watch) -> None:
    """Start it with this process's standard streams, and hand signals on until it ends."""
    with stdio.Offer() as offer:
        _begin(options, row.name, {"stdio": offer.name})
        streams = offer.taken()
    if streams is None:
        raise Failed(f"{row.name} was started by somebody else just now: `attach` runs a command inside.")
    problem = streams.carry()
    _await_end(watch)
    if problem is not None:
        raise Failed(f"What {row.name} wrote could not be handed on: {problem.strerror}.")
