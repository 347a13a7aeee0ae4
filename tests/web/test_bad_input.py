"""What nobody means to send: halves of characters, odd addresses, forms full of nonsense. Clear words, nothing made."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from containers.core.states import Status
from containers.models import Container, Image, Network, Operation, local_host
from tests.web.api import Api, assert_error

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
