"""/audit and its page: who sees which records, and the filters."""

from __future__ import annotations

import csv
import datetime as dt
import html
import io
import re
import uuid

import pytest
from django.test import Client

from panel.accounts import audit
from panel.accounts.actor import Actor
from panel.accounts.models import AuditRecord, Project
from tests.web.api import Api, assert_error

pytestmark = pytest.mark.django_db


@pytest.fixture
def trail(alice, bob, charlie):
    Project.objects.create(name="secret")
    operation = uuid.uuid4()
    audit.record(Actor(alice, "10.0.0.1"), "container.start", "container", "web-1", project="team", operation=operation)
    audit.record(Actor(bob, "10.0.0.2"), "container.stop", "container", "web-2", project="team", outcome="denied")
    audit.record(Actor(charlie, "fd00::1"), "snapshot.create", "container", "db", project="secret")
    return operation


def test_a_record_has_the_shape_of_the_contract(trail, root):
    _status, body = Api(root).get("/audit?actor=alice")
    (row,) = body["items"]
    expected = {
        "actor": "alice",
        "action": "container.start",
        "object": "web-1",
        "project": "team",
        "source_ip": "10.0.0.1",
        "outcome": "succeeded",
        "operation": str(trail),
    }
    assert {name: row[name] for name in expected} == expected
    assert row["at"].endswith("Z")


@pytest.mark.parametrize(
    ("query", "objects"),
    [
        ("", ["db", "web-2", "web-1"]),
        ("actor=bob", ["web-2"]),
        ("action=container", ["web-2", "web-1"]),
        ("action=container.stop", ["web-2"]),
        ("action=cont", []),
        ("object=db", ["db"]),
        ("project=team", ["web-2", "web-1"]),
        ("source_ip=10.0.0.2", ["web-2"]),
        ("source_ip=FD00:0::1", ["db"]),
        ("source_ip=nonsense", []),
        ("outcome=denied", ["web-2"]),
        ("since=2001-01-01T00:00:00Z&until=2002-01-01T00:00:00Z", []),
    ],
)
def test_filters(query, objects, trail, root):
    assert [row["object"] for row in Api(root).get(f"/audit?{query}")[1]["items"]] == objects


def test_filters_by_time_and_operation(trail, root):
    api = Api(root)
    (row,) = api.get(f"/audit?operation={trail}")[1]["items"]
    found = api.get(f"/audit?at={row['at']}")[1]["items"]
    assert row in found
    assert_error(api.get("/audit?operation=x"), 400, "bad-request", "operation")
    assert api.get("/audit?at=x")[0] in (400, 422)


def test_who_sees_what(trail, alice, bob, charlie):
    def objects(user):
        return [row["object"] for row in Api(user).get("/audit")[1]["items"]]

    assert objects(alice) == ["web-2", "web-1"]  # an administrator: all of his project
    assert objects(bob) == ["web-2"]  # a viewer: his own
    assert objects(charlie) == ["db"]


def test_control_characters_never_reach_the_reader(root):
    audit.record(Actor(root), "x", "container", "a\x1b[2J\u202eb\n")
    _status, body = Api(root).get("/audit")
    assert body["items"][0]["object"] == "a\\x1b[2J\\u202eb\\n"


# -- the page, and its table --------------------------------------------------------------------------------------


def signed_in(user) -> Client:
    client = Client()
    client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def test_the_page_filters_by_the_whole_word_by_parts_of_names_and_by_days(trail, root, alice):
    audit.record(Actor(alice), "container.start-again", "container", "web-9", project="team")
    AuditRecord.objects.filter(object_name="db").update(at=dt.datetime(2026, 2, 3, 12, tzinfo=dt.UTC))
    page = signed_in(root)
    for query, shown in (
        ("action=container.start", {"web-1"}),
        ("action=container", {"web-1", "web-2", "web-9"}),
        ("actor=lic&object_name=WEB-1", {"web-1"}),
        ("since=2026-02-03&until=2026-02-03", {"db"}),
        ("until=2026-02-02", set()),
        ("outcome=denied&project=team", {"web-2"}),
        ("since=2026-99-99&until=yesterday&project=secret", {"db"}),
    ):
        text = page.get(f"/audit/?{query}").content.decode()
        cells = set(re.findall(r"<td>(web-\d|db) ", text))
        assert cells == shown, query
        assert "Clear filters" in text
    assert "Clear filters" not in page.get("/audit/").content.decode()


def test_the_table_holds_what_the_filters_leave_and_one_may_see(trail, root, bob):
    audit.record(Actor(root), "container.start", "container", "=1+1", project="team")
    text = signed_in(root).get("/audit/?action=container.start&page=1").content.decode()
    link = html.unescape(re.search(r'href="(/audit/table\.csv[^"]*)"', text)[1])
    answer = signed_in(root).get(link)
    assert answer["Content-Type"].startswith("text/csv")
    assert "attachment" in answer["Content-Disposition"]
    assert "no-store" in answer["Cache-Control"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert [(row["actor"], row["object"], row["project"]) for row in rows] == [
        (root.username, "'=1+1", "team"),  # no formula to a spreadsheet
        ("alice", "web-1", "team"),
    ]
    assert rows[1]["at"].endswith("Z")
    assert rows[1]["operation"] == str(trail)
    mine = csv.DictReader(io.StringIO(signed_in(bob).get("/audit/table.csv").content.decode()))
    assert {row["object"] for row in mine} == {"web-2", "bob"}  # what he did, and that he signed in
    assert Client().get("/audit/table.csv").status_code == 302
