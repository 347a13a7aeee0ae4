"""Tables of a TOML file as dataclasses: what is not known or of a wrong type is refused by name. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from ..errors import SpecError
from ..names import check_name
from ..sentences import say
from . import grants

_T = TypeVar("_T")


def table(value: Any, where: str) -> dict[str, Any]:
    """Return value if it is a table; raises SpecError."""
    if not isinstance(value, dict):
        raise SpecError(say("%(where)s must be a table.", where=where), field=where)
    return value


def refuse_unknown(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise SpecError for a key that is none of the known ones."""
    for name in given:
        if name not in known:
            raise SpecError(
                say("%(where)s has no key %(name)r; it has %(names)s.", where=where, name=name, names=", ".join(known)),
                field=f"{where}.{name}",
            )


def build(cls: type[_T], given: Any, where: str) -> _T:
    """Return a dataclass of the policy out of a table; raises SpecError for an unknown key or a wrong type."""
    known = {entry.name: str(entry.type) for entry in fields(cls)}  # type: ignore[arg-type]
    refuse_unknown(table(given, where), known, where)
    return cls(**{name: _value(value, known[name], f"{where}.{name}") for name, value in given.items()})


def _value(value: Any, kind: str, where: str) -> Any:
    # bool is an int to Python, not to a policy
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "Mapping[str, str]" and isinstance(value, dict):
        for name, path in value.items():
            check_name(name, field=f"{where}.{name}")
            grants.check_path(path, f"{where}.{name}", device=False)
        return dict(value)
    if kind.startswith("tuple") and isinstance(value, list) and all(isinstance(one, str) and one for one in value):
        return tuple(value)
    if kind.startswith("int") and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if kind.startswith("float") and isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    names = {
        "bool": "true or false",
        "str": "text",
        "Mapping": "a table of paths",
        "tuple": "a list of strings",
        "int": "a whole number",
        "float": "a number",
    }
    wanted = next(words for prefix, words in names.items() if kind.startswith(prefix))
    raise SpecError(
        say("%(where)s must be %(wanted)s, not %(value)r.", where=where, wanted=wanted, value=value), field=where
    )
