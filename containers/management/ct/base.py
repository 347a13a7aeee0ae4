"""What the verbs share: who asks, asking and following an operation, tables and JSON."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

from containers.asking import services
from containers.core.errors import CoreError
from containers.models import Container, Operation
from panel.accounts.actor import Actor
from panel.accounts.models import User

WAIT_SEC: Final = 30.0
FAILED: Final = 1
NOT_RUNNING: Final = 2

Verb = Callable[[dict[str, Any]], int]
"""Does it, and returns the exit status."""
Verbs = Any
"""What argparse makes verbs with."""


class Failed(Exception):
    """A sentence for standard error, and the exit status. error: an operation's, where one has failed."""

    def __init__(self, message: str, status: int = FAILED, *, error: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = error or {}


def verb(verbs: Verbs, name: str, run: Verb, words: str, *, container: bool = True, many: bool = False) -> Any:
    """Add a verb and return its parser. container: it takes a container's name; many: one or several."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=words, description=words)
    parser.set_defaults(run=run)
    if many:
        parser.add_argument("names", nargs="+", metavar="NAME")
    elif container:
        parser.add_argument("name", metavar="NAME")
    return parser


def local_root(options: dict[str, Any]) -> Actor:
    """Return who asks: root on the host is a host administrator, and named in the audit trail as one."""
    users = User.objects.filter(is_active=True, host_admin=True)
    if options.get("as_user"):
        user = users.filter(username=options["as_user"]).first()
        if user is None:
            raise Failed(f"There is no active host administrator {options['as_user']}.")
    else:
        user = users.filter(username="admin").first() or users.order_by("date_joined").first()
        if user is None:
            raise Failed("There is no active host administrator: `manage.py user add NAME --host-admin` makes one.")
    return Actor(user)


def find(options: dict[str, Any], name: str | None = None, action: str = "view") -> Container:
    """Return a container by its name; raises NotFound."""
    return services.find_container(local_root(options), name or options["name"], action)


def ask(options: dict[str, Any], name: str, action: str, arguments: dict[str, Any] | None = None) -> Operation:
    """Ask for something and follow it to its end; raises Failed where it does not succeed, CoreError at once."""
    return follow(services.act(local_root(options), name, action, arguments or {}), options)


def follow(operation: Operation, options: dict[str, Any]) -> Operation:
    """Return the operation when it has succeeded. Raises Failed."""
    told = ""
    while not operation.finished:
        operation = services.wait(operation.pk, WAIT_SEC if told or options.get("quiet") else 1.0)
        if operation.status == Operation.Status.QUEUED and not services.worker_answers(operation.host):
            raise Failed("The panel does not run: it will be done as soon as `manage.py up` does.")
        if operation.message != told and not operation.finished and not options.get("quiet"):
            told = operation.message
            say(f"{operation.object_name}: {told}")
    if operation.status != Operation.Status.SUCCEEDED:
        raise Failed(why(operation), error=operation.error)
    return operation


def why(operation: Operation) -> str:
    """Return what went wrong, with step, path, errno and the console's last lines where they are known."""
    error = operation.error or {}
    parts = [f"{operation.object_name}: {error.get('message') or operation.message or operation.status}"]
    details = [f"{name} {error[name]}" for name in ("step", "path", "errno") if error.get(name) not in (None, "", 0)]
    if details:
        parts.append(f"  ({', '.join(details)})")
    if error.get("console"):
        parts += ["  the console's last lines:", *(f"  | {line}" for line in str(error["console"]).splitlines()[-10:])]
    return "\n".join(parts)


def each(names: Sequence[str], do: Callable[[str], object]) -> int:
    """Do something to several, to the others too where one fails; returns 0, or 1 where one did."""
    status = 0
    for name in names:
        try:
            do(name)
        except (CoreError, Failed) as error:
            status = FAILED
            say(str(error) if isinstance(error, Failed) else f"{name}: {error.message}")
    return status


def say(text: str) -> None:
    """Write a line for people to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def put(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def put_json(value: Any) -> None:
    """Write a JSON value to standard output."""
    put(json.dumps(value, indent=1))


def put_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows in columns, each in one line, whatever line ends a note has."""
    lines = [list(head), *([" ".join(word.split()) for word in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        put("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())


def pairs(words: Iterable[str], option: str) -> dict[str, str]:
    """Return NAME=VALUE words; raises Failed."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            refuse(f"{option} takes NAME=VALUE, not {word!r}.")
        found[name] = value
    return found


def seconds(text: str) -> float:
    """Return a number of seconds; for argparse, which tells what it raises."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def refuse(message: str) -> NoReturn:
    """Raise Failed."""
    raise Failed(message)
