"""`manage.py user add NAME`, `user link NAME`: makes users and one-time sign-in links."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from containers.core.errors import CoreError
from panel.accounts import audit, links, services
from panel.accounts.models import Membership, Project, Role, User


class Command(BaseCommand):
    """Make a user, or a new sign-in link for one."""

    help = "Makes a user, or a new one-time sign-in link for one; the link stands alone on the last line."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="add|link")
        add = verbs.add_parser("add", help="make a user")
        add.add_argument("name")
        add.add_argument("--project", help="a project to make the user a member of")
        add.add_argument("--role", choices=Role.values, help="the role in that project (viewer)")
        add.add_argument("--host-admin", action="store_true", help="stands above all projects")
        link = verbs.add_parser("link", help="print a new sign-in link")
        link.add_argument("name")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            secret = self._add(options) if options["verb"] == "add" else self._link(options["name"])
        except CoreError as error:
            raise CommandError(error.message) from error
        self.stderr.write("This link signs in once, within 24 hours:")
        self.stdout.write(links.url(secret))

    def _add(self, options: dict[str, Any]) -> str:
        name, project_name = options["name"], options["project"]
        if options["role"] and not project_name:
            raise CommandError("--role needs --project.")
        project = Project.objects.filter(name=project_name).first()
        if project_name and project is None:
            raise CommandError(f"There is no project {project_name}.")
        with transaction.atomic():
            user, secret = services.add_user(name, host_admin=options["host_admin"])
            role = options["role"] or Role.VIEWER.value
            if project is not None:
                Membership.objects.create(project=project, user=user, role=role)
            detail = {"host_admin": user.host_admin, "role": role if project else None}
            audit.record(None, "user.create", "user", name, project=project_name or "", detail=detail)
        return secret

    def _link(self, name: str) -> str:
        user = User.objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"There is no user {name}.")
        if not user.is_active:
            raise CommandError(f"{name} is disabled.")
        audit.record(None, "user.link", "user", name)
        return links.create(user)
