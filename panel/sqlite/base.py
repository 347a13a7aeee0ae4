"""Django's SQLite, for a file that a root process and an unprivileged one write.

The journal files (-wal, -shm) go with the last connection and come with the next one. When root makes them they are
root's for an instant, until SQLite gives them the owner of the database; who opens the database in that instant is
told that he cannot. So opening is tried again for a while.

The directory is the unprivileged process's: it could put a link where the database was. Root therefore opens a regular
file with one name only, and has SQLite make none (mode=rw). Source: sqlite.org/uri.html.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from typing import Any, Final
from urllib.parse import quote

from django.db.backends.sqlite3.base import DatabaseWrapper as SqliteWrapper

OPEN_SEC: Final = 3.0
AGAIN_SEC: Final = 0.01


class DatabaseWrapper(SqliteWrapper):
    """Django's backend, patient when it connects."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect; raises OperationalError where the file cannot be opened for OPEN_SEC seconds."""
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
