"""What the links of the audit trail's chain are made of: digests of records, and the file with the key."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panel.accounts.models import AuditRecord, AuditSeal

from ..core.kernel import files


class NoKey(Exception):
    """There are links, and the file with their key is not there."""


@dataclass
class Anchor:
    """The file. pruned, head: (seq, digest) of the last link that was forgotten, and of the last one that was made."""

    key: bytes
    pruned: tuple[int, str]
    head: tuple[int, str]

    def dump(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"key": self.key.hex(), "pruned": list(self.pruned), "head": list(self.head)}


class ChainFile:
    """The file of one instance's chain, root's, 0600, and the lock beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Anchor:
        """Return what the file holds, a new key where no link has been made yet. Raises NoKey."""
        try:
            found = files.read_json(self.path)
            return Anchor(bytes.fromhex(found["key"]), tuple(found["pruned"]), tuple(found["head"]))
        except FileNotFoundError:
            if AuditSeal.objects.exists():
                raise NoKey(f"{self.path} is not there, and the audit trail is sealed with its key") from None
        return Anchor(secrets.token_bytes(32), (0, ""), (0, ""))

    def write(self, anchor: Anchor) -> None:
        """Replace the file."""
        files.write_json(self.path, anchor.dump())

    @contextlib.contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the only right to add and remove links; waits for whoever has it, or raises BlockingIOError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock_fd = os.open(self.path.with_suffix(".lock"), flags, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(lock_fd)


def _sha256(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def content_of(row: AuditRecord) -> str:
    """Return the digest of what never changes in a record. The actor's name counts, not his row, which may go."""
    return _sha256(
        [
            str(row.pk),
            row.at.astimezone(dt.UTC).isoformat(timespec="microseconds"),
            row.actor_name,
            row.action,
            row.object_type,
            row.object_name,
            row.project,
            row.source_ip,
            str(row.operation_id) if row.operation_id else None,
        ]
    )


def state_of(row: AuditRecord) -> str:
    """Return the digest of how a record has ended."""
    return _sha256([row.outcome, row.detail])


def digest_of(key: bytes, before: str, link: AuditSeal) -> str:
    """Return a link's digest, which covers the one before it."""
    values = [before, link.seq, str(link.record_id), link.pending, link.content, link.state]
    return hmac.new(key, json.dumps(values).encode(), hashlib.sha256).hexdigest()
