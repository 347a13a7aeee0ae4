"""`manage.py prepare`: what `up` runs before the worker: the database, the static files, and what a new one has."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from containers import rebuild
from containers.core.errors import CoreError
from containers.core.host import Host
from containers.operations.runner import local_runtime
from panel.accounts import links, services
from panel.accounts.models import User

ADMIN = "admin"


class Command(BaseCommand):
    """Bring the database up to date, and make what a new installation has."""

    help = "Brings database and static files up to date; makes the first host, project, network, images and admin."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a report as JSON on the last line")

    def handle(self, *_args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
        call_command("collectstatic", verbosity=0, interactive=False, skip_checks=True)
        try:
            row = rebuild.setup(Host.open(settings.STATE_DIR), local_runtime())
        except (CoreError, OSError) as error:
            raise CommandError(str(error)) from error
        path = sign_in_path()
        if options["json"]:
            self.stdout.write(json.dumps({"host": row.name, "sign_in_path": path}))


def sign_in_path() -> str:
    """Return the path of a fresh sign-in link while the first administrator has no password, else nothing."""
    user = User.objects.filter(username=ADMIN).first()
    if user is None:
        user, secret = services.add_user(ADMIN, host_admin=True)
    elif user.has_usable_password() or not user.is_active:
        return ""
    else:
        secret = links.create(user)
    return reverse("account_link", args=[secret])
