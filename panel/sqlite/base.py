"""Django's SQLite, for a file that a root process and an unprivileged one write.

The journal files (-wal, -shm) go with the last connection and come with the next one. When root makes them they are
root's for an instant, until SQLite gives them the owner of the database; who opens the database in that instant is
told that he cannot. So opening is tried again for a while.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Final

from django.db.backends.sqlite3.base import DatabaseWrapper as SqliteWrapper

OPEN_SEC: Final = 3.0
AGAIN_SEC: Final = 0.01


class DatabaseWrapper(SqliteWrapper):
    """Django's backend, patient when it connects."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect; raises OperationalError where the file cannot be opened for OPEN_SEC seconds."""
        deadline = time.monotonic() + OPEN_SEC
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
