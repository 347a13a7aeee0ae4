"""The advanced part of the form for a new container: what the settings page has, and what the policy gives."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from containers.models import Container, local_host
from tests.web.world import make_host

pytestmark = pytest.mark.django_db
BASE = {"image": "busybox", "name": "web-1", "project": "team", "network": "default"}


@pytest.fixture(autouse=True)
def host():
    made = make_host()
    made.facts = {
        **made.facts,
        "policy": {
            "privileged": False,
            "shares": {
                "media": {"projects": ["team"], "read_only": True, "submounts": False},
                "vault": {"projects": ["other"], "read_only": False, "submounts": False},
            },
            "devices": {"fuse": {"projects": ["*"], "path": "/dev/fuse"}},
        },
    }
    made.save()
    return made


@pytest.fixture
def browser(alice):
    made = Client()
    made.force_login(alice)
    return made


def shown_fields(page: str) -> set[str]:
    return {
        name for name in ("swap", "cpu_weight", "cpuset", "security_nesting", "halt_signal") if f'name="{name}"' in page
    }


def test_the_form_has_what_the_settings_page_has(browser):
    page = browser.get("/containers/_create").content.decode()
    assert shown_fields(page) == {"swap", "cpu_weight", "cpuset", "security_nesting", "halt_signal"}
    assert 'value="media"' in page
    assert "vault" not in page, "what is for others is not offered"
    assert 'value="fuse"' in page
    assert page.count('name="memory"') == 1


def test_what_is_left_alone_is_not_asked_for(browser):
    fields = dict.fromkeys(("swap", "cpu_weight", "cpuset", "halt_signal"), "")
    answer = browser.post(
        "/containers/_create", {**BASE, **fields, "security_nesting_there": "1", "target_media": "/srv/media"}
    )
    assert answer.status_code == 302
    row = Container.objects.get(name="web-1")
    assert {name: value for name, value in row.limits.items() if value is not None} == {}
    assert (row.security, row.mounts, row.devices, row.halt_signal) == ({}, [], [], "")


def test_what_is_asked_for_is_in_the_row(browser):
    asked = {
        **BASE, "memory": "64", "memory_unit": "MiB", "swap": "32", "cpu_weight": "200", "halt_signal": "SIGTERM",
        "security_no_new_privs_there": "1", "security_no_new_privs": "1", "share": "media", "target_media": "/media",
        "device": "fuse",
    }  # fmt: skip
    assert browser.post("/containers/_create", asked).status_code == 302
    row = Container.objects.get(name="web-1")
    limits = {name: value for name, value in row.limits.items() if value is not None}
    assert limits == {"memory_bytes": 64 * 1024**2, "swap_bytes": 32 * 1024**2, "cpu_weight": 200}
    assert row.halt_signal == "SIGTERM"
    assert row.security["no_new_privs"] is True
    assert [(mount["share"], mount["target"]) for mount in row.mounts] == [("media", "/media")]
    assert [device["device"] for device in row.devices] == ["fuse"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("cpu_weight", "0", "must be between 1 and 10000."),
        ("swap", "much", "Give a size such as 512 MiB or 1.5 GiB."),
        ("halt_signal", "SIGNO", "Name a signal"),
    ],
)
def test_a_refusal_stands_at_its_field_and_the_form_is_as_it_was(browser, field, value, said):
    answer = browser.post("/containers/_create", {**BASE, field: value, "share": "media", "target_media": "/media"})
    assert answer.status_code == 422
    page = answer.content.decode()
    at = page.index(f'name="{field}"')
    assert said in page[at : page.index("</div>", at)]
    assert f'value="{value}"' in page[at : at + 200]
    assert re.search(r'name="share" value="media"\s+checked', page)
    assert 'value="/media"' in page
    assert not Container.objects.exists()


def test_what_the_policy_does_not_give_is_refused_there(browser):
    answer = browser.post("/containers/_create", {**BASE, "share": "vault"})
    assert answer.status_code == 422
    assert 'role="alert"' in answer.content.decode()
    nesting = browser.post("/containers/_create", {**BASE, "security_nesting_there": "1", "security_nesting": "1"})
    assert nesting.status_code == 422
    assert not Container.objects.exists()
    assert local_host().facts["policy"]["privileged"] is False
