"""What the runtime and the services say in English is shown in German on German pages; the API stays English."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.utils import translation
from django.utils.translation import gettext

from containers.core.archives.rules import SENTENCES
from containers.core.archives.unpacking import bad_archive
from containers.core.errors import Busy, InvalidTransition, SetupFailed, SpecError
from containers.core.model.spec import Limits
from containers.core.model.states import Action, Status, after
from containers.core.sentences import recognized, restored, say
from containers.models import Operation, local_host
from containers.operations.failures import described
from containers.showing.sentences import explain, translated
from tests.web.api import Api
from tests.web.world import make_container, make_host

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
GERMAN = {"HTTP_ACCEPT_LANGUAGE": "de"}


@pytest.fixture
def row(team):
    make_host()
    return make_container(team, "web-1", status="running")


@pytest.fixture
def browser(alice):
    made = Client()
    made.force_login(alice)
    return made


def test_a_refusal_of_a_click_is_german(browser, row):
    answer = browser.post("/containers/web-1/start", headers={"HX-Request": "true"}, **GERMAN)
    assert answer.status_code == 409
    assert "Das passt nicht zu einem Container in diesem Zustand (läuft): Starten." in ascii_of(answer)
    english = browser.post("/containers/web-1/start", headers={"HX-Request": "true"})
    assert "Not possible while the container is running: start." in ascii_of(english)


def ascii_of(answer) -> str:
    return answer.headers["HX-Trigger"].encode().decode("unicode_escape")


def test_a_refusal_in_a_form_is_german(browser, row):
    asked = {"image": "busybox", "name": "web-1", "project": "team", "network": "default"}
    page = browser.post("/containers/_create", {**asked, "name": "No"}, **GERMAN).content.decode()
    assert (
        gettext_de("Use 1 to 63 lower-case letters, digits and dashes; begin and end with a letter or a digit.") in page
    )


def gettext_de(text: str) -> str:
    with translation.override("de"):
        return gettext(text)


def failed(error: BaseException) -> Operation:
    return Operation.objects.create(
        host=local_host(),
        action="start",
        object_name="web-1",
        actor_name="alice",
        status="failed",
        error=described(error),
    )


def test_why_an_operation_failed_is_kept_for_both(root, row):
    made = failed(SetupFailed.from_oserror("mount", FileNotFoundError(2, "No such file or directory", "/sbin/init")))
    kept = made.error
    assert kept["message"] == "mount failed: No such file or directory (/sbin/init) [ENOENT]"
    browser = Client()
    browser.force_login(root)
    where = f"/operations/{made.pk}"
    assert "mount failed: No such file or directory (/sbin/init) [ENOENT]" in browser.get(where).content.decode()
    german = browser.get(where, **GERMAN).content.decode()
    assert "Einhängen ging nicht: Datei oder Verzeichnis gibt es nicht (/sbin/init) [ENOENT]" in german
    told = Api(root).get(f"/operations/{made.pk}")[1]["error"]
    assert told["message"] == kept["message"]
    assert "said" not in told


def test_the_step_that_failed_is_german_too(root, row):
    step = say("mount the share %(source)s at %(target)s", source="media", target="/srv")
    why = "its file system knows no id maps, which an unprivileged container needs"
    made = failed(SetupFailed.from_oserror(step, OSError(22, why, "media")))
    plain = failed(SetupFailed("The host's file could not be read.", step="open the consoles"))
    browser = Client()
    browser.force_login(root)
    german = browser.get(f"/operations/{made.pk}", **GERMAN).content.decode()
    assert "<dd>Die Freigabe media unter /srv einhängen</dd>" in german
    assert "Die Freigabe media unter /srv einhängen ging nicht: sein Dateisystem kennt keine ID-Abbildungen" in german
    assert "<dd>mount the share media at /srv</dd>" in browser.get(f"/operations/{made.pk}").content.decode()
    assert "<dd>Die Konsolen öffnen</dd>" in browser.get(f"/operations/{plain.pk}", **GERMAN).content.decode()


def test_an_older_operation_has_its_words_still(root, row):
    made = failed(Busy("plain"))
    made.error = {"code": "busy", "message": "The image is gone."}
    made.save()
    with translation.override("de"):
        assert explain(made.error) == "Das Abbild gibt es nicht mehr."
    assert explain(None, "Created.") == "Created."


def test_a_sentence_comes_through_another_process():
    error = InvalidTransition(say("There is no snapshot %(name)s.", name="snap1"), status="stopped")
    with translation.override("de"):
        assert translated(restored(error.kept())) == "Es gibt keinen Schnappschuss snap1."
    assert "said" not in error.as_dict()
    assert restored({"message": "plain"}) == "plain"


def test_why_an_archive_is_refused_is_german_too():
    found = bad_archive("A name leads out of the archive.", "../x", "")
    with translation.override("de"):
        told = translated(found.message)
    assert told == "Das Archiv wird nicht angenommen: Ein Name führt aus dem Archiv hinaus. (../x)"


@pytest.mark.parametrize(
    ("told", "german"),
    [
        ("A name is longer than 255 bytes.", "Ein Name ist länger als 255 Byte."),
        ("It is damaged: bad checksum.", "Es ist beschädigt: bad checksum."),
        ("It is damaged: %(x)1000000000s.", "Es ist beschädigt: %(x)1000000000s."),
        ("A file is larger than 9 bytes.", "Eine Datei ist größer als 9 Byte."),
        ("Whatever.", "Whatever."),
    ],
)  # fmt: skip
def test_what_a_confined_process_says_with_values_is_recognized(told, german):
    """Its text alone crosses to root's side; what it stands for is known there."""
    known = recognized(told, SENTENCES)
    assert known == told
    with translation.override("de"):
        assert translated(known).startswith(german)
        assert translated(bad_archive(known, "", "").message).startswith(f"Das Archiv wird nicht angenommen: {german}")


