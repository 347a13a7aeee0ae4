"""The runtime's and the services' English sentences in the reader's language.

A sentence that was made with values (core.sentences.say) is looked up by its template, any other by itself. What has no
translation is shown in English, as it is in the logs and in the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import get_language, gettext

from panel.accounts.models import Project

from ..core.sentences import Sentence
from ..models import Image, Operation
from . import words

ENGLISH: Final = "en"


def translated(text: str) -> str:
    """Return a sentence in the language of the page."""
    if isinstance(text, Sentence):
        return from_json({"template": text.template, "values": text.values})
    return gettext(text) if text else ""


def from_json(value: Mapping[str, Any]) -> str:
    """Return a sentence that was kept as template and values in the language of the page."""
    template, values = str(value["template"]), dict(value.get("values") or {})
    if (get_language() or ENGLISH).partition("-")[0] == ENGLISH:
        return str(Sentence(template, values))
    return gettext(template) % {name: _value(name, given) for name, given in values.items()}


def of_finding(finding: Mapping[str, Any], key: str) -> str:
    """Return one of the sentences of what the doctor found (what, why, mend), as it was made."""
    said = finding.get("said") or {}
    made = said.get(key) if isinstance(said, Mapping) else None
    return Sentence(made["template"], made["values"]) if made else str(finding.get(key) or "")


def describe(*rows: Image | Project) -> None:
    """Put descriptions that the panel made itself into the reader's language; the rows are shown, and not saved."""
    for row in rows:
        if row.description.endswith("."):  # a whole sentence: no word of the pages is one by chance
            row.description = translated(row.description)


def explain(error: Mapping[str, Any] | None, message: str = "") -> str:
    """Return what an operation's error says, as one sentence; message where there is no error."""
    if not error:
        return translated(message)
    return from_json(error["said"]) if error.get("said") else translated(str(error.get("message") or "") or message)


def step_of(error: Mapping[str, Any]) -> str:
    """Return which step an error came of; what it is about stands in what the error says, if anywhere."""
    values = (error.get("said") or {}).get("values") or {}
    while isinstance(values.get("told"), Mapping):
        values = values["told"].get("values") or {}
    step = values.get("step")
    return from_json(step) if isinstance(step, Mapping) else translated(str(error.get("step") or ""))


def message_of(operation: Operation) -> str:
    """Return what an operation says of itself in the language of the page."""
    return from_json(operation.said) if operation.said else translated(operation.message)


def _value(name: str, value: Any) -> Any:
    """Return a value's word: a sentence in a sentence, a state, an action; any other value is itself."""
    if isinstance(value, Mapping):
        return from_json(value)
    if name in ("status", "state"):
        return str(words.STATES.get(value, value)).lower()
    if name in ("why", "what", "kind", "how", "step", "message"):
        return gettext(value) if isinstance(value, str) and value else value
    if name == "action":
        return words.audit_action(value) if "." in str(value) else str(words.ACTIONS.get(value, value))
    return value
