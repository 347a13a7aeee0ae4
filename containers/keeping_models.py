"""What is kept of containers: snapshots by the clock, backups, and what was deleted and can be had back."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone

from panel.accounts.models import Project, validate_name
from panel.columns import JSON

from .rights.querysets import BackupQuerySet, ScheduleQuerySet, TrashQuerySet


def backup_id() -> str:
    """Return a new id for a backup."""
    return uuid.uuid4().hex


class Schedule(models.Model):
    """Snapshots that are taken by the clock, of one container, or of a project's (with a tag), and which are kept."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="schedules")
    container = models.ForeignKey(
        "containers.Container", models.CASCADE, null=True, blank=True, related_name="schedules"
    )
    """None: all of the project, or those of them that have the tag."""
    name = models.CharField(max_length=63, validators=[validate_name])
    former = JSON(default=list, blank=True)
    """Names that it had before and no other has taken since: what it made under them is its own still."""
    tag = models.CharField(max_length=63, blank=True)
    when = models.CharField(max_length=200)
    """Five fields as in crontab(5), or "every 6h"."""
    zone = models.CharField(max_length=64, default="UTC")
    """The time zone that crontab's fields are meant in."""
    keep = JSON(default=dict, blank=True)
    """The fields of core.model.schedules.Keep that are set; none: everything is kept."""
    destination = models.CharField(max_length=63, blank=True)
    """Where backups are written to; "": it takes snapshots."""
    with_snapshots = models.BooleanField(default=False)
    """Of backups: with the container's snapshots."""
    enabled = models.BooleanField(default=True)
    next_at = models.DateTimeField(null=True, blank=True)
    last_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=63, blank=True)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["project", "name"], name="schedule_name_per_project"),)
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Trashed(models.Model):
    """Something that was deleted and can be had back for some days. The host's store says what is there."""

    id = models.CharField(primary_key=True, max_length=32, editable=False)
    host = models.ForeignKey("containers.Host", models.CASCADE, related_name="trash")
    project = models.ForeignKey(Project, models.SET_NULL, null=True, blank=True, related_name="trash")
    """None: an image, or of a project that is gone."""
    kind = models.CharField(max_length=16)
    """container, snapshot or image."""
    name = models.CharField(max_length=63)
    container = models.CharField(max_length=63, blank=True)
    """Of a snapshot: the container's name at that time."""
    container_id = models.CharField(max_length=12, blank=True)
    size_bytes = models.BigIntegerField(default=0)
    """What it holds by itself, and what becomes free without it."""
    detail = JSON(default=dict, blank=True)
    """What its row had and the store does not know."""
    deleted_at = models.DateTimeField(default=timezone.now)
    deleted_by = models.CharField(max_length=63, blank=True)
    expires_at = models.DateTimeField()
    """When it is removed for good."""

    objects = TrashQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "trash"
        ordering = ("-deleted_at",)

    def __str__(self) -> str:
        return self.name


class Backup(models.Model):
    """A container's backup, in a place that the host's policy names. The place says what is there."""

    id = models.CharField(primary_key=True, max_length=32, default=backup_id, editable=False)
    host = models.ForeignKey("containers.Host", models.CASCADE, related_name="backups")
    project = models.ForeignKey(Project, models.SET_NULL, null=True, blank=True, related_name="backups")
    """None: found in its place, made elsewhere; or of a project that is gone."""
    destination = models.CharField(max_length=63)
    file = models.CharField(max_length=150)
    container = models.CharField(max_length=63)
    """The container's name at that time."""
    container_id = models.CharField(max_length=12, blank=True)
    size_bytes = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    """Of the whole file; "" of one that was found."""
    points = models.PositiveIntegerField(default=0)
    """How many snapshots are in it."""
    plain_bytes = models.BigIntegerField(default=0)
    """About how much it takes on disk, restored."""
    schedule = models.CharField(max_length=63, blank=True)
    """The schedule that made it."""
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=63, blank=True)
    verified_at = models.DateTimeField(null=True, blank=True)
    verified_by = models.CharField(max_length=63, blank=True)
    problem = models.CharField(max_length=500, blank=True)
    """What was wrong when it was last read; "": nothing."""

    objects = BackupQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["host", "destination", "file"], name="backup_file_once"),)
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.container
