"""What nobody means to send: halves of characters, odd addresses, forms full of nonsense. Clear words, nothing made."""

from __future__ import annotations

import json
import re

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.test import Client
from django.urls import reverse

from containers.core.model.states import Status
from containers.models import Container, Image, Network, Operation, local_host
from panel.asgi import application
from tests.web.api import Api, assert_error
from tests.web.sockets import Socket

pytestmark = pytest.mark.django_db

HALF = "\ud800"
"""Half of a surrogate pair: JSON can name it, nothing can encode it."""
GOOD = {"name": "web-1", "image": "busybox", "project": "team"}


@pytest.fixture(autouse=True)
def host(settings, tmp_path):
    settings.STATIC_ROOT = tmp_path
    row = local_host()
    row.facts = {"memory_bytes": 8 * 2**30, "cpus": 2, "pids": 32768}
    row.save()
    Image.objects.create(host=row, name="busybox", state="ready", source={"type": "busybox"})
    Network.objects.create(host=row, name="default", number=0, ipv4="10.90.3.1/24", ipv6="fd00:3::1/64")
    return row


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"name": HALF}, "name"),
        ({"description": HALF}, "description"),
        ({"environment": {"A": HALF}}, "environment.A"),
        ({"environment": {HALF: "a"}}, "environment"),
        ({"init_command": [f"/{HALF}"]}, "init_command.0"),
        ({"halt_signal": HALF}, "halt_signal"),
    ],
)
def test_half_a_character_is_422(more, field, alice):
    status, answer = Api(alice).post("/containers", {**GOOD, **more})
    assert (status, answer["code"]) == (422, "invalid-value")
    assert answer["field"].startswith(field.split(".")[0])
    assert not Container.objects.exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"command": [HALF]}, "command.0"),
        ({"command": ["cat"], "stdin": HALF}, "stdin"),
        ({"command": ["true"], "environment": {"A": HALF}}, "environment.A"),
        ({"command": ["true"], "cwd": f"/{HALF}"}, "cwd"),
    ],
)
def test_half_a_character_in_exec_is_422(body, field, olga, team):
    Container.objects.create(
        host=local_host(), project=team, name="web-1", slot=1, machine_id="0" * 32, status=Status.RUNNING
    )
    assert_error(Api(olga).post("/containers/web-1/exec", body), 422, "invalid-value", field)


@pytest.mark.parametrize(
    "body",
    [{"name": HALF}, {"name": "a\nb"}, {"name": "a", "expires_at": "9999-12-31T23:59:59-23:59"}],
)
def test_a_token_with_nonsense_is_422(body, alice):
    status, answer = Api(alice).post("/tokens", body)
    assert (status, answer["code"]) == (422, "invalid-value")
    assert answer["field"] in body


@pytest.mark.parametrize(
    ("mirror", "status", "code"),
    [
        ("http://[::1/", 422, "invalid-value"),
        ("http://a:99999/", 422, "invalid-value"),
        ("http://a℀b/", 422, "invalid-value"),
        ("file:///etc", 422, "invalid-value"),
        ("http://127.1/", 403, "policy"),
        ("http://0x7f.1/", 403, "policy"),
        ("http://2130706433/", 403, "policy"),
        ("http://[::ffff:10.0.0.1]/", 403, "policy"),
        ("http://localhost./", 403, "policy"),
    ],
)
def test_an_odd_mirror_is_refused_at_once(mirror, status, code, root):
    source = {"type": "debootstrap", "suite": "bookworm", "mirror": mirror}
    assert_error(Api(root).post("/images", {"name": "odd", "source": source}), status, code, "source.mirror")
    assert not Operation.objects.exists()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v2/containers", "/api/v1/containers/a/b/c"])
def test_an_unknown_path_is_404_for_every_method(method, path, alice):
    strict = Api(alice)
    strict.client = Client(enforce_csrf_checks=True)
    assert_error(strict.call(method, path, {}), 404, "not-found")


@pytest.fixture
def browser(alice) -> Client:
    client = Client()
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


