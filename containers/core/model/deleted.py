"""What was deleted and can be had back, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["container", "snapshot", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """id: the container's own, or 32 hexadecimal digits. deleted_at, expires_at: ISO 8601.

    size_bytes: what it holds by itself. container, container_id: of a snapshot, whose it was. detail: what rows had
    and the store does not know.
    """

    id: str
    kind: Kind
    name: str
    deleted_at: str
    expires_at: str
    size_bytes: int = 0
    project: str = ""
    container: str = ""
    container_id: str = ""
    deleted_by: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
