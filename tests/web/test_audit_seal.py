"""What pages and API say of the audit trail's chain; the chain itself: test_sealing."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import translation

from containers.core.sentences import Sentence, as_json, say
from containers.showing.sentences import translated
from containers.ticker.sampling import Tick
from containers.ticker.server import Server
from containers.upkeep.sealing import Chain
from panel.accounts import audit
from panel.accounts.models import AuditRecord, AuditSeal
from tests.web.api import Api, assert_error
from tests.web.world import make_host

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path / "audit.json")


@pytest.fixture
def ticker(settings):
    """The ticker's socket, and the reports that it gives, the last one first."""
    make_host()
    path = Path("/tmp") / f"bx{secrets.token_hex(4)}"  # short: the path of a socket ends at 107 bytes
    path.mkdir()
    settings.BOXROOM_RUN_DIR = path
    reports = [None]
    server = Server(
        path / "ticker.sock", path / "events.sock", history=lambda *_: {}, recent=lambda *_: {}, limits=lambda _: {},
        cgroup_file=lambda *_: {}, latest=lambda _: Tick(0.0, {}, "{}"), on_event=lambda _: None,
        audit=lambda: reports[0],
    )  # fmt: skip
    server.start()
    yield reports
    server.stop()
    server.join()
    shutil.rmtree(path)


def page(user, **headers):
    browser = Client()
    browser.force_login(user)
    return browser.get("/audit/", **headers).content.decode()


def test_before_the_first_check_nothing_is_claimed(ticker, root):
    assert "not known yet" in page(root)
    assert Api(root).get("/audit/seal") == (
        200, {"at": None, "intact": None, "links": 0, "waiting": 0, "problems": []},
    )  # fmt: skip


def test_an_intact_chain_is_told(ticker, root, chain):
    audit.record(None, "container.start", "container", "web-1")
    chain.seal()
    ticker.insert(0, chain.check().as_dict())
    assert "chain intact" in page(root)
    assert "1 seal " in page(root)
    found = Api(root).get("/audit/seal")[1]
    assert (found["intact"], found["links"], found["waiting"]) == (True, 1, 0)


def test_a_broken_chain_is_told_in_the_readers_language(ticker, root, alice, chain):
    audit.record(None, "container.start", "container", "web-1")
    chain.seal()
    AuditRecord.objects.update(actor_name="nobody")
    ticker.insert(0, chain.check().as_dict())
    assert "(container.start) was changed." in page(root)
    assert "(Starten) wurde geändert." in page(root, HTTP_ACCEPT_LANGUAGE="de")
    assert Api(root).get("/audit/seal")[1]["problems"][0].endswith("(container.start) was changed.")
    told = page(alice)  # of a project's administrator: that it is so, and not what of others
    assert "not as it was sealed" in told
    assert "was changed." not in told


def test_only_host_administrators_ask_for_it(ticker, alice, bob):
    for user in (alice, bob):
        assert_error(Api(user).get("/audit/seal"), 403, "forbidden")


def test_the_command_says_the_same(settings, tmp_path, capsys, monkeypatch):
    settings.STATE_DIR = tmp_path
    (tmp_path / "instance.json").write_text('{"id": "abcde"}')
    audit.record(None, "container.start", "container", "web-1")
    Chain(tmp_path / "audit.json").seal()
    call_command("audit", "check")
    assert capsys.readouterr().out == "1 links followed; 0 records wait for their seal.\n"
    AuditRecord.objects.all().delete()
    with pytest.raises(SystemExit):
        call_command("audit", "check")
    assert "The record of link number 1 was removed." in capsys.readouterr().out
    call_command("audit", "begin-anew")
    call_command("audit", "check")
    assert AuditSeal.objects.count() == 1
    assert AuditRecord.objects.get().action == "audit.begin-anew"


def test_a_sentence_keeps_its_values():
    inner = say("The last %(n)s links are missing.", n=3)
    text = say("%(what)s: %(why)s 100 %%", what="web-1", why=inner)
    assert text == "web-1: The last 3 links are missing. 100 %"
    assert Sentence(**as_json(text)) == text
    assert as_json("plain") is None
    with translation.override("de"):
        assert translated(text) == "web-1: Die letzten 3 Siegel fehlen. 100 %"
        assert translated("") == ""
        assert translated("Nothing like this stands anywhere.") == "Nothing like this stands anywhere."
