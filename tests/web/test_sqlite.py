"""The database file that a root process and an unprivileged one share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import OperationalError
from django.db.backends.sqlite3.base import DatabaseWrapper as SqliteWrapper
from pytest_django import DjangoDbBlocker

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


@pytest.fixture
def keeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, django_db_blocker: DjangoDbBlocker
) -> Iterator[Callable[[], DatabaseWrapper]]:
    """Makes wrappers as each thread has one, of a process that keeps two connections."""
    kept: deque[sqlite3.Connection] = deque()
    monkeypatch.setattr(DatabaseWrapper, "_kept", kept)
    options = {"kept": 2, "init_command": "PRAGMA journal_mode=WAL;"}
    settings = {"NAME": str(tmp_path / "db.sqlite3"), "OPTIONS": options, "TIME_ZONE": None, "CONN_MAX_AGE": 0}

    def make() -> DatabaseWrapper:
        return DatabaseWrapper({**settings, "AUTOCOMMIT": True, "ATOMIC_REQUESTS": False, "CONN_HEALTH_CHECKS": False})

    with django_db_blocker.unblock():  # this file's own database
        first = make()
        with first.cursor() as cursor:
            cursor.execute("create table t (x)")
            cursor.executemany("insert into t values (%s)", [(number,) for number in range(500)])
        first.close()
        yield make
    for connection in kept:
        connection.close()


def opened(wrapper: DatabaseWrapper) -> sqlite3.Connection:
    wrapper.ensure_connection()
    found: sqlite3.Connection = wrapper.connection
    return found


def test_a_closed_connection_is_opened_again_by_another_thread(keeping: Callable[[], DatabaseWrapper]) -> None:
    seen: list[sqlite3.Connection] = []

    def use() -> None:
        wrapper = keeping()
        seen.append(opened(wrapper))
        with wrapper.cursor() as cursor:
            assert cursor.execute("pragma foreign_keys").fetchone() == (1,)
        wrapper.close()

    for _each in range(2):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert seen[0] is seen[1]


def test_no_more_connections_are_kept_than_was_said(keeping: Callable[[], DatabaseWrapper]) -> None:
    wrappers = [keeping() for _each in range(4)]
    made = [opened(wrapper) for wrapper in wrappers]
    assert len(set(map(id, made))) == 4
    for wrapper in wrappers:
        wrapper.close()
    with pytest.raises(sqlite3.ProgrammingError):
        made[3].execute("select 1")
    assert [opened(keeping()), opened(keeping())] == [made[1], made[0]]


def test_what_was_not_read_to_its_end_does_not_show_the_next_one_the_past(
    keeping: Callable[[], DatabaseWrapper],
) -> None:
    reader, writer = keeping(), keeping()
    cursor = reader.cursor()
    assert cursor.execute("select x from t").fetchone() == (0,)  # and it stays open
    connection = opened(reader)
    with writer.cursor() as other:
        other.execute("delete from t")
    reader.close()
    again = keeping()
    assert opened(again) is connection
    with again.cursor() as fresh:
        assert fresh.execute("select count(*) from t").fetchone() == (0,)


def test_what_was_left_within_a_transaction_is_closed(keeping: Callable[[], DatabaseWrapper]) -> None:
    wrapper = keeping()
    connection = opened(wrapper)
    connection.execute("begin immediate")
    connection.execute("delete from t")
    wrapper.close()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("select 1")
    with keeping().cursor() as cursor:
        assert cursor.execute("select count(*) from t").fetchone() == (500,)


def test_after_an_error_a_connection_is_not_used_again(keeping: Callable[[], DatabaseWrapper]) -> None:
    wrapper = keeping()
    connection = opened(wrapper)
    with pytest.raises(OperationalError), wrapper.cursor() as cursor:
        cursor.execute("select * from nothing")
    wrapper.close_if_unusable_or_obsolete()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("select 1")
    assert opened(keeping()) is not connection
