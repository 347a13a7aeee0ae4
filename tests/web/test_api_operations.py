"""/operations: shape, waiting, cancelling."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable

import httpx
import pytest
from django.db import connection
from django.utils import timezone

from containers.api import answers, holding
from containers.models import Image, Network, Operation, local_host
from panel.accounts import tokens
from panel.handler import get_application
from tests.kernel.patience import patient
from tests.web.api import Api, assert_error
from tests.web.sockets import WAIT_SEC

pytestmark = pytest.mark.django_db


@pytest.fixture
def operation(alice):
    return Operation.objects.create(
        host=local_host(),
        action="start",
        container_name="web-1",
        object_name="web-1",
        project=alice.memberships.get().project,
        actor=alice,
        actor_name="alice",
    )


def test_an_operation_has_the_shape_of_the_contract(operation, alice):
    Operation.objects.filter(pk=operation.pk).update(
        status="failed",
        finished_at=timezone.now(),
        error={"code": "setup-failed", "message": "no init", "step": "exec", "errno": 2},
    )
    status, body = Api(alice).get(f"/operations/{operation.pk}")
    assert status == 200
    assert body["error"] == {
        "code": "setup-failed",
        "message": "no init",
        "step": "exec",
        "path": None,
        "errno": 2,
        "console": None,
    }
    assert (body["id"], body["action"], body["container"], body["actor"]) == (
        str(operation.pk),
        "start",
        "web-1",
        "alice",
    )
    for name in ("progress_pct", "message", "created_at", "finished_at"):
        assert name in body


def test_filters_and_order(operation, alice):
    newer = Operation.objects.create(
        host=operation.host, action="stop", container_name="db-1", object_name="db-1", project=operation.project
    )
    api = Api(alice)

    def ids(query: str) -> list[str]:
        return [row["id"] for row in api.get(f"/operations?{query}")[1]["items"]]

    assert ids("") == [str(newer.pk), str(operation.pk)]
    assert ids("container=web-1") == [str(operation.pk)]
    assert ids("status=queued&action=stop") == [str(newer.pk)]
    assert ids("status=failed") == []
    assert_error(api.get("/operations?status=unknown"), 422, "invalid-value", "status")


def test_pages_do_not_lose_or_repeat_rows(alice, operation):
    same = timezone.now()
    for number in range(5):
        Operation.objects.create(
            host=operation.host, action="x", object_name=str(number), project=operation.project, created_at=same
        )
    api = Api(alice)
    seen, path = [], "/operations?limit=2"
    while path:
        _status, page = api.get(path)
        seen += [row["id"] for row in page["items"]]
        path = page["next"]
    assert len(seen) == len(set(seen)) == 6


@pytest.mark.parametrize("operation_id", ["nothing", "1", str(uuid.uuid4()), "%00"])
def test_an_unknown_one_is_404(operation_id, alice):
    assert_error(Api(alice).get(f"/operations/{operation_id}"), 404, "not-found")
    assert_error(Api(alice).post(f"/operations/{operation_id}/cancel"), 404, "not-found")


def test_strangers_do_not_see_it(operation, charlie):
    assert_error(Api(charlie).get(f"/operations/{operation.pk}"), 404, "not-found")
    assert_error(Api(charlie).post(f"/operations/{operation.pk}/cancel"), 404, "not-found")


def test_who_may_only_look_may_not_cancel(operation, bob):
    assert_error(Api(bob).post(f"/operations/{operation.pk}/cancel"), 403, "forbidden")


def test_cancelling_what_waits_ends_it_at_once(operation, olga):
    status, body = Api(olga).post(f"/operations/{operation.pk}/cancel?wait=1")
    assert (status, body["status"]) == (200, "cancelled")


def test_cancelling_what_has_ended_is_409(operation, olga):
    Operation.objects.filter(pk=operation.pk).update(status="succeeded", finished_at=timezone.now())
    assert_error(Api(olga).post(f"/operations/{operation.pk}/cancel"), 409, "invalid-transition")


def test_wait_that_runs_out_answers_202(operation, alice):
    begin = time.monotonic()
    Image.objects.get_or_create(host=operation.host, name="busybox")
    Network.objects.get_or_create(host=operation.host, name="default", defaults={"number": 0, "ipv4": "10.1.1.1/24"})
    status, body = Api(alice).post("/containers?wait=0.4", {"name": "web-9", "image": "busybox"})
    assert (status, body["status"]) == (202, "queued")
    assert 0.4 <= time.monotonic() - begin < 30, "clamped, it would be a minute"


def test_wait_is_clamped():
    assert [answers._clamp(seconds) for seconds in (-5.0, 0.0, 1.5, 60.0, 1e9, float("inf"))] == [0, 0, 1.5, 60, 60, 60]


@pytest.mark.django_db(transaction=True)
def test_wait_sees_the_end_and_blocks_nobody(operation, alice, monkeypatch):
    """While 50 requests wait, none has a thread; who comes past the limit waits for nothing; all hear of the end."""
    monkeypatch.setattr(holding, "WAITING_MAX", 50)
    _row, secret = tokens.issue(alice, name="t")
    headers = {"Authorization": f"Bearer {secret}"}
    path = f"/api/v1/operations/{operation.pk}"
    before = threading.active_count()

    def finish() -> None:
        Operation.objects.filter(pk=operation.pk).update(status="failed", finished_at=timezone.now())
        connection.close()

    async def until(so: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SEC):
            while not so():
                await asyncio.sleep(0.02)

    async def main() -> None:
        transport = httpx.ASGITransport(app=get_application())
        client = httpx.AsyncClient(
            transport=transport, base_url="http://testserver", timeout=patient(60), headers=headers
        )
        waiting = [asyncio.create_task(client.get(f"{path}?wait=60")) for _ in range(50)]
        await until(lambda: holding.lookout().waiting == 50)
        # one that looks for all, and one of the event loop
        await until(lambda: threading.active_count() <= before + 4)
        begin = time.monotonic()
        for query in ("", "?wait=60"):
            assert (await client.get(path + query)).json()["status"] == "queued"
        assert time.monotonic() - begin < 30
        await asyncio.to_thread(finish)
        answered = await asyncio.gather(*waiting)
        assert {(one.status_code, one.json()["status"]) for one in answered} == {(200, "failed")}
        for header in ("Content-Security-Policy", "X-Frame-Options"):
            assert header in answered[0].headers
        assert int(answered[0].headers["Content-Length"]) == len(answered[0].content)
        assert holding.lookout().waiting == 0

    asyncio.run(main())


@pytest.mark.django_db(transaction=True)
def test_what_is_waited_for_may_go(operation, alice):
    """An operation that is not there any more ends the wait, with an error in the API's shape."""
    _row, secret = tokens.issue(alice, name="t")

    def forget() -> None:
        Operation.objects.all().delete()
        connection.close()

    async def main() -> None:
        transport = httpx.ASGITransport(app=get_application())
        client = httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=patient(60))
        path = f"/api/v1/operations/{operation.pk}?wait=60"
        waiting = asyncio.create_task(client.get(path, headers={"Authorization": f"Bearer {secret}"}))
        while not holding.lookout().waiting:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(forget)
        answer = await waiting
        assert_error((answer.status_code, answer.json()), 404, "not-found")

    asyncio.run(main())


def test_who_waits_is_let_go_where_nobody_can_look(monkeypatch):
    def broken(_matters: object) -> list[object]:
        raise RuntimeError("no thread")

    async def main() -> None:
        look = holding.Lookout()
        with monkeypatch.context() as during:
            during.setattr(holding, "_look_at", broken)
            with pytest.raises(RuntimeError, match="no thread"):
                await look.until("key", "id", lambda: (1, True), 60)
        assert look.waiting == 0
        assert await look.until("key", "id", lambda: (1, True), 60) == 1  # the next one is looked for again

    asyncio.run(main())
