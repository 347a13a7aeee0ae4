"""What operations are about, with the way to it: by what it is called now, not by what it was called then."""

from __future__ import annotations

from typing import Any

from django.db.models import F, OuterRef, QuerySet, Subquery
from django.db.models.fields.json import KT
from django.db.models.functions import Coalesce
from django.urls import reverse

from containers.models import Backup, Container


def with_objects(operations: QuerySet[Any]) -> QuerySet[Any]:
    """Return operations with what `href` needs of each, in the same query.

    A backup's operation holds no container, for the container may go on with other things meanwhile; its arguments
    tell which one it is, or which backup.
    """
    container = Container.objects.filter(pk=OuterRef("_container")).values("name")
    backup = Backup.objects.filter(pk=OuterRef("_backup")).values("pk")
    found: QuerySet[Any] = (
        operations.select_related("project")
        .annotate(_container=KT("arguments__container"), _backup=KT("arguments__backup"))
        .annotate(container_now=Coalesce("container__name", Subquery(container[:1])), image_now=F("image__name"))
        .annotate(backup_now=Subquery(backup[:1]))
    )
    return found


def href(operation: Any) -> str:
    """Return the page of what an operation of `with_objects` is about; empty where it has none, or none any more."""
    if operation.container_now:
        tab = "detail" if operation.container_id else "backups"
        return reverse(f"containers:{tab}", args=[operation.container_now])
    if operation.image_now:
        return reverse("pages:image", args=[operation.image_now])
    if operation.backup_now:
        return reverse("pages:backup", args=[operation.backup_now])
    return ""
