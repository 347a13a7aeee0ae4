"""One word for each idea: what the pages call actions, events and records."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.template import Context, Template
from django.utils import translation

from containers.showing import words
from panel.templatetags import boxroom


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        ("container.create", "Create"),
        ("snapshot.create", "Take snapshot"),
        ("snapshot.restore", "Restore snapshot"),
        ("snapshot.delete", "Delete snapshot"),
        ("image.build", "Make image"),
        ("network.delete", "Delete network"),
        ("session.open", "Open terminal"),
        ("sign-in", "Sign in"),
        ("host.reconcile", "Host reconcile"),
    ],
)
def test_an_audited_action_is_called_what_it_was(action: str, shown: str) -> None:
    assert words.audit_action(action) == shown


def test_a_record_of_an_operation_says_which_not_its_id() -> None:
    record = SimpleNamespace(
        object_type="operation", object_name="1f57be0a", detail={"action": "image-build", "object": "debian-12"}
    )
    assert words.audit_object(record) == "Make image debian-12"
    assert words.audit_detail(record) == ""
    assert words.audit_detail(SimpleNamespace(detail={"role": "operator"})) == "Operator"


def test_a_new_container_was_created_not_stopped() -> None:
    event = SimpleNamespace(kind="status", new="stopped", reason="created")
    assert words.event_sentence(event) == "Created"


def test_numbers_have_the_decimal_sign_of_the_language() -> None:
    with translation.override("de"):
        assert boxroom.size(1.5 * 1024**3) == "1,5 GiB"
        assert boxroom.cpus(0.5) == "0,5 CPUs"
    with translation.override("en"):
        assert boxroom.cpus(1.0) == "1 CPU"
        assert boxroom.size(1.5 * 1024**3) == "1.5 GiB"


def test_texts_of_templates_with_a_percent_sign_are_in_german() -> None:
    """The translate tag doubles the sign before it looks a text up (django.template.base, Variable.resolve)."""
    project = Path(__file__).resolve().parents[2]
    catalogue = (project / "locale/de/LC_MESSAGES/django.po").read_text(encoding="utf-8")
    found = re.compile(r"""\{%\s*translate\s+(?:"([^"]*)"|'([^']*)')""")
    texts = {
        a or b
        for path in (project / "templates").rglob("*.html")
        for a, b in found.findall(path.read_text(encoding="utf-8"))
    }
    asked = {text.replace("%", "%%") for text in texts if "%" in text}
    assert len(asked) > 20
    assert {text for text in asked if f'msgid "{text}"\n' not in catalogue} == set()
    with translation.override("de"):
        template = Template("{% load i18n %}{% translate 'Running without a tab: %s' %}")
        assert template.render(Context()) == "Laufen ohne Reiter: %s"
