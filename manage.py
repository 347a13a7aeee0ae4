#!/usr/bin/env python3
"""The one entry point. Makes its own environment when it is not there yet, then hands over to Django.

`up` and `test` first install what is missing: Debian packages, and a virtual environment in `.venv` with the versions
pinned in requirements.txt. Everything until the hand-over runs on a bare Python 3.11 with the standard library.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

PROJECT = Path(__file__).resolve().parent


def main() -> int:
    """Run one command; the exit status is the command's."""
    fill_streams()
    if sys.version_info < (3, 11):  # noqa: UP036  the interpreter that was typed may be any
        sys.stderr.write(f"Boxroom needs Python 3.11 or later; this is {sys.version.split()[0]}.\n")
        return 1
    sys.path.insert(0, str(PROJECT))
    arguments = sys.argv[1:]
    command = arguments[0] if arguments else "help"

    from panel.instance import environment

    environment.complete_path()
    if not environment.inside(PROJECT, command):
        python = environment.prepare(PROJECT, command)
        os.execv(python, [str(python), str(PROJECT / "manage.py"), *arguments])

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "panel.settings")
    if command == "test":
        from panel.instance import testing

        return testing.run(PROJECT, arguments[1:])
    from panel.instance.options import refusal, take_state_dir

    sys.argv[1:] = take_state_dir(arguments)
    if no := refusal(arguments):
        sys.stderr.write(f"{no}\n")
        return 1
    if command in ("up", "halt") and not {"-h", "--help"} & set(arguments):
        # neither needs the application; to load it here too would only make everybody wait
        import_module(f"panel.management.commands.{command}").Command().run_from_argv(sys.argv)
        return 0
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
    return 0


def fill_streams() -> None:
    """Put /dev/null where a standard stream is closed, or the next file or socket would be taken for it."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)  # noqa: FBT003
    os.close(fd)
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # ^C before there was anything to end
        sys.exit(130)
