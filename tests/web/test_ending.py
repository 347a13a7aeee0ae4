"""The overview of a container that does not run: when it ended, why, by whom, and what to do next."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from django.test import Client
from django.utils import timezone

from containers.models import Event, Operation
from containers.showing.ending import ending
from containers.showing.rows import listed, row_of
from tests.web.world import exited, make_container, make_host

pytestmark = pytest.mark.django_db


@pytest.fixture
def make(team):
    make_host()

    def made(**columns):
        return make_container(team, "web-1", **columns)

    return made


def of(user):
    return ending(row_of(user, listed(user).get(name="web-1")))


def page(user):
    browser = Client()
    browser.force_login(user)
    return browser.get("/containers/web-1").content.decode()


def test_what_runs_has_not_ended(make, bob):
    make(status="running")
    assert of(bob) is None
    assert 'data-stat="memory_bytes"' in page(bob)


def test_what_never_ran_says_so(make, bob):
    make(status="stopped", last_exit=None)
    found = of(bob)
    assert (found.at, found.why, found.who, found.ran) == (None, "It has not run yet.", "", None)
    assert 'data-stat="memory_bytes"' not in page(bob), "no tiles full of dashes"


def test_what_is_being_made_says_how_far_it_is_and_leads_to_its_log(make, bob):
    row = make(status="stopped", last_exit=None)
    work = Operation.objects.create(
        host=row.host, project=row.project, container=row, container_name="web-1", object_name="web-1", action="create"
    )
    log = f'<a href="/operations/{work.pk}">'
    assert log not in page(bob), "what is over in a moment moves nothing on the page"
    Operation.objects.update(status="running", progress_pct=35, message="Extracting bash")
    assert re.search(rf"Extracting bash\s+{re.escape(log)}", page(bob))


def test_a_stop_names_who_asked_and_how_long_it_had_run(make, bob):
    now = timezone.now()
    row = make(status="stopped", started_at=now - dt.timedelta(hours=3), last_exit=exited("stopped"))
    Event.objects.create(container=row, kind="status", old="running", new="stopped", actor_name="alice")
    found = of(bob)
    assert (found.why, found.who) == ("It was stopped.", "alice")
    assert found.ran == pytest.approx(dt.timedelta(hours=3), abs=dt.timedelta(minutes=1))
    shown = page(bob)
    assert "by alice" in shown
    assert "It had run for 3\xa0hours." in shown


@pytest.mark.parametrize(
    ("last", "why", "where"),
    [
        (exited("oom"), "It ran out of memory.", "/containers/web-1/settings"),
        (exited("exit", 3), "Its init ended (exit code 3).", "/containers/web-1/log"),
        (exited("start-failed"), "It did not start.", "/containers/web-1/settings"),
        (exited("host-reboot"), "The host was restarted.", "/containers/web-1/settings"),
        (exited("poweroff"), "It was powered off from inside.", "/containers/web-1/log"),
    ],
)
def test_each_end_has_its_reason_and_what_helps(make, alice, last, why, where):
    make(status="stopped", last_exit=last)
    found = of(alice)
    assert found.why == why
    assert where in [step[1] for step in found.steps]
    assert found.who == ""


def test_a_viewer_is_told_who_may_start_it(make, bob, olga):
    make(status="stopped", last_exit=exited("exit", 1))
    assert ("Your role in this project does not allow it: operators and administrators may.", "") in of(bob).steps
    assert all(where for _text, where in of(olga).steps)


def test_an_error_says_what_is_wrong(make, bob):
    make(status="error", status_reason="The container is gone.", last_exit=None)
    assert of(bob).why == "The container is gone."


def test_theme_and_language_are_chosen_where_one_is(make, bob):
    make(status="running")
    browser = Client()
    browser.force_login(bob)
    where = "/containers/web-1"
    referer = {"Referer": f"http://testserver{where}"}
    done = browser.post("/account/preferences", {"theme": ["", "dark"], "language": "de"}, headers=referer)
    assert (done.status_code, done.headers["Location"]) == (302, where)
    shown = browser.get(where).content.decode()
    assert '<html lang="de" data-theme="dark">' in shown
    assert re.search(r'name="theme" value="dark"\s+aria-pressed="true"', shown)
    bob.refresh_from_db()
    assert (bob.theme, bob.language) == ("dark", "de")
    elsewhere = browser.post("/account/preferences", {"theme": ""}, headers={"Referer": "https://evil.example/x"})
    assert elsewhere.headers["Location"] == "/"