def test_every_sentence_of_a_confined_process_has_its_german():
    with translation.override("de"):
        assert [one for one in SENTENCES if gettext(one) == one] == []


def test_states_and_actions_have_their_words():
    with pytest.raises(InvalidTransition) as caught:
        after(Status.STOPPED, Action.FREEZE)
    with translation.override("de"):
        assert "(angehalten): Einfrieren" in translated(caught.value.message)


def test_numbers_come_as_they_are():
    with pytest.raises(SpecError, match="pids must be between") as caught:
        Limits(pids=1).check(host_memory_bytes=2**30, host_cpus=2, host_pids=1000)
    with translation.override("de"):
        assert translated(caught.value.message).startswith("pids muss zwischen 8 und ")


REFUSALS = {
    "SpecError", "NotFound", "AlreadyExists", "InvalidTransition", "Busy", "InUse", "PolicyDenied", "SetupFailed",
    "StorageFull", "TimedOut", "Forbidden", "HostUnsupported", "Cancelled", "Refused", "_denied", "say",
}  # fmt: skip
REACHED = (
    "containers/asking", "containers/bookkeeping", "containers/operations", "containers/core", "panel/accounts",
)  # fmt: skip
ON_THE_COMMAND_LINE = "containers/core/lxc"
FROM_WHOM_NOBODY_TRUSTS = "containers/core/archives"
"""Its process has read what a stranger made: what it tells is text, and no template for us to fill in."""
NAMES = "containers/core/images/debootstrap.py"
"""It tells which Debian comes from where, and nothing else."""
STEPS = {"from_oserror", "_step", "StepFailed", "_Step"}


SAME_IN_BOTH = {
    "%(why)s %(left)s", "%(told)s [%(name)s]", "policy.toml, %(key)s: %(problem)s", "%(step)s %(how)s: %(told)s",
    "%(step)s: %(what)s", "%(step)s: %(what)s: %(said)s", "%(name)s: %(message)s", "dnsmasq",
}  # fmt: skip


def said_by() -> Iterator[tuple[str, ast.AST]]:
    """Yield every node of what can reach who clicks, and where it stands."""
    paths = {path for part in REACHED for path in (ROOT / part).rglob("*.py")}
    for path in sorted(paths - set((ROOT / ON_THE_COMMAND_LINE).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def refusals() -> Iterator[tuple[str, ast.expr]]:
    """Yield where something is said to who clicks, and the expression of what: a text, or a call of say()."""
    for where, node in said_by():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REFUSALS and node.args:
            yield where, node.args[0]


def steps() -> Iterator[tuple[str, ast.expr]]:
    """Yield where a step that may fail, or that progress tells of, is named, and the expression of its name."""
    for where, node in said_by():
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in STEPS and node.args:
                yield where, node.args[0]
            if called == "progress" and len(node.args) > 1:
                yield where, node.args[1]
            yield from ((where, keyword.value) for keyword in node.keywords if keyword.arg == "step")
        if isinstance(node, ast.Assign) and any(
            (isinstance(target, ast.Attribute) and target.attr == "step")
            or (isinstance(target, ast.Name) and target.id in ("_STEP", "STEP"))
            for target in node.targets
        ):
            yield where, node.value


def untranslated(found: set[str]) -> set[str]:
    with translation.override("de"):
        return {text for text in found if gettext(text) == text}


def test_what_is_said_to_who_clicks_is_german():
    texts = [text.value for _where, text in refusals() if isinstance(text, ast.Constant)]
    every = {text for text in texts if isinstance(text, str) and " " in text}
    assert len(every) > 450
    assert untranslated(every) <= SAME_IN_BOTH


def test_the_steps_of_what_is_done_are_german():
    every = {text.value for _where, text in steps() if isinstance(text, ast.Constant) and isinstance(text.value, str)}
    assert len(every) > 100
    assert untranslated(every - {""}) <= SAME_IN_BOTH


def test_what_is_said_with_values_can_be_said_again():
    found = [*refusals(), *steps()]
    made = {where.partition(":")[0] for where, text in found if isinstance(text, ast.JoinedStr | ast.BinOp)}
    assert {where for where in made if not where.startswith(FROM_WHOM_NOBODY_TRUSTS)} == {NAMES}
