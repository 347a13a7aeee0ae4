"""The pages of images: the list, one image, and a form for each of the ways to make one."""

from __future__ import annotations

from html import unescape

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext

from containers.models import Image, Operation, local_host
from containers.upkeep import rebuild
from panel.accounts.models import Project
from tests.web.world import make_container, make_host

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _host():
    make_host()
    host = local_host()
    host.facts = {**host.facts, "policy": {"directories": ["isos"]}}
    host.save()


def signed_in(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text(client: Client, url: str) -> str:
    return client.get(url).content.decode()


@pytest.mark.parametrize(
    ("kind", "form", "source"),
    [
        ("oci", {"reference": " alpine:3.20 ", "project": ""}, {"reference": "alpine:3.20"}),
        ("oci", {"reference": "ghcr.io/a/b", "project": "team"}, {"reference": "ghcr.io/a/b", "project": "team"}),
        (
            "file",
            {"directory": "isos", "path": "a.tar", "metadata": "", "sha256": ""},
            {"directory": "isos", "path": "a.tar"},
        ),
        (
            "simplestreams",
            {"server": "https://images.example.org", "alias": "alpine/3.22"},
            {"server": "https://images.example.org", "alias": "alpine/3.22"},
        ),
        ("url", {"url": " https://example.org/a.tar ", "sha256": ""}, {"url": "https://example.org/a.tar"}),
        ("debootstrap", {"suite": "trixie", "packages": "vim, curl"}, {"suite": "trixie", "packages": ["vim", "curl"]}),
    ],
)
def test_a_form_asks_for_an_image_as_the_api_does(root, team, kind, form, source):
    client = signed_in(root)
    assert f'value="{kind}"' in text(client, f"{reverse('pages:images')}?type={kind}")
    answer = client.post(reverse("pages:images"), {"type": kind, "name": "x", **form})
    assert answer.status_code == 302, answer.content.decode()
    assert Image.objects.get(name="x").source == {"type": kind, **source}
    assert Operation.objects.get(action="image-build").image.name == "x"


@pytest.mark.parametrize(
    ("kind", "form", "field"),
    [
        ("oci", {"reference": "A B"}, "i-reference"),
        ("oci", {"reference": ""}, "i-reference"),
        ("oci", {"reference": "127.0.0.1/x"}, "i-reference"),
        ("file", {"directory": "isos", "path": "../x"}, "i-path"),
        ("upload", {"upload": ""}, "i-file"),
    ],
)
def test_what_is_wrong_is_told_at_its_field_and_nothing_typed_is_lost(root, kind, form, field):
    answer = signed_in(root).post(reverse("pages:images"), {"type": kind, "name": "kept", **form})
    page = answer.content.decode()
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in page.split(f'id="{field}"')[1].split(">")[0]
    assert 'value="kept"' in page
    assert not Operation.objects.exists()


def test_a_container_of_ones_own_becomes_an_image(root, team):
    make_container(team)
    client = signed_in(root)
    page = text(client, f"{reverse('pages:images')}?type=container&container=web-1&snapshot=snap0")
    assert "<option selected>web-1</option>" in page
    assert (
        client.post(reverse("pages:images"), {"type": "container", "name": "x", "container": "web-1"}).status_code
        == 302
    )


def test_a_host_without_directories_says_so(root):
    host = local_host()
    host.facts = {"policy": {}}
    host.save()
    assert "images.directories" in text(signed_in(root), f"{reverse('pages:images')}?type=file")


def test_an_image_is_shown_with_what_it_runs_and_who_uses_it(root, team, bob, charlie):
    image = Image.objects.get(name="busybox")
    Image.objects.filter(pk=image.pk).update(
        state="ready",
        built_at=timezone.now(),
        size_bytes=5 << 20,
        layers=["a", "b"],
        defaults={
            "init_command": ["/bin/serve"],
            "init": {"kind": "application", "arguments": ["--port", "80"], "user": "www", "cwd": "/srv"},
            "environment": {"LANG": "C.UTF-8"},
            "halt_signal": "SIGQUIT",
        },
        details={"ports": ["80/tcp"], "digest": "sha256:ab", "labels": {"title": "<b>Serve</b>"}, "os": "debian"},
    )
    make_container(team)
    page = text(signed_in(bob), reverse("pages:image", args=["busybox"]))
    for words in ("/bin/serve --port 80", "www", "/srv", "SIGQUIT", "80/tcp", "sha256:ab", "LANG=C.UTF-8", "web-1"):
        assert words in page, words
    assert "<b>Serve</b>" not in page
    hidden = text(signed_in(charlie), reverse("pages:image", args=["busybox"]))
    assert "web-1" not in hidden
    assert "1 container of a project that you are not in" in hidden
    assert signed_in(root).get(reverse("pages:image", args=["none"])).status_code == 404


def test_who_is_no_host_administrator_is_shown_no_form(bob):
    page = text(signed_in(bob), reverse("pages:images"))
    assert '<form class="inline-form"' not in page
    assert signed_in(bob).post(reverse("pages:images"), {"type": "oci", "name": "x", "reference": "a"}).status_code in (
        403,
        422,
    )
    assert not Image.objects.filter(name="x").exists()


def test_what_the_panel_made_itself_is_described_in_the_readers_language(make_user) -> None:
    for name, (source, words) in rebuild.IMAGES.items():
        row = {"state": "absent", "source": source, "description": words}
        Image.objects.update_or_create(host=local_host(), name=name, defaults=row)
    Image.objects.create(host=local_host(), name="own", state="absent", source={"type": "busybox"}, description="Name")
    Project.objects.update_or_create(name=rebuild.DEFAULT, defaults={"description": "Everybody's first project."})
    client = signed_in(make_user("root", host_admin=True))
    german = {"Accept-Language": "de"}
    for address in (reverse("pages:images"), reverse("containers:create")):
        shown = unescape(client.get(address, headers=german).content.decode())
        for _source, words in rebuild.IMAGES.values():
            assert words not in shown
            assert translated_to_german(words) in shown
        assert words in unescape(client.get(address).content.decode())
        assert "Name" in shown  # somebody's own word stays
    one = client.get(reverse("pages:image", args=["busybox"]), headers=german)
    assert "Das statische BusyBox" in one.content.decode()
    assert "Das erste Projekt für alle." in client.get(reverse("pages:people"), headers=german).content.decode()
    assert Image.objects.get(name="busybox").description == rebuild.IMAGES["busybox"][1]


def test_only_who_makes_containers_is_offered_to_use_an_image(team, make_user):
    Image.objects.create(host=local_host(), name="own", state="ready", source={"type": "busybox"})
    use = f"{reverse('containers:create')}?image=own"
    for role, may in (("viewer", False), ("operator", False), ("administrator", True)):
        client = signed_in(make_user(f"{role}-1", team, role))
        assert (use in text(client, reverse("pages:image", args=["own"]))) is may
        listed = text(client, reverse("pages:images"))
        assert (use in listed) is may
        assert ("those create containers" in listed) is not may  # and why not


def translated_to_german(words: str) -> str:
    """Return a sentence in German, which it has."""
    with translation.override("de"):
        said = gettext(words)
    assert said != words
    return said
