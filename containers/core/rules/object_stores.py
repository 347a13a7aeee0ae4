"""S3-compatible object stores that the host's policy names for backups. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from ..errors import SpecError
from ..names import check_name
from ..sentences import say
from . import policy_tables as toml

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}/){0,8}")
_REGION: Final = re.compile(r"[a-z0-9-]{0,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStore:
    """A part of a bucket. endpoint: the store's URL, without a path. prefix: of the names there, "" or "DIR/".

    region: as the store calls it; most that are not Amazon's want none.
    """

    endpoint: str = ""
    bucket: str = ""
    prefix: str = ""
    region: str = ""


def parse(tables: Any, where: str) -> dict[str, ObjectStore]:
    """Return the stores of a table of tables by name; raises SpecError (field ``WHERE.NAME.KEY``)."""
    found = {}
    for name, table in toml.table(tables, where).items():
        here = f"{where}.{name}"
        check_name(name, field=here)
        store = toml.build(ObjectStore, table, here)
        _check(store, here)
        found[name] = store
    return found


def _check(store: ObjectStore, where: str) -> None:
    try:
        address = urlsplit(store.endpoint)
        whole = address.scheme in ("http", "https") and bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        whole = False
    if not whole or store.endpoint.removesuffix("/") != f"{address.scheme}://{address.netloc}" or address.username:
        raise SpecError("Give the store's address like https://s3.example.org.", field=f"{where}.endpoint")
    for name, pattern in (("bucket", _BUCKET), ("prefix", _PREFIX), ("region", _REGION)):
        if not pattern.fullmatch(getattr(store, name)):
            examples = {"bucket": "backups", "prefix": "boxroom/", "region": "eu-central-1"}
            raise SpecError(say("Give a name like %(example)s.", example=examples[name]), field=f"{where}.{name}")
