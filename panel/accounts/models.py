"""People, projects, roles, tokens, sign-in links and the audit trail."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.contrib.auth.models import AbstractBaseUser, UserManager
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from containers.core.names import NAME_PATTERN, NAME_RULE

validate_name = RegexValidator(rf"\A{NAME_PATTERN}\Z", NAME_RULE)


class Role(models.TextChoices):
    """What a member may do in a project; each includes the ones before it."""

    VIEWER = "viewer", _("Viewer")
    OPERATOR = "operator", _("Operator")
    ADMINISTRATOR = "administrator", _("Administrator")


class PeopleManager(UserManager["User"]):
    """Makes users; the first administrator is called admin."""

    def create_user(  # type: ignore[override]
        self, username: str, password: str | None = None, *, host_admin: bool = False, email: str = ""
    ) -> User:
        """Make a user; without a password nobody can sign in but by a link."""
        user = self.model(username=username, host_admin=host_admin, email=email)
        user.set_password(password)
        user.save(using=self._db)
        return user


class User(AbstractBaseUser):
    """A person, or a program with tokens. host_admin stands above every project."""

    username = models.CharField(max_length=63, unique=True, validators=[validate_name])
    email = models.EmailField(blank=True)
    host_admin = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(default=timezone.now)
    roles_version = models.PositiveIntegerField(default=1)
    """Grows whenever rights change, so that open sockets look again."""
    language = models.CharField(max_length=16, blank=True)
    theme = models.CharField(max_length=8, blank=True, choices=[("light", _("Light")), ("dark", _("Dark"))])

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects: ClassVar[PeopleManager] = PeopleManager()

    def __str__(self) -> str:
        return self.username

    @property
    def is_staff(self) -> bool:
        """Whether the user stands above the projects."""
        return self.host_admin


class Project(models.Model):
    """A team's containers."""

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    description = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """One user's role in one project."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["project", "user"], name="one_role_per_project"),)

    def __str__(self) -> str:
        return f"{self.user} {self.role} {self.project}"


class ApiToken(models.Model):
    """A bearer token; only a digest is kept."""

    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=63)
    digest = models.CharField(max_length=64, unique=True)
    read_only = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class SignInLink(models.Model):
    """A link that signs a user in once; only a digest is kept."""

    user = models.ForeignKey(User, models.CASCADE, related_name="sign_in_links")
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"link for {self.user}"


class AuditRecord(models.Model):
    """Who did what, when, from where, and how it ended. Rows are added and closed, never removed by people."""

    class Outcome(models.TextChoices):
        """How it ended; PENDING while its operation runs."""

        PENDING = "pending", _("Pending")
        SUCCEEDED = "succeeded", _("Succeeded")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")
        DENIED = "denied", _("Denied")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor = models.ForeignKey(User, models.SET_NULL, null=True, blank=True)
    actor_name = models.CharField(max_length=63)
    """Kept after the user is gone; ``system`` for what nobody asked for."""
    action = models.CharField(max_length=64)
    """Dotted: container.start, snapshot.restore, session.open, user.create, sign-in …"""
    object_type = models.CharField(max_length=32)
    object_name = models.CharField(max_length=255)
    project = models.CharField(max_length=63, blank=True)
    source_ip = models.GenericIPAddressField(null=True, blank=True)
    outcome = models.CharField(max_length=16, choices=Outcome.choices)
    detail = models.JSONField(default=dict, blank=True)
    operation_id = models.UUIDField(null=True, blank=True, db_index=True)
    sealed = models.BooleanField(default=False)
    """Whether it stands in the chain of AuditSeal as it is now; what was just added or closed waits for that."""

    class Meta:
        ordering = ("-at",)
        indexes = (models.Index(fields=["at"], condition=models.Q(sealed=False), name="audit_not_sealed_yet"),)

    def __str__(self) -> str:
        return f"{self.actor_name} {self.action} {self.object_name}"


class AuditSeal(models.Model):
    """One link of the chain over the audit trail: containers/upkeep/sealing.py makes and checks them.

    A record has one link for what it says when it is added, and where it was pending then, another for its end.
    """

    seq = models.BigIntegerField(primary_key=True)
    record_id = models.UUIDField(db_index=True)
    """Of an AuditRecord; no foreign key, so that a record that was taken away leaves its link behind."""
    pending = models.BooleanField()
    """Whether the record had not ended yet, so that another link may follow."""
    content = models.CharField(max_length=64)
    """Digest of what never changes in a record."""
    state = models.CharField(max_length=64)
    """Digest of outcome and detail."""
    digest = models.CharField(max_length=64)
    """Keyed digest of all of the above and of the digest before; only root has the key."""

    def __str__(self) -> str:
        return f"{self.seq} {self.record_id}"
