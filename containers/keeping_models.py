"""What is kept of containers: snapshots by the clock, and what was deleted and can be had back."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from panel.accounts.models import Project, validate_name

from .rights.querysets import ScheduleQuerySet, TrashQuerySet


class Schedule(models.Model):
    """Snapshots that are taken by the clock, of one container, or of a project's (with a tag), and which are kept."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="schedules")
    container = models.ForeignKey(
        "containers.Container", models.CASCADE, null=True, blank=True, related_name="schedules"
    )
    """None: all of the project, or those of them that have the tag."""
    name = models.CharField(max_length=63, validators=[validate_name])
    tag = models.CharField(max_length=63, blank=True)
    when = models.CharField(max_length=200)
    """Five fields as in crontab(5), or "every 6h"."""
    zone = models.CharField(max_length=64, default="UTC")
    """The time zone that crontab's fields are meant in."""
    keep = models.JSONField(default=dict, blank=True)
    """The fields of core.schedules.Keep that are set; none: everything is kept."""
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
    detail = models.JSONField(default=dict, blank=True)
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
