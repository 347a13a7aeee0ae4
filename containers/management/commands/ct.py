"""`manage.py ct VERB`: everything of a container from the command line, for root; docs/lxc.md maps lxc-* to it."""

from __future__ import annotations

import os
from argparse import SUPPRESS
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandParser

from containers.core.errors import CoreError
from containers.management.ct import acting, backing, base, inside, keeping, looking


class Command(BaseCommand):
    """Do something to containers, or look at them."""

    help = (
        "Containers from the command line, for root, who counts as a host administrator; everything stands in the "
        "audit trail. `manage.py ct VERB --help` tells of one verb. The exit status is 0, or 1 where something failed, "
        "unless the verb says more."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--as", dest="as_user", metavar="USER", help="which host administrator asks (admin)")
        parser.add_argument("--quiet", action="store_true", help="do not tell what is being done meanwhile")
        # the verbs' own parsers are plain ones: Django's have options of their own, which are this command's
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
        for module in (looking, acting, keeping, backing, inside):
            module.register(verbs)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Make a parser whose refusals have the status of everything that failed."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.__class__ = _Refusing
        return parser

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            status = options["run"](options)
        except base.Failed as failed:
            base.say(str(failed))
            status = failed.status
        except CoreError as error:
            base.say(error.message)
            status = base.FAILED
        except KeyboardInterrupt:
            status = 130
        except BrokenPipeError:
            # whoever read our output has had enough
            _write_no_more()
            status = base.FAILED
        except OSError as error:
            # the disk that our output goes to is full, say
            _write_no_more()
            where = f"{error.filename}: " if error.filename else ""
            base.say(f"It could not be done: {where}{error.strerror or error}.")
            status = base.FAILED
        if status:
            raise SystemExit(status)


def _write_no_more() -> None:
    """Let nothing more of standard output be written: what is left of it would only fail again at the very end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class _Refusing(CommandParser):
    """Ends with 1 where the words make no sense: 2, which is argparse's, says something else of some verbs."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the process."""
        super().exit(base.FAILED if status else 0, message)


class _Parser(_Refusing):
    """A verb's parser: options stand where one likes, and what comes after `--` is a command's, with all its options.

    argparse itself gives a verb's places to the first words in a row: "attach NAME -u USER -- COMMAND" would be wrong.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the options that stand before `--` first, then the other words; what comes after it is as it is."""
        words = list(args or ())
        end = words.index("--") if "--" in words else len(words)
        if {"-h", "--help"} & set(words[:end]):
            return super().parse_known_args(words, namespace)
        usage, self.usage = self.usage, self.format_usage().removeprefix("usage: ").rstrip()
        places = [(action, action.nargs, action.default) for action in self._actions if not action.option_strings]
        needed = [action for action in self._actions if action.option_strings and action.required]
        try:
            for action, _nargs, _default in places:
                action.nargs = action.default = SUPPRESS
            namespace, others = super().parse_known_args(words[:end], namespace)
            for action, nargs, default in places:
                if action.dest == "command" and words[end + 1 :]:
                    namespace.command = words[end + 1 :]
                else:
                    action.nargs, action.default = nargs, default
            for action in needed:
                action.required = False
            return super().parse_known_args(others, namespace)
        finally:
            self.usage = usage
            for action, nargs, default in places:
                action.nargs, action.default = nargs, default
            for action in needed:
                action.required = True
