"""Django's SQLite, for a file that a root process and an unprivileged one write.

The journal files (-wal, -shm) go with the last connection and come with the next one. When root makes them they are
root's for an instant, until SQLite gives them the owner of the database; who opens the database in that instant is
told that he cannot. So opening is tried again for a while.

Each request has a thread of its own, and with it a connection. To open one and read the schema takes a millisecond, so
a few that were closed are kept, and opened again by whoever comes next.

The directory is the unprivileged process's: it could put a link where the database was. Root therefore opens a regular
file with one name only, and has SQLite make none (mode=rw). Source: sqlite.org/uri.html.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections import deque
from typing import Any, ClassVar, Final
from urllib.parse import quote
from weakref import WeakSet

from django.db.backends.sqlite3.base import DatabaseWrapper as SqliteWrapper

OPEN_SEC: Final = 3.0
AGAIN_SEC: Final = 0.01


class DatabaseWrapper(SqliteWrapper):
    """Django's backend, patient when it connects. OPTIONS' "kept": how many closed connections of the process stay."""

    _kept: ClassVar[deque[sqlite3.Connection]] = deque()
    """Closed ones, all of one database; the one that was used last comes first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept_max = 0
        self._cursors: WeakSet[Any] = WeakSet()

    def get_connection_params(self) -> dict[str, Any]:
        """Return what sqlite3 connects with."""
        found: dict[str, Any] = super().get_connection_params()
        self._kept_max = found.pop("kept", 0)
        return found

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect; raises OperationalError where the file cannot be opened for OPEN_SEC seconds."""
        if self._kept_max:
            with contextlib.suppress(IndexError):
                return self._kept.pop()
        deadline = time.monotonic() + OPEN_SEC
        if os.geteuid() == 0:
            conn_params = {**conn_params, "database": _root_uri(conn_params["database"])}
        while True:
            try:
                return super().get_new_connection(conn_params)
            except sqlite3.OperationalError as error:
                # the journals open with the first statement (PRAGMA journal_mode), which is part of connecting
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                    raise
                if time.monotonic() >= deadline:
                    raise
            time.sleep(AGAIN_SEC)

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a cursor."""
        made = super().create_cursor(name)
        if self._kept_max:
            self._cursors.add(made)
        return made

    def is_usable(self) -> bool:
        """Tell whether it may be used again after an error: where it could be kept, another one takes its place."""
        return not self._kept_max

    def _close(self) -> None:
        """Keep the connection where nothing of what it was used for is left with it; else close it."""
        # one that was not read to its end would show the next user what there was then
        for cursor in self._cursors:
            cursor.close()
        self._cursors = WeakSet()
        left = self.errors_occurred or self.in_atomic_block or self.connection is None or self.connection.in_transaction
        if left or len(self._kept) >= self._kept_max:
            super()._close()  # type: ignore[misc]
        else:
            self._kept.append(self.connection)


def _root_uri(database: str) -> str:
    """Return what root opens for a path: that very file, never another one; raises OperationalError for a link."""
    if not database.startswith("/"):
        return database
    try:
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        status = os.lstat(database)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise sqlite3.OperationalError(f"{database} is not a regular file with one name") from None
    except OSError as error:
        raise sqlite3.OperationalError(f"unable to open database file: {error}") from error
    return f"file:{quote(database)}?mode=rw"
