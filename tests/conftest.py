"""What every test may use: the people of one team, and the rows that a new installation has.

Without DATABASE_URL the database is an SQLite file, not one in memory: threads and their locks are then the real ones.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("BOXROOM_ROLE", "test")

# An example may take as long as a busy machine lets it; and every run tries the same ones, so that what fails can be
# made to fail again. --hypothesis-profile=default tries others.
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


def pytest_configure() -> None:
    """Have SIGTERM end a run as ^C does: what its tests have running is cleared away."""
    own_pid = os.getpid()

    def interrupt(number: int, _frame: object) -> None:
        # a handler, which no program that is started from now on inherits: the clearing away is not to be cut short
        signal.signal(number, lambda _number, _frame: None)
        if os.getpid() == own_pid:
            raise KeyboardInterrupt
        # a fork of a test's ends as every process does
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, interrupt)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put the SQLite test database into a file of its own, with the settings of the real one."""
    from django.conf import settings
    from django.db import connections

    if connections["default"].vendor == "sqlite":
        path = tmp_path_factory.mktemp("database") / "test.sqlite3"
        for values in (connections["default"].settings_dict, settings.DATABASES["default"]):
            values.setdefault("TEST", {})["NAME"] = str(path)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: object) -> Iterator[None]:
    """End what threads of the tests still hold of a PostgreSQL database: it cannot be dropped while they do."""
    from django.db import connections

    yield
    if connections["default"].vendor == "postgresql":
        others = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with django_db_blocker.unblock(), connections["default"].cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute(others)


@pytest.fixture
def make_user(db: None) -> Callable[..., object]:
    """Return a function that makes a user with a role in a project."""
    from panel.accounts.models import Membership, User

    def make(name: str, project: object = None, role: str = "viewer", *, host_admin: bool = False) -> User:
        user = User.objects.create_user(name, host_admin=host_admin)
        if project is not None:
            Membership.objects.create(user=user, project=project, role=role)
        return user

    return make


@pytest.fixture
def team(db: None):
    """The project of alice, olga and bob."""
    from panel.accounts.models import Project

    return Project.objects.create(name="team")


@pytest.fixture
def alice(make_user, team):
    """Administrator of the team."""
    return make_user("alice", team, "administrator")


@pytest.fixture
def olga(make_user, team):
    """Operator in the team."""
    return make_user("olga", team, "operator")


@pytest.fixture
def bob(make_user, team):
    """Viewer in the team."""
    return make_user("bob", team, "viewer")


@pytest.fixture
def charlie(make_user):
    """A stranger: signed in, a member of nothing."""
    return make_user("charlie")


@pytest.fixture
def root(make_user):
    """A host administrator."""
    return make_user("root", host_admin=True)


@pytest.fixture
def project_root() -> Path:
    """Where the clone is."""
    return Path(__file__).resolve().parent.parent
