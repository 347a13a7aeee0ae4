"""What the panel knows of a host's containers. The host's store and the kernel have the last word."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from panel.accounts.models import Project, User, validate_name
from panel.columns import JSON

from .core.model import restarts
from .core.model.states import Status
from .keeping_models import Backup as Backup
from .keeping_models import Schedule as Schedule
from .keeping_models import Trashed as Trashed
from .rights.querysets import ContainerQuerySet, ImageQuerySet, NetworkQuerySet, OperationQuerySet


def new_id() -> str:
    """Return a new 12-digit hexadecimal id for a container."""
    return uuid.uuid4().hex[:12]


class Host(models.Model):
    """A machine with a root worker; its queue is host.NAME."""

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    facts = JSON(default=dict, blank=True)
    """What the worker last said of it: memory_bytes, cpus, pids, doctor, kernel …"""
    seen_at = models.DateTimeField(null=True, blank=True)
    """When its worker last answered a doorbell."""
    next_slot = models.PositiveSmallIntegerField(default=0)
    """Where the search for a container's slot begins, so that a slot rests before it is used again."""

    def __str__(self) -> str:
        return self.name


class Image(models.Model):
    """A root file system that containers are made from."""

    class State(models.TextChoices):
        """AVAILABLE images are built when they are first used."""

        AVAILABLE = "available", _("Made on first use")
        BUILDING = "building", _("Being made")
        READY = "ready", _("Ready")
        FAILED = "failed", _("Failed")

    host = models.ForeignKey(Host, models.CASCADE, related_name="images")
    name = models.CharField(max_length=63, validators=[validate_name])
    description = models.CharField(max_length=500, blank=True)
    source = JSON(default=dict)
    """As in the API: {"type": "busybox"}, {"type": "debootstrap", "suite": "bookworm"} …"""
    state = models.CharField(max_length=16, choices=State.choices, default=State.AVAILABLE)
    layers = JSON(default=list)
    size_bytes = models.BigIntegerField(null=True, blank=True)
    defaults = JSON(default=dict, blank=True)
    """What a container takes over unless it says otherwise: init_command, halt_signal, environment, init, console."""
    details = JSON(default=dict, blank=True)
    """What is shown of it and decides nothing: architecture, os, release, digest, ports …"""
    created_at = models.DateTimeField(default=timezone.now)
    built_at = models.DateTimeField(null=True, blank=True)

    objects = ImageQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["host", "name"], name="image_name_per_host"),)
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Network(models.Model):
    """A bridge on a host, with its subnets. project None: everybody's."""

    host = models.ForeignKey(Host, models.CASCADE, related_name="networks")
    project = models.ForeignKey(Project, models.PROTECT, null=True, blank=True, related_name="networks")
    name = models.CharField(max_length=63, validators=[validate_name])
    type = models.CharField(max_length=16, default="bridge")
    number = models.PositiveSmallIntegerField()
    """0..999, unique on the host: makes the bridge's name."""
    ipv4 = models.CharField(max_length=32, blank=True)
    """The gateway's address with prefix length (10.90.3.1/24), empty for none."""
    ipv6 = models.CharField(max_length=64, blank=True)
    nat = models.BooleanField(default=True)
    description = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = NetworkQuerySet.as_manager()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["host", "name"], name="network_name_per_host"),
            models.UniqueConstraint(fields=["host", "number"], name="network_number_per_host"),
        )
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Container(models.Model):
    """A container of a project on a host. `id` names it on the host and is never used again."""

    id = models.CharField(primary_key=True, max_length=12, default=new_id, editable=False)
    host = models.ForeignKey(Host, models.PROTECT, related_name="containers")
    project = models.ForeignKey(Project, models.PROTECT, related_name="containers")
    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    """Unique in the whole installation: the API addresses containers by name."""
    slot = models.PositiveSmallIntegerField()
    image = models.ForeignKey(Image, models.SET_NULL, null=True, blank=True, related_name="containers")
    image_name = models.CharField(max_length=63)
    """Kept when the image is gone."""
    status = models.CharField(max_length=8, default=Status.ABSENT, choices=[(s.value, s.value) for s in Status])
    status_reason = models.CharField(max_length=500, blank=True)
    status_at = models.DateTimeField(default=timezone.now)
    init_pid = models.PositiveIntegerField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    last_exit = JSON(null=True, blank=True)
    description = models.CharField(max_length=500, blank=True)
    tags = JSON(default=list, blank=True)
    limits = JSON(default=dict, blank=True)
    """The fields of core.model.spec.Limits that are set."""
    security = JSON(default=dict, blank=True)
    """The fields of core.model.security.Security that are not as in every container."""
    mounts = JSON(default=list, blank=True)
    """Shared directories of the host: the fields of core.model.attachments.Mount, one object each."""
    devices = JSON(default=list, blank=True)
    """Device nodes of the host: the fields of core.model.attachments.Device, one object each."""
    hooks = JSON(default=list, blank=True)
    """Programs that are run at certain points: the fields of core.model.hooks.Hook, one object each."""
    init = JSON(default=dict, blank=True)
    """The fields of core.model.behaviour.Init that are not as in every container."""
    boot = JSON(default=dict, blank=True)
    """The same of core.model.behaviour.Boot."""
    console = JSON(default=dict, blank=True)
    """The same of core.model.behaviour.Consoles."""
    autostart = models.BooleanField(default=False)
    privileged = models.BooleanField(default=False)
    ephemeral = models.BooleanField(default=False)
    restart = models.CharField(max_length=16, default="no")
    pool = models.CharField(max_length=63, default="default")
    """The storage pool that its own files lie in; "best" until it is made."""
    init_command = JSON(default=list, blank=True)
    environment = JSON(default=dict, blank=True)
    halt_signal = models.CharField(max_length=16, blank=True)
    machine_id = models.CharField(max_length=32)
    layers = JSON(default=list, blank=True)
    generation = models.PositiveIntegerField(default=1)
    next_snapshot = models.PositiveIntegerField(default=0)
    """The N of the next snapN: never reused."""
    lineage = JSON(default=list, blank=True)
    """The snapshots that its files descend from, oldest first; those that were deleted since too."""
    expires_at = models.DateTimeField(null=True, blank=True)
    """When it is stopped and deleted; None: never."""
    restart_count = models.PositiveIntegerField(default=0)
    """How often in a row the restart policy has started it; 0 again after a healthy run or a person's start."""
    restart_at = models.DateTimeField(null=True, blank=True)
    """When the restart policy starts it next."""
    created_at = models.DateTimeField(default=timezone.now)

    objects = ContainerQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["host", "slot"], name="slot_per_host"),)
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def restarts(self) -> bool:
        """Whether it has stopped only until the restart policy starts it again."""
        return self.status == Status.STOPPED and restarts.wanted(self.restart, self.last_exit, self.restart_count)


