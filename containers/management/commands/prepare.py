"""`manage.py prepare`: what `up` runs before the worker: the database, the static files, and what a new one has."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.urls import reverse

from containers.core.errors import CoreError
from containers.core.host import Host
from containers.operations.runner import local_runtime
from containers.upkeep import rebuild
from panel.accounts import links, services
from panel.accounts.models import User

ADMIN = "admin"


class Command(BaseCommand):
    """Bring the database up to date, and make what a new installation has."""

    help = "Brings database and static files up to date; makes the first host, project, network, images and admin."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a report as JSON on the last line")
        parser.add_argument("--no-link", action="store_true", help="make no sign-in link, and leave those that are")

    def handle(self, *_args: Any, **options: Any) -> None:
        if unapplied():
            call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
        collect()
        try:
            row = rebuild.setup(Host.open(settings.STATE_DIR), local_runtime())
        except (CoreError, OSError) as error:
            raise CommandError(str(error)) from error
        admin = first_administrator()
        path = sign_in_path(admin) if admin and not options["no_link"] else ""
        if options["json"]:
            self.stdout.write(json.dumps({"host": row.name, "sign_in_path": path, "no_password": admin is not None}))


def unapplied() -> bool:
    """Whether the database lacks a migration."""
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def collect() -> None:
    """Collect, name and compress the static files, unless they are as they were the last time."""
    stamp = settings.STATE_DIR / "collected"
    seen = hashlib.sha256()
    for finder in get_finders():
        for path, storage in finder.list([]):
            status = os.stat(storage.path(path))
            seen.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    manifest = settings.PANEL_DIR / "static/staticfiles.json"
    if stamp.exists() and stamp.read_text() == seen.hexdigest() and manifest.exists():
        return
    call_command("collectstatic", verbosity=0, interactive=False, skip_checks=True)
    stamp.write_text(seen.hexdigest())


def first_administrator() -> User | None:
    """Return the first administrator, made if need be, while there is no password to sign in with."""
    user = User.objects.filter(username=ADMIN).first()
    if user is None:
        return services.add_first(ADMIN)
    return None if user.has_usable_password() or not user.is_active else user


def sign_in_path(user: User) -> str:
    """Return the path of a fresh sign-in link; those before it work no longer."""
    return reverse("account_link", args=[links.create(user)])
