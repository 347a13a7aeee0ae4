"""`manage.py token USERNAME`: prints a new API token, alone on the last line."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from panel.accounts import audit, tokens
from panel.accounts.models import User


class Command(BaseCommand):
    """Make an API token for a user."""

    help = "Prints a new API token for a user, alone on the last line."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", default="", help="what the token is for")
        parser.add_argument("--days", type=int, default=0, help="how long it is valid; 0: for ever")
        parser.add_argument("--read-only", action="store_true", help="a token that may only read")

    def handle(self, *_args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']}. `manage.py user add` makes one.")
        if not user.is_active:
            raise CommandError(f"{user.username} is disabled.")
        now = timezone.now()
        name = options["name"] or f"command line, {now:%Y-%m-%d %H:%M}"
        expires_at = now + dt.timedelta(days=options["days"]) if options["days"] else None
        _row, secret = tokens.issue(user, name=name[:63], expires_at=expires_at, read_only=options["read_only"])
        audit.record(None, "token.create", "token", name, detail={"user": user.username})
        self.stderr.write(f"A token for {user.username}. It is not shown again.")
        self.stdout.write(secret)
