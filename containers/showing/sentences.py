"""The runtime's and the services' English sentences in the reader's language.

A sentence that was made with values (core.sentences.say) is looked up by its template, any other by itself. What has no
translation is shown in English, as it is in the logs and in the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext

from ..core.sentences import Sentence
from . import words


def translated(text: str) -> str:
    """Return a sentence in the language of the page."""
    if isinstance(text, Sentence):
        return from_json({"template": text.template, "values": text.values})
    return gettext(text) if text else ""


def from_json(value: Mapping[str, Any]) -> str:
    """Return a sentence that was kept as template and values in the language of the page."""
    values = {name: _value(name, given) for name, given in value.get("values", {}).items()}
    template = gettext(str(value["template"]))
    try:
        return template % values
    except (KeyError, ValueError, TypeError):
        return str(value["template"]) % values


def _value(name: str, value: Any) -> Any:
    """Return a value's word: a sentence in a sentence, a state, an action; any other value is itself."""
    if isinstance(value, Mapping):
        return from_json(value)
    if name in ("status", "state"):
        return str(words.STATES.get(value, value)).lower()
    if name == "action":
        return words.audit_action(value) if "." in str(value) else str(words.ACTIONS.get(value, value))
    return value
