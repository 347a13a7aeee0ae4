"""The audit trail's chain: whatever is done to a sealed record is found, what is ordinary is not."""

from __future__ import annotations

import datetime as dt
import threading
import uuid

import pytest
from django.db import connection, connections
from django.utils import timezone

from containers.upkeep import sealcheck, sealing
from containers.upkeep.auditlinks import NoKey
from containers.upkeep.sealing import Chain
from panel.accounts import audit
from panel.accounts.models import AuditRecord, AuditSeal, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path / "audit.json")


def record(name: str = "web-1", *, age: dt.timedelta | None = None, **more) -> AuditRecord:
    made = audit.record(None, "container.start", "container", name, **more)
    if age is not None:
        AuditRecord.objects.filter(pk=made.pk).update(at=timezone.now() - age)
        made.refresh_from_db()
    return made


def test_what_is_added_and_ended_is_sealed_and_intact(chain, monkeypatch):
    monkeypatch.setattr(sealing, "BATCH", 2)
    monkeypatch.setattr(sealcheck, "BATCH", 2)
    user = User.objects.create(username="ann")
    for n in range(5):
        record(f"web-{n}", detail={"size": 1.5, "names": ["ü", None]})
    operation = uuid.uuid4()
    pending = record("db-1", outcome=audit.Outcome.PENDING, operation=operation)
    audit.record_attempt("sign-in", "ann", source_ip="2001:db8::1", outcome=audit.Outcome.SUCCEEDED)
    assert chain.seal() == 7
    assert chain.seal() == 0
    audit.close(operation, audit.Outcome.FAILED, {"message": "no"})
    report = chain.check()
    assert (report.intact, report.links, report.waiting) == (True, 7, 1)
    assert chain.seal() == 1
    user.delete()  # the name stays in the record
    report = chain.check()
    assert (report.problems, report.links, report.waiting) == ([], 8, 0)
    assert AuditSeal.objects.filter(record_id=pending.pk).count() == 2


def meddle(what: str) -> None:
    row = AuditRecord.objects.order_by("at")[1]
    rows = AuditRecord.objects.filter(pk=row.pk)
    links = AuditSeal.objects.filter(record_id=row.pk)
    if what == "actor":
        rows.update(actor_name="bob")
    elif what == "time":
        rows.update(at=row.at - dt.timedelta(seconds=1))
    elif what == "outcome":
        rows.update(outcome="denied")
    elif what == "detail":
        rows.update(detail={"exit_code": 0})
    elif what == "changed, and sent to the sealer again":
        rows.update(object_name="else", sealed=False)
    elif what == "removed":
        rows.delete()
    elif what == "removed with its link":
        rows.delete()
        links.delete()
    elif what == "changed with its link":
        rows.update(outcome="denied")
        links.update(state="0" * 64)
    elif what == "put in":
        record("web-9")
        AuditRecord.objects.filter(object_name="web-9").update(sealed=True)
    elif what == "the tail cut off":
        last = AuditSeal.objects.order_by("-seq")[0]
        AuditRecord.objects.filter(pk=last.record_id).delete()
        last.delete()
    elif what == "everything removed":
        AuditRecord.objects.all().delete()
        AuditSeal.objects.all().delete()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("actor", "was changed"),
        ("time", "was changed"),
        ("outcome", "ended was changed"),
        ("detail", "ended was changed"),
        ("changed, and sent to the sealer again", "was changed"),
        ("removed", "was removed"),
        ("removed with its link", "links are missing"),
        ("changed with its link", "Link number 2 was changed"),
        ("put in", "put in without a link"),
        ("the tail cut off", "links are missing"),
        ("everything removed", "links are missing"),
    ],
)
def test_what_is_done_to_sealed_records_is_found(chain, what, said):
    for n in range(4):
        record(f"web-{n}", age=dt.timedelta(hours=4 - n))
    chain.seal()
    meddle(what)
    assert said in chain.check().problems[0]
    record("later")
    chain.seal()
    assert said in chain.check().problems[0], "sealing goes on, and mends nothing"


def test_a_pending_record_cannot_be_ended_unseen(chain):
    row = record(outcome=audit.Outcome.PENDING)
    chain.seal()
    AuditRecord.objects.filter(pk=row.pk).update(outcome="succeeded")
    assert "ended without a link" in chain.check().problems[0]