class NetworkInterface(models.Model):
    """A NIC of a container, and the addresses reserved for it."""

    container = models.ForeignKey(Container, models.CASCADE, related_name="interfaces")
    network = models.ForeignKey(Network, models.PROTECT, null=True, blank=True, related_name="interfaces")
    """None where it is not of type bridge."""
    type = models.CharField(max_length=16, default="bridge")
    """As in core.model.nics."""
    index = models.PositiveSmallIntegerField(default=0)
    name = models.CharField(max_length=15, default="eth0")
    mac = models.CharField(max_length=17, unique=True, null=True, blank=True)
    ipv4 = models.GenericIPAddressField(protocol="IPv4", null=True, blank=True)
    ipv6 = models.GenericIPAddressField(protocol="IPv6", null=True, blank=True)
    options = JSON(default=dict, blank=True)
    """The fields of core.model.nics.Nic that are not columns, where they are set; addresses with prefix length."""

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["network", "ipv4"], name="ipv4_once_per_network"),
            models.UniqueConstraint(fields=["container", "index"], name="nic_index_per_container"),
        )
        ordering = ("index",)

    def __str__(self) -> str:
        return f"{self.container_id} {self.name}"


class Snapshot(models.Model):
    """A point a container can be taken back to."""

    container = models.ForeignKey(Container, models.CASCADE, related_name="snapshots")
    name = models.CharField(max_length=63, validators=[validate_name])
    note = models.CharField(max_length=500, blank=True)
    pinned = models.BooleanField(default=False)
    layers = JSON(default=list)
    spec = JSON(default=dict)
    """The container's spec at that time."""
    size_bytes = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=63, blank=True)
    kind = models.CharField(max_length=16, default="manual")
    """manual, schedule, or safety: taken before a restore, for its undo."""
    expires_at = models.DateTimeField(null=True, blank=True)
    """When it is deleted, unless it is pinned; None: never."""
    lineage = JSON(default=list, blank=True)
    """The snapshots that it descends from, oldest first; those that were deleted since too."""

    class Meta:
        constraints = (models.UniqueConstraint(fields=["container", "name"], name="snapshot_name_per_container"),)
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.name

    @property
    def holds(self) -> str:
        """What it can give back: all, files (of before configurations were kept), or configuration."""
        if not self.spec:
            return "files"
        return "all" if self.layers else "configuration"


