"""The database file that a root process and an unprivileged one share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db.backends.sqlite3.base import DatabaseWrapper as SqliteWrapper

from panel.instance.layout import ensure_user
from panel.sqlite import base
from panel.sqlite.base import DatabaseWrapper


def connect_as_web(wrapper: type[SqliteWrapper], path: Path) -> int:
    """Fork a child that opens the database as the web's user; its exit status is 0 where it could write."""
    user = ensure_user()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        settings = {"NAME": str(path), "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL;"}, "TIME_ZONE": None}
        made = wrapper({**settings, "CONN_MAX_AGE": 0, "AUTOCOMMIT": True, "CONN_HEALTH_CHECKS": False})
        connection = made.get_new_connection(made.get_connection_params())
        connection.execute("insert into t values (2)")
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the child's last frame
        os._exit(1)


@pytest.fixture
def journals(tmp_path: Path) -> list[Path]:
    """Journal files as root's SQLite has just made them, before it gives them away."""
    user = ensure_user()
    # pytest's own directories: the one that holds all runs, this run's, this test's; nothing above them
    for part in (tmp_path, *tmp_path.parents[:2]):
        part.chmod(0o755)
    web = tmp_path / "web"
    web.mkdir()
    path = web / "db.sqlite3"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table t (x)")
    kept = {one: one.read_bytes() for one in web.iterdir()}
    connection.close()
    for one, data in kept.items():
        one.write_bytes(data)
        one.chmod(0o600)
    os.chown(web, user.pw_uid, user.pw_gid)
    os.chown(path, user.pw_uid, user.pw_gid)
    return [one for one in kept if one != path]


def test_journals_that_are_root_s_for_an_instant_are_waited_for(
    journals: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "OPEN_SEC", 60.0)
    path = journals[0].parent / "db.sqlite3"
    impatient = connect_as_web(SqliteWrapper, path)
    assert os.waitstatus_to_exitcode(os.waitpid(impatient, 0)[1]) == 1, "the test makes nothing that must be waited for"
    pid = connect_as_web(DatabaseWrapper, path)
    time.sleep(0.3)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    for journal in journals:
        os.chown(journal, ensure_user().pw_uid, -1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_root_gives_the_journals_to_the_owner_of_the_database(tmp_path: Path) -> None:
    user = ensure_user()
    path = tmp_path / "db.sqlite3"
    path.touch(0o600)
    os.chown(path, user.pw_uid, user.pw_gid)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table t (x)")
    owners = {one.name: one.stat().st_uid for one in tmp_path.iterdir()}
    connection.close()
    assert owners == dict.fromkeys(("db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm"), user.pw_uid)


def wrapped(path: Path) -> sqlite3.Connection:
    settings = {"NAME": str(path), "OPTIONS": {}, "TIME_ZONE": None, "CONN_MAX_AGE": 0, "AUTOCOMMIT": True}
    made = DatabaseWrapper({**settings, "CONN_HEALTH_CHECKS": False})
    connection: sqlite3.Connection = made.get_new_connection(made.get_connection_params())
    return connection


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_root_opens_no_other_file_in_the_database_s_place(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    other, path = tmp_path / "root's own", tmp_path / "db.sqlite3"
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("create table mine (x)")
    link(other, path)
    with pytest.raises(sqlite3.OperationalError, match="not a regular file"):
        wrapped(path)


def test_root_makes_nothing_where_a_link_leads(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(sqlite3.OperationalError):
        wrapped(path)
    assert not (tmp_path / "elsewhere").exists()
    path.unlink()
    with contextlib.closing(wrapped(path)) as connection:
        connection.execute("create table t (x)")
    assert path.stat().st_mode & 0o777 == 0o600
