"""Waiting for a state: at once where it is so, what passed by counts, and the time is kept."""

from __future__ import annotations

import asyncio
import time

import pytest
from django.db import connection
from django.test import AsyncClient

from containers.api import holding
from containers.asking import waiting
from containers.bookkeeping import records
from containers.models import Container
from panel.accounts import tokens
from tests.web.api import Api, assert_error
from tests.web.sockets import WAIT_SEC, until
from tests.web.world import make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]


def test_what_is_so_is_answered_at_once(alice, team):
    make_container(team)
    for wanted in ("stopped", "STOPPED|RUNNING", "frozen,stopped"):  # for longer than a test may take
        status, answer = Api(alice).get(f"/containers/web-1/wait?status={wanted}&timeout=3600")
        assert (status, answer) == (200, {"status": "stopped", "reached": "stopped"})


@pytest.mark.parametrize("timeout", [0, 0.4, 1.3])
def test_the_time_is_kept(alice, team, timeout):
    make_container(team)
    begun = time.monotonic()
    status, answer = Api(alice).get(f"/containers/web-1/wait?status=running&timeout={timeout}")
    assert (status, answer) == (200, {"status": "stopped", "reached": None})
    # the upper bound only tells a time-out that is kept from the default one, of a minute
    assert timeout <= time.monotonic() - begun < timeout + 30


def test_a_state_that_passed_by_is_seen(team):
    row = make_container(team)
    watch = waiting.begin(row)
    records.set_status(row, "running", "")
    records.set_status(row, "stopped", "exit")
    assert waiting.look(watch, frozenset({"running"})) == waiting.Seen("stopped", "running")
    assert waiting.look(waiting.begin(row), frozenset({"running"})) == waiting.Seen("stopped", None)


def test_the_end_of_a_container_is_a_state(team):
    row = make_container(team)
    watch = waiting.begin(row)
    Container.objects.all().delete()
    assert waiting.look(watch, frozenset({"deleted"})) == waiting.Seen("deleted", "deleted")


@pytest.mark.parametrize(
    ("query", "status", "code", "field"),
    [
        ("status=asleep", 422, "invalid-value", "status"),
        ("status=", 422, "invalid-value", "status"),
        ("status=running&timeout=-1", 422, "invalid-value", "timeout"),
        ("status=running&timeout=3601", 422, "invalid-value", "timeout"),
        ("status=running&timeout=nan", 422, "invalid-value", "timeout"),
    ],
)
def test_what_is_refused(alice, team, query, status, code, field):
    make_container(team)
    assert_error(Api(alice).get(f"/containers/web-1/wait?{query}"), status, code, field)


def test_strangers_wait_for_nothing(make_user, team):
    make_container(team)
    assert_error(Api(make_user("eve")).get("/containers/web-1/wait?status=stopped"), 404, "not-found")


@pytest.mark.django_db(transaction=True)
def test_it_is_answered_when_it_happens(alice, team):
    row = make_container(team)
    _row, secret = tokens.issue(alice, name="test")

    def happen():
        records.set_status(Container.objects.get(pk=row.pk), "running", "")
        connection.close()

    async def wait():
        path = "/api/v1/containers/web-1/wait?status=running&timeout=3600"
        call = AsyncClient().get(path, headers={"Authorization": f"Bearer {secret}"})
        answer = asyncio.create_task(call)
        await until(lambda: holding.lookout().waiting)
        assert not answer.done()
        await asyncio.to_thread(happen)
        async with asyncio.timeout(WAIT_SEC):
            return await answer

    assert asyncio.run(wait()).json() == {"status": "running", "reached": "running"}