def test_links_that_somebody_else_made_count_for_nothing(chain):
    record()
    chain.seal()
    first = AuditSeal.objects.get()
    forged = {"pending": False, "content": "1" * 64, "state": "2" * 64, "digest": "3" * 64}
    AuditSeal.objects.create(seq=2, record_id=uuid.uuid4(), **forged)
    assert not chain.check().intact
    record("web-2")
    chain.seal()
    assert AuditSeal.objects.count() == 2
    assert AuditSeal.objects.get(seq=1).digest == first.digest
    assert chain.check().intact


def test_a_sealer_that_died_before_it_wrote_its_file_is_gone_on_from(chain, monkeypatch):
    record()
    chain.seal()
    record("web-2")

    def die(_anchor):
        raise OSError("power cut")

    monkeypatch.setattr(chain._file, "write", die)
    with pytest.raises(OSError, match="power cut"):
        chain.seal()
    monkeypatch.undo()
    assert chain.check().intact
    record("web-3")
    chain.seal()
    assert list(AuditSeal.objects.order_by("seq").values_list("seq", flat=True)) == [1, 2, 3]
    assert chain.check().intact


def test_old_records_are_forgotten_and_the_rest_is_verifiable(chain, monkeypatch):
    monkeypatch.setattr(sealing, "BATCH", 3)
    year = dt.timedelta(days=365)
    operation = uuid.uuid4()
    for n in range(7):
        record(f"old-{n}", age=3 * year)
    record("slow", age=3 * year, outcome=audit.Outcome.PENDING, operation=operation)
    chain.seal()
    record("after", age=3 * year)
    record("young")
    cutoff = timezone.now() - 2 * year
    chain.seal()
    assert chain.prune(cutoff) == 8
    assert chain.check().intact
    assert set(AuditRecord.objects.values_list("object_name", flat=True)) == {"slow", "young"}
    audit.close(operation, audit.Outcome.SUCCEEDED)
    chain.seal()
    assert chain.prune(cutoff) == 0  # its end was sealed after a young one: it waits for that one
    assert chain.check().intact
    assert chain.prune(timezone.now() + year) == 2
    assert AuditRecord.objects.count() == AuditSeal.objects.count() == 0
    assert chain.check().intact
    record("new")
    chain.seal()
    report = chain.check()
    assert (report.intact, report.links) == (True, 1)


def test_a_pruner_that_died_leaves_a_chain_that_holds(chain, monkeypatch):
    for n in range(3):
        record(f"old-{n}", age=dt.timedelta(days=10))
    record("young")
    chain.seal()
    write = chain._file.write

    def die(anchor):
        write(anchor)
        raise OSError("power cut")

    monkeypatch.setattr(chain._file, "write", die)
    with pytest.raises(OSError, match="power cut"):
        chain.prune(timezone.now() - dt.timedelta(days=1))
    monkeypatch.undo()
    assert chain.check().intact
    chain.prune(timezone.now() - dt.timedelta(days=1))
    assert AuditSeal.objects.count() == 1
    assert chain.check().intact


def test_who_prunes_does_not_wait(chain):
    record(age=dt.timedelta(days=10))
    chain.seal()
    with chain._file.locked():
        assert chain.prune(timezone.now()) == 0
    assert chain.prune(timezone.now()) == 1


def test_without_its_key_nothing_is_sealed_until_it_is_begun_anew(chain, tmp_path):
    record()
    chain.seal()
    (tmp_path / "audit.json").unlink()
    record("web-2")
    with pytest.raises(NoKey):
        chain.seal()
    assert "key of the chain is gone" in chain.check().problems[0]
    chain.begin_anew("root")
    report = chain.check()
    assert (report.intact, report.links) == (True, 3)
    assert AuditRecord.objects.get(action="audit.begin-anew").detail == {"links": 1}


@pytest.mark.django_db(transaction=True)
def test_two_sealers_and_many_writers_make_one_chain(chain):
    failures: list[Exception] = []

    def work(do) -> None:
        try:
            for n in range(10):
                do(n)
        except Exception as error:  # noqa: BLE001  of whatever kind, the test names it
            failures.append(error)
        finally:
            connections.close_all()

    def write(n: int) -> None:
        operation = uuid.uuid4()
        record(f"web-{n}", outcome=audit.Outcome.PENDING, operation=operation)
        audit.close(operation, audit.Outcome.SUCCEEDED)

    threads = [threading.Thread(target=work, args=(do,)) for do in (write, write, lambda _n: chain.seal()) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    chain.seal()
    report = chain.check()
    assert (report.problems, report.waiting) == ([], 0)
    assert AuditRecord.objects.count() == 40
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            assert cursor.execute("PRAGMA synchronous").fetchone() == (1,), "writers go on without waiting for the disk"
