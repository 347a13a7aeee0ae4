"""Kinds of database columns."""

from __future__ import annotations

from typing import Any

from django.db import models

_EMPTY = {"{}": dict, "[]": list}


class JSON(models.JSONField):
    """Django's JSONField; what is empty, as most columns of most rows are, is not taken apart each time."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the value, and of what is empty a new one each time."""
        if isinstance(value, str) and (kind := _EMPTY.get(value)) is not None:
            return kind()
        return super().from_db_value(value, expression, connection)

    def deconstruct(self) -> Any:
        """Return what migrations are told: it is the same column."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs
