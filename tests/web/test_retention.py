"""What is older than it is kept goes; what is not, or has not ended, stays."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from containers.models import Event, Operation, local_host
from containers.upkeep import retention
from containers.upkeep.sealing import Chain
from panel.accounts import audit
from panel.accounts.models import AuditRecord, Project, SignInLink, User
from tests.web.world import make_container

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path / "audit.json")


def operation(*, age: dt.timedelta, status: str = "succeeded") -> Operation:
    then = timezone.now() - age
    return Operation.objects.create(
        host=local_host(), action="image-build", object_name="x", actor_name="system", status=status, log="words",
        created_at=then, finished_at=then if status == "succeeded" else None,
    )  # fmt: skip


def test_operations_lose_their_log_first_and_go_later(chain):
    young = operation(age=retention.LOGS / 2)
    quiet = operation(age=retention.LOGS * 2)
    old = operation(age=retention.OPERATIONS * 2)
    waiting = operation(age=retention.OPERATIONS * 2, status="queued")
    retention.sweep(chain)
    assert dict(Operation.objects.values_list("pk", "log")) == {young.pk: "words", quiet.pk: "", waiting.pk: "words"}
    assert not Operation.objects.filter(pk=old.pk).exists()


def test_events_and_audit_records_go_in_their_time(monkeypatch, chain):
    monkeypatch.setattr(retention, "CHUNK", 2)
    container = make_container(Project.objects.get_or_create(name="team")[0])
    now = timezone.now()
    for age in (dt.timedelta(days=1), *[retention.EVENTS * 2] * 5):
        Event.objects.create(container=container, kind="oom", at=now - age)
    for age, outcome in (
        (retention.EVENTS, audit.Outcome.SUCCEEDED),
        (retention.AUDIT * 2, audit.Outcome.DENIED),
        (retention.AUDIT * 2, audit.Outcome.PENDING),
    ):
        record = audit.record(None, "container.start", "container", "web-1", outcome=outcome)
        AuditRecord.objects.filter(pk=record.pk).update(at=now - age)
    chain.seal()
    retention.sweep(chain)
    assert Event.objects.filter(kind="oom").count() == 1
    assert sorted(AuditRecord.objects.values_list("outcome", flat=True)) == ["pending", "succeeded"]
    assert retention.sweep(chain) == 0


def test_ended_sessions_and_links_go(chain):
    now = timezone.now()
    user = User.objects.create(username="alice")
    for key, end in (("gone", now - dt.timedelta(seconds=1)), ("there", now + dt.timedelta(hours=1))):
        Session.objects.create(session_key=key, session_data="", expire_date=end)
        SignInLink.objects.create(user=user, digest=key, expires_at=end - retention.LINKS)
    SignInLink.objects.filter(digest="there").update(expires_at=now)
    retention.sweep(chain)
    assert list(Session.objects.values_list("session_key", flat=True)) == ["there"]
    assert list(SignInLink.objects.values_list("digest", flat=True)) == ["there"]


class Clocks:
    """A clock that people set, and one that nobody does."""

    def __init__(self) -> None:
        self.now = timezone.now()
        self.ticks = 5000.0

    def __call__(self) -> tuple[dt.datetime, float]:
        return self.now, self.ticks

    def pass_time(self, by: dt.timedelta) -> None:
        self.now += by
        self.ticks += by.total_seconds()


HOUR = dt.timedelta(hours=1)


def test_a_clock_that_was_set_forward_removes_nothing_for_a_day(chain):
    old, young = operation(age=retention.OPERATIONS * 2), operation(age=HOUR)
    clocks = Clocks()
    sweeper = retention.Sweeper(chain, clocks)
    assert sweeper()
    assert set(Operation.objects.all()) == {young} != {old}
    clocks.now += retention.AUDIT * 2
    for _hour in range(24):
        assert sweeper() == 0
        clocks.pass_time(HOUR)
    assert set(Operation.objects.all()) == {young}
    clocks.now -= retention.AUDIT * 2  # somebody has put it right
    assert sweeper() == 0
    clocks.pass_time(HOUR * 25)
    assert sweeper() == 0  # nothing is old
    clocks.pass_time(retention.OPERATIONS)
    assert sweeper()
    assert not Operation.objects.exists()


def test_a_clock_far_from_all_that_is_known_is_not_believed_at_once(chain):
    def record(age: dt.timedelta) -> None:
        made = audit.record_attempt("sign-in", "ann", source_ip="192.0.2.1", outcome=audit.Outcome.DENIED)
        AuditRecord.objects.filter(pk=made.pk).update(at=timezone.now() - age)

    operation(age=retention.OPERATIONS * 2)
    record(retention.AUDIT / 2)
    record(HOUR / 60)  # written by this start
    clocks = Clocks()
    sweeper = retention.Sweeper(chain, clocks)
    assert sweeper() == 0
    assert Operation.objects.count() == 1
    clocks.pass_time(HOUR * 25)
    assert sweeper()
    assert not Operation.objects.exists()
    operation(age=retention.OPERATIONS * 2)
    record(HOUR)
    assert retention.Sweeper(chain, Clocks())()
    assert not Operation.objects.exists()
