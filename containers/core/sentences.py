"""Sentences for people that remember how they were made, so that they can be said again in another language.

The core, the worker and the API speak English. A sentence with values in it is made by say(); it is a str, and goes
wherever one goes: into logs, the API, exceptions. Where it is kept as JSON, as_json() keeps template and values beside
it, and whoever shows it (containers.showing.sentences) looks the template up in the reader's language. A sentence
without values needs none of this: it is its own template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class Sentence(str):
    """An English sentence. template: with %(name)s where the values go; values: by name, sentences as as_json()."""

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, values: dict[str, Any]) -> Sentence:
        """Return the template with its values put in."""
        inner = {name: Sentence(**value) if isinstance(value, dict) else value for name, value in values.items()}
        made = super().__new__(cls, template % inner)
        made.template, made.values = template, values
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Sentence, (self.template, self.values)


def say(template: str, /, **values: Any) -> Sentence:
    """Return a sentence out of a template and its values, such as ``say("There is no project %(name)s.", name=name)``.

    A value may be a sentence itself. What is neither text nor a number is written as Python writes it.
    """
    return Sentence(template, {name: _plain(value) for name, value in values.items()})


def as_json(text: str) -> dict[str, Any] | None:
    """Return template and values of a sentence as JSON values, None for any other text."""
    return {"template": text.template, "values": text.values} if isinstance(text, Sentence) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Sentence):
        return {"template": value.template, "values": value.values}
    return value if type(value) in (str, int, float) else f"{value}"


def recognized(text: str, templates: Iterable[str]) -> str:
    """Return a text that a process of less trust has told as the sentence of one of these templates, any other as is.

    The template is ours, and the values are text: nothing that was told is put into anything.
    """
    for template in templates:
        pattern = re.sub(r"%\\\((\w+)\\\)s", r"(?P<\1>.{1,300})", re.escape(template))
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return say(template, **found.groupdict())
    return text


def restored(values: dict[str, Any]) -> str:
    """Return the sentence of what CoreError.kept() has told another process, as one that can be said again."""
    said = values.get("said")
    return Sentence(said["template"], said["values"]) if said else str(values.get("message") or "")
