"""exec, sessions, stats, history: what is refused before a supervisor or the ticker is asked, and when none answers."""

from __future__ import annotations

import time

import pytest

from containers.core.model.states import Status
from containers.models import Container, local_host
from panel.accounts.models import AuditRecord
from tests.web.api import Api, assert_error

pytestmark = pytest.mark.django_db


@pytest.fixture
def container(team, settings, tmp_path):
    settings.BOXROOM_RUN_DIR = tmp_path
    return Container.objects.create(
        host=local_host(), project=team, name="web-1", slot=1, machine_id="0" * 32, status=Status.RUNNING
    )


@pytest.mark.parametrize("present", [Status.STOPPED, Status.FROZEN, Status.ERROR])
def test_exec_needs_a_running_container(present, container, olga):
    Container.objects.update(status=present)
    assert_error(Api(olga).post("/containers/web-1/exec", {"command": ["true"]}), 409, "invalid-transition")


def test_exec_where_no_supervisor_listens_is_409(container, olga):
    assert_error(Api(olga).post("/containers/web-1/exec", {"command": ["true"]}), 409, "invalid-transition")


def test_the_trail_has_a_command_that_went_wrong_too(container, olga):
    Api(olga).post("/containers/web-1/exec", {"command": ["cat", "secret"]})
    record = AuditRecord.objects.get(action="container.exec")
    assert (record.outcome, record.object_name, record.project) == ("failed", "web-1", container.project.name)
    assert record.detail == {"program": "cat", "user": None, "code": "invalid-transition"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "command"),
        ({"command": "true"}, 400, "command"),
        ({"command": []}, 422, "command"),
        ({"command": [""]}, 422, "command"),
        ({"command": [1]}, 400, "command.0"),
        ({"command": ["a\0b"]}, 422, "command.0"),
        ({"command": ["true"], "cwd": "tmp"}, 422, "cwd"),
        ({"command": ["true"], "user": ""}, 422, "user"),
        ({"command": ["true"], "user": "a b"}, 422, "user"),
        ({"command": ["true"], "user": 0}, 400, "user"),
        ({"command": ["true"], "timeout": 0}, 422, "timeout"),
        ({"command": ["true"], "timeout": -1}, 422, "timeout"),
        ({"command": ["true"], "timeout": 10**9}, 422, "timeout"),
        ({"command": ["true"], "timeout": "1"}, 400, "timeout"),
        ({"command": ["true"], "encoding": "latin-1"}, 422, "encoding"),
        ({"command": ["true"], "encoding": "base64", "stdin": "???"}, 422, "stdin"),
        ({"command": ["true"], "max_output_bytes": 16 * 1024**2 + 1}, 422, "max_output_bytes"),
        ({"command": ["true"], "tty": True}, 400, "tty"),
    ],
)
def test_bad_commands(body, status, field, container, olga):
    got, answer = Api(olga).post("/containers/web-1/exec", body)
    assert (got, answer["field"]) == (status, field), answer


@pytest.mark.parametrize(("who", "status"), [("bob", 403), ("charlie", 404)])
def test_who_may_not_exec_or_see_terminals(who, status, request, container):
    api = Api(request.getfixturevalue(who))
    assert api.post("/containers/web-1/exec", {"command": ["true"]})[0] == status
    assert api.get("/containers/web-1/sessions")[0] == status
    assert api.delete("/containers/web-1/sessions/x")[0] == status


def test_what_does_not_run_has_no_terminals(container, olga):
    assert Api(olga).get("/containers/web-1/sessions") == (200, {"items": [], "next": None})


def test_without_a_ticker_measurements_are_503(container, bob):
    assert_error(Api(bob).get("/containers/web-1/stats"), 503, "unavailable")
    now = int(time.time())
    assert_error(Api(bob).get(f"/containers/web-1/history?from={now - 60}&to={now}"), 503, "unavailable")


@pytest.mark.parametrize(
    ("query", "status"), [("", 400), ("from=x&to=5", 400), ("from=9&to=5", 422), ("from=1&to=5&points=0", 422)]
)
def test_bad_spans(query, status, container, bob):
    assert Api(bob).get(f"/containers/web-1/history?{query}")[0] == status


def test_strangers_get_no_measurements(container, charlie):
    assert_error(Api(charlie).get("/containers/web-1/stats"), 404, "not-found")
    assert_error(Api(charlie).get("/containers/web-1/history?from=1&to=2"), 404, "not-found")
