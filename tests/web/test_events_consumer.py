"""/ws/events: tells what changed, to those who may see it."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from containers.consumers.events import descriptions
from containers.core.model.states import Status
from containers.messaging import notices
from containers.models import Container, Event, Operation, local_host
from panel.accounts import services, tokens
from panel.accounts.actor import Actor
from panel.asgi import application
from tests.web.sockets import Socket, until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def container(team):
    return Container.objects.create(
        host=local_host(), project=team, name="web-1", slot=1, machine_id="0" * 32, status=Status.RUNNING
    )


class Page:
    """One open socket, and what it was told."""

    def __init__(self, user: Any) -> None:
        self.user = user
        _row, secret = tokens.issue(user, name="socket")
        headers = [(b"authorization", f"Bearer {secret}".encode())]
        self.socket = Socket(application, "/ws/events", headers=headers)

    async def open(self) -> Page:
        before = len(notices.hub()._subscriptions)
        assert (await self.socket.connect())[0]
        # its listener subscribes in a task of its own
        await until(lambda: len(notices.hub()._subscriptions) > before)
        return self

    async def told(self) -> dict[str, Any]:
        message: dict[str, Any] = await self.socket.receive_json_from()
        return message

    async def told_nothing(self) -> bool:
        """Whether nothing came before something that is told to everybody."""
        tell("user", self.user.pk)
        return await self.told() == {"type": "resync"}


def tell(kind: str, object_id: object, **more: Any) -> None:
    """Pass a notice on as if it had come over Redis."""
    notices.hub().tell({"kind": kind, "id": str(object_id), **more})


async def test_a_change_is_told_to_those_who_may_see_it(alice, charlie, container):
    operation = await sync_to_async(Operation.objects.create)(
        host=container.host,
        action="stop",
        container=container,
        container_name="web-1",
        object_name="web-1",
        project=container.project,
    )
    hers, strangers = [await (await sync_to_async(Page)(user)).open() for user in (alice, charlie)]
    tell("container", container.pk)
    assert await hers.told() == {
        "type": "container.changed",
        "name": "web-1",
        "project": "team",
        "status": "running",
        "operation": str(operation.pk),
    }
    tell("operation", operation.pk)
    assert await hers.told() == {
        "type": "operation.changed",
        "id": str(operation.pk),
        "action": "stop",
        "container": "web-1",
        "status": "queued",
        "progress_pct": 0,
    }
    event = await sync_to_async(Event.objects.create)(container=container, kind="oom", at=timezone.now())
    tell("event", event.pk, container=container.pk, event="oom")
    told = await hers.told()
    assert (told["type"], told["name"], told["event"]) == ("container.event", "web-1", "oom")
    tell("container-deleted", "0" * 12, name="old", project="team", project_id=container.project_id)
    assert await hers.told() == {"type": "container.deleted", "name": "old"}
    # there is another of its name by now: whoever looks at that one stays there
    tell("container-deleted", "0" * 12, name="web-1", project="team", project_id=container.project_id)
    told = await hers.told()
    assert (told["type"], told["name"]) == ("container.changed", "web-1")
    assert await strangers.told_nothing()
    for page in (hers, strangers):
        await page.socket.disconnect()


async def test_after_a_loss_of_redis_the_page_is_told_to_look_at_everything(alice):
    page = await (await sync_to_async(Page)(alice)).open()
    tell("resync", "")
    assert await page.told() == {"type": "resync"}
    await page.socket.disconnect()


@pytest.mark.parametrize("object_id", ["", "x", "\0", "9" * 30, "../.."])
async def test_nonsense_on_the_channel_harms_nobody(object_id, alice, container):
    page = await (await sync_to_async(Page)(alice)).open()
    for kind in ("container", "container-deleted", "event", "operation", "image", "network", "unknown"):
        tell(kind, object_id)
    tell("container", container.pk)
    assert (await page.told())["type"] == "container.changed"
    await page.socket.disconnect()


def test_many_notices_cost_as_many_queries_as_a_few(alice, charlie, container, django_assert_num_queries):
    rows = [
        Container.objects.create(
            host=container.host, project=container.project, name=f"many-{n}", slot=10 + n, machine_id=f"{n:032x}"
        )
        for n in range(20)
    ]
    happened = [Event.objects.create(container=row, kind="status", old="stopped", new="running") for row in rows]
    found = []
    for row, event in zip(rows, happened, strict=True):
        found += [{"kind": "event", "id": str(event.pk)}, {"kind": "container", "id": row.pk}]
    with django_assert_num_queries(3):
        parts = list(descriptions(alice, found))
    assert [[(one["type"], one["name"]) for one in part] for part in parts] == [
        [(kind, row.name) for row in rows] for kind in ("container.event", "container.changed")
    ]
    assert [message for part in descriptions(charlie, found) for message in part] == []


async def test_a_withdrawn_role_is_told_and_hides_at_once(bob, alice, container):
    page = await (await sync_to_async(Page)(bob)).open()
    await sync_to_async(services.remove_member)(Actor(alice), "team", "bob")
    tell("user", bob.pk)
    assert await page.told() == {"type": "resync"}
    tell("container", container.pk)
    assert await page.told_nothing()
    await page.socket.disconnect()


async def test_a_disabled_users_socket_is_closed(bob, root):
    page = await (await sync_to_async(Page)(bob)).open()
    await sync_to_async(services.set_active)(Actor(root), "bob", active=False)
    tell("user", bob.pk)
    told = await page.told()
    assert (told["type"], told["code"]) == ("error", "unauthenticated")
    assert (await page.socket.receive_output())["code"] == 4401


async def test_messages_from_the_page_are_refused(alice):
    page = await (await sync_to_async(Page)(alice)).open()
    await page.socket.send_json_to({"type": "websocket.disconnect"})
    assert (await page.told())["code"] == "bad-request"
    assert (await page.socket.receive_output())["code"] == 4400


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], 4403),
        ([(b"origin", b"http://evil.example")], 4403),
        ([(b"origin", b"http://localhost:9999")], 4403),
        ([(b"origin", b"http://localhost:8080")], 4401),
        ([(b"authorization", b"Bearer wrong")], 4401),
    ],
)
async def test_who_may_not_open_it(headers, code, db):
    socket = Socket(application, "/ws/events", headers=headers)
    assert (await socket.connect())[0]
    assert (await socket.receive_json_from())["type"] == "error"
    assert (await socket.receive_output())["code"] == code