FORM_ERRORS = [
    *(("name", value) for value in ("", "..", "/", "a" * 64, "a\nb", "a\0b", "Web", "-web", "wéb", "ｗeb", "\u200b")),
    *(("memory", value) for value in ("0", "-1", "1", "99999999", "much", "1e9", "NaN", "\0", "½")),
    *(("cpus", value) for value in ("0", "-1", "99999", "two", "nan", "inf", "1e400", "1_0x")),
    *(("pids", value) for value in ("0", "-1", "7", "99999999999", "1.5", "many", "9" * 5000)),
    *(("image", value) for value in ("", "none", "../busybox", "a\0b")),
    *(("tags", value) for value in ("Web", "a_b", "ü")),
    *(("description", value) for value in ("x" * 501, "a\0b", "a\x1b[2J")),
    *(("restart", value) for value in ("sometimes", "a\0")),
    *(("init_command", value) for value in ("init", "'", "/a\0")),
    *(("environment", value) for value in ("A", "1=2", "A=\0", "=x")),
    *(("network", value) for value in ("none", "a\0b")),
    *(("project", value) for value in ("none", "a\0b")),
]


@pytest.mark.parametrize(("field", "value"), FORM_ERRORS)
def test_a_form_with_nonsense_comes_back_with_the_error_at_its_field(field, value, browser):
    form = {**GOOD, "memory": "64", "memory_unit": "MiB", field: value}
    answer = browser.post(reverse("containers:create"), form)
    assert answer.status_code == 422, (field, value)
    page = answer.content.decode()
    place = {"init_command": "init"}.get(field, field)
    assert re.search(rf'id="e-{place}"[^>]*>\s*<p class="error">', page), field
    assert not Container.objects.exists()
    assert not Operation.objects.exists()


FOREIGN = (
    "http://evil.example",
    "null",
    "http://testserver:8081",
    "https://testserver",
    "http://testserver.evil.example",
)


@pytest.fixture
def strict(alice) -> Client:
    """A browser that is signed in and has the page's token, in which another site's page could run."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    client.get("/containers/_create")
    return client


@pytest.mark.parametrize("origin", [*FOREIGN, "http://testserver"])
def test_a_foreign_origin_changes_nothing_although_cookie_and_token_are_right(origin, strict, team):
    token = {"X-CSRFToken": strict.cookies["boxroom_csrftoken"].value, "Origin": origin}
    row = Container.objects.create(host=local_host(), project=team, name="web-0", slot=1, machine_id="0" * 32)
    own = origin == "http://testserver"
    api = strict.post("/api/v1/containers", GOOD, content_type="application/json", headers=token)
    form = strict.post(reverse("containers:create"), {**GOOD, "name": "web-2"}, headers=token)
    act = strict.post(reverse("containers:act", args=[row.name, "start"]), headers=token)
    if own:
        assert (api.status_code, Container.objects.count()) == (202, 3)
        assert {form.status_code, act.status_code} <= {200, 202, 204, 302, 303}
        return
    assert_error((api.status_code, api.json()), 403, "forbidden")
    assert (form.status_code, act.status_code) == (403, 403)
    assert all(
        "another address" in told for told in (api.json()["message"], form.content.decode(), act.content.decode())
    )
    assert Container.objects.count() == 1
    assert not Operation.objects.exists()


@pytest.mark.parametrize("cookie", ["a" * 32, "", "../../etc/passwd", "\xff" * 9, "x" * 4000, "1' OR '1'='1"])
def test_a_forged_session_is_nobody(cookie, team):
    Container.objects.create(host=local_host(), project=team, name="web-0", slot=1, machine_id="0" * 32)
    client = Client(enforce_csrf_checks=True)
    client.cookies["boxroom_sessionid"] = cookie
    page = client.get("/containers/web-0")
    assert (page.status_code, page.headers["Location"].partition("?")[0]) == (302, "/sign-in")
    for method in ("get", "patch", "delete"):
        answer = getattr(client, method)("/api/v1/containers/web-0")
        assert_error((answer.status_code, answer.json()), 401, "unauthenticated")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/ws/containers/web-0/terminal", "/ws/events", "/ws/stats"])
async def test_a_foreign_page_opens_no_socket_with_its_visitors_cookie(path, strict, team):
    await sync_to_async(Container.objects.create)(
        host=await sync_to_async(local_host)(), project=team, name="web-0", slot=1, machine_id="0" * 32
    )
    cookie = ("boxroom_sessionid=" + strict.cookies["boxroom_sessionid"].value).encode()
    for origin, told in [*((one, 4403) for one in (*FOREIGN, "")), (settings.BOXROOM_ORIGINS[0], None)]:
        headers = [(b"cookie", cookie), (b"host", b"testserver"), *([(b"origin", origin.encode())] if origin else [])]
        socket = Socket(application, path, headers=headers)
        opened, code = await socket.connect()
        if opened and told:
            while (message := await socket.receive_output())["type"] != "websocket.close":
                assert json.loads(message["text"])["type"] == "error"
            code = message["code"]
        assert (code if told else opened) == (told or True), origin
        await socket.disconnect()