class Operation(models.Model):
    """One thing somebody asked for. The row, not the doorbell, says what to do and how it went."""

    class Status(models.TextChoices):
        """queued and running are unfinished."""

        QUEUED = "queued", _("Queued")
        RUNNING = "running", _("Running")
        SUCCEEDED = "succeeded", _("Succeeded")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    UNFINISHED: ClassVar[tuple[str, ...]] = (Status.QUEUED.value, Status.RUNNING.value)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.ForeignKey(Host, models.PROTECT, related_name="operations")
    action = models.CharField(max_length=32)
    """create start stop restart freeze unfreeze update rename snapshot snapshot-change snapshot-delete restore clone
    delete;
    image-build image-delete; network-create network-change network-delete; backup-export backup-verify backup-delete
    backup-import backup-restore backup-scan."""
    container = models.ForeignKey(Container, models.SET_NULL, null=True, blank=True, related_name="operations")
    container_name = models.CharField(max_length=63, blank=True)
    target = models.ForeignKey(Container, models.SET_NULL, null=True, blank=True, related_name="clone_operations")
    """The container that a clone makes; held by the operation as its source is."""
    image = models.ForeignKey(Image, models.SET_NULL, null=True, blank=True, related_name="operations")
    network = models.ForeignKey(Network, models.SET_NULL, null=True, blank=True, related_name="operations")
    object_name = models.CharField(max_length=63)
    """The container's, image's or network's name at that time."""
    project = models.ForeignKey(Project, models.SET_NULL, null=True, blank=True, related_name="operations")
    arguments = JSON(default=dict)
    journal = JSON(default=dict, blank=True)
    """What a handler needs to know when it is resumed, such as whether the container ran before."""
    actor = models.ForeignKey(User, models.SET_NULL, null=True, blank=True)
    actor_name = models.CharField(max_length=63)
    source_ip = models.GenericIPAddressField(null=True, blank=True)
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.QUEUED)
    progress_pct = models.PositiveSmallIntegerField(default=0)
    message = models.CharField(max_length=500, blank=True)
    said = JSON(null=True, blank=True)
    """The message as it can be said in another language (core.sentences.as_json); None where it is its own template."""
    log = models.TextField(blank=True)
    """The last 64 KiB of what a build printed."""
    error = JSON(null=True, blank=True)
    cancel_requested = models.BooleanField(default=False)
    cancellable = models.BooleanField(default=False)
    owner = JSON(null=True, blank=True)
    """{"boot_id", "pid", "start_time"} of the process that claimed it."""
    attempts = models.PositiveSmallIntegerField(default=0)
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001  NULL is never equal
    created_at = models.DateTimeField(default=timezone.now)
    rung_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = OperationQuerySet.as_manager()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["container"], condition=Q(status__in=("queued", "running")), name="one_operation_per_container"
            ),
            models.UniqueConstraint(
                fields=["target"], condition=Q(status__in=("queued", "running")), name="one_operation_per_target"
            ),
            models.UniqueConstraint(
                fields=["image"], condition=Q(status__in=("queued", "running")), name="one_operation_per_image"
            ),
            models.UniqueConstraint(
                fields=["network"], condition=Q(status__in=("queued", "running")), name="one_operation_per_network"
            ),
            models.UniqueConstraint(fields=["actor", "idempotency_key"], name="one_operation_per_key"),
        )
        indexes = (
            models.Index(
                fields=["host", "created_at"], name="unfinished", condition=Q(status__in=("queued", "running"))
            ),
            models.Index(fields=["-created_at"], name="newest_first"),
        )
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.action} {self.object_name}"

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status not in self.UNFINISHED


class Event(models.Model):
    """Something that happened to a container: a change of status, a reboot, an OOM kill."""

    container = models.ForeignKey(Container, models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=32)
    """status, rebooted, oom, limits, snapshot, restored, session …"""
    old = models.CharField(max_length=16, blank=True)
    new = models.CharField(max_length=16, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    actor_name = models.CharField(max_length=63, blank=True)
    operation = models.ForeignKey(Operation, models.SET_NULL, null=True, blank=True)
    detail = JSON(default=dict, blank=True)

    class Meta:
        indexes = (models.Index(fields=["container", "-at"], name="events_of_container"),)
        ordering = ("-at", "-pk")

    def __str__(self) -> str:
        return f"{self.kind} {self.new}"


def local_host() -> Host:
    """Return the row of this installation's own host, making it at the first call."""
    defaults: dict[str, Any] = {}
    host, _made = Host.objects.get_or_create(name=settings.BOXROOM_HOST, defaults=defaults)
    return host
