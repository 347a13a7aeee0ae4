"""Forms of the pages: text fields to the typed requests of containers.asking.requests, with errors beside their fields.

Rules live in the services; here text becomes values, and what cannot become one is an error of its field.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..asking.requests import ContainerRequest
from ..core.errors import CoreError, SpecError
from ..core.model.spec import CPU_WEIGHT_MAX, CPUS_MIN, MEMORY_MIN_BYTES, PIDS_MIN
from ..core.names import NAME_PATTERN
from ..core.rules.pool_rules import DEFAULT as DEFAULT_POOL
from ..core.units import format_bytes
from ..models import Container, Host
from . import behaviourtext, hooktext, limittext, securitytext
from .sentences import translated

UNITS: Final = {"MiB": 1024**2, "GiB": 1024**3}
LIMITS: Final = {
    "memory": "memory_bytes",
    "swap": "swap_bytes",
    "cpus": "cpus",
    "cpu_weight": "cpu_weight",
    "cpuset": "cpuset",
    "pids": "pids",
    "disk": "disk_bytes",
    "disk_inodes": "disk_inodes",
    **limittext.LIMITS,
}
FIELDS_OF_LIMITS: Final = {f"limits.{limit}": name for name, limit in LIMITS.items()}
RESTARTS: Final = (
    ("no", gettext_lazy("Leave it stopped")),
    ("on-failure", gettext_lazy("Start it again if it failed")),
    ("always", gettext_lazy("Always start it again")),
)
_WORDS: Final = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "juniper", "kestrel")


def suggested_name(base: str = "") -> str:
    """Return a free name: BASE-2, BASE-3 … after a container's own, or a word where there is none to follow."""
    taken = set(Container.objects.values_list("name", flat=True))
    if not base:
        for word in _WORDS:
            if word not in taken:
                return word
        base = _WORDS[0]
    stem = re.sub(r"-[0-9]+\Z", "", base)[:55]
    number = 2
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def memory_value(text: str, unit: str = "MiB", *, field: str = "limits.memory_bytes") -> int | None:
    """Return bytes of "512", "512 MiB" or "1.5 GiB"; None for nothing. Raises SpecError."""
    found = re.fullmatch(r"([0-9]{1,9}(?:[.,][0-9]{1,3})?)\s*([KMG]i?B?)?", text.strip(), re.IGNORECASE | re.ASCII)
    if not text.strip():
        return None
    if found is None:
        raise SpecError(_("Give a size such as 512 MiB or 1.5 GiB."), field=field)
    step = {"k": 1024, "m": 1024**2, "g": 1024**3}[(found[2] or unit)[0].lower()]
    return round(float(found[1].replace(",", ".")) * step)


def _number(text: str, kind: Callable[[str], Any], field: str) -> Any:
    """Return a number or None for nothing; raises SpecError."""
    if not text.strip():
        return None
    try:
        return kind(text.strip().replace(",", "."))
    except ValueError:
        raise SpecError(_("Give a number."), field=field) from None


def _hugepages(text: str) -> dict[str, int] | None:
    """Return lines SIZE=amount as bytes by size, None for nothing; raises SpecError."""
    field = "limits.hugepages"
    found = {size: memory_value(value, field=field) for size, value in limittext.pairs(text, "hugepages").items()}
    return {size: value for size, value in found.items() if value is not None} or None


def _command(text: str) -> tuple[str, ...] | None:
    """Return a command line as arguments, None for nothing; raises SpecError."""
    try:
        return tuple(shlex.split(text)) or None
    except ValueError:
        raise SpecError(_("A quotation mark is not closed."), field="init_command") from None


def _environment(text: str) -> dict[str, str] | None:
    """Return lines NAME=value as variables, None for nothing; raises SpecError."""
    pairs = {}
    for line in text.splitlines():
        if line.strip():
            name, equals, value = line.partition("=")
            if not equals:
                raise SpecError(_("Write one NAME=value on each line."), field="environment")
            pairs[name.strip()] = value
    return pairs or None


def parse(name: str, data: Mapping[str, Any]) -> Any:
    """Return one setting's value out of a form's text fields; raises SpecError naming the field."""
    text = str(data.get(name, ""))
    parsers: dict[str, Callable[[], Any]] = {
        "memory": lambda: memory_value(text, str(data.get("memory_unit", "MiB"))),
        "disk": lambda: memory_value(text, field="limits.disk_bytes"),
        "disk_inodes": lambda: _number(text, int, "limits.disk_inodes"),
        "swap": lambda: memory_value(text, field="limits.swap_bytes"),
        "cpus": lambda: _number(text, float, "limits.cpus"),
        "cpu_weight": lambda: _number(text, int, "limits.cpu_weight"),
        "cpuset": lambda: text.strip() or None,
        "pids": lambda: _number(text, int, "limits.pids"),
        "io_read": lambda: memory_value(text, field="limits.io_read_bytes_per_sec"),
        "io_write": lambda: memory_value(text, field="limits.io_write_bytes_per_sec"),
        "io_read_ops": lambda: _number(text, int, "limits.io_read_ops_per_sec"),
        "io_write_ops": lambda: _number(text, int, "limits.io_write_ops_per_sec"),
        "io_weight": lambda: _number(text, int, "limits.io_weight"),
        "hugepages": lambda: _hugepages(text),
        "cgroup": lambda: limittext.pairs(text, "cgroup") or None,
        "hooks": lambda: hooktext.parse(text),
        "tags": lambda: tuple(text.replace(",", " ").split()),
        "init_command": lambda: _command(text),
        "environment": lambda: _environment(text),
        "halt_signal": lambda: text.strip() or None,
        "autostart": lambda: bool(text),
        "ephemeral": lambda: bool(text),
        "privileged": lambda: bool(text),
        "start": lambda: bool(text),
    }
    return parsers[name]() if name in parsers else text.strip().replace("\r\n", "\n")


def in_words(error: CoreError, host: Host) -> str:
    """Return a refusal's sentence; the ranges of limits in the units that people write."""
    limit = (error.field or "").removeprefix("limits.").removesuffix("_bytes")
    allowed = ranges(host)
    if error.code == "invalid-value" and error.field in ("limits.memory_bytes", "limits.cpus", "limits.pids"):
        if error.message.startswith(limit):
            return _("Out of range: %(range)s.") % {"range": allowed[limit]}
    return translated(error.message)


NO_NETWORK: Final = "-"
"""What the form's list of networks says for none; no network is called so."""


def _nics(data: Mapping[str, Any]) -> tuple[dict[str, Any], ...] | None:
    """Return the networks of a form, the first and more; None for one alone."""
    first = str(data.get("network") or "default")
    more = data.getlist("more_networks") if isinstance(data, QueryDict) else ()
    if first == NO_NETWORK:
        return tuple({"network": name} for name in more)
    others = [name for name in more if name != first]
    return tuple({"network": name} for name in (first, *others)) if others else None


class CreateForm(forms.Form):
    """A container to make. Only texts: what they mean is for `request`, whose errors land beside the fields."""

    name = forms.CharField(required=False, max_length=200)
    image = forms.CharField(required=False)
    project = forms.CharField(required=False)
    network = forms.CharField(required=False)
    description = forms.CharField(required=False)
    tags = forms.CharField(required=False)
    memory = forms.CharField(required=False)
    memory_unit = forms.CharField(required=False)
    cpus = forms.CharField(required=False)
    pids = forms.CharField(required=False)
    restart = forms.CharField(required=False)
    autostart = forms.CharField(required=False)
    ephemeral = forms.CharField(required=False)
    privileged = forms.CharField(required=False)
    init_command = forms.CharField(required=False)
    environment = forms.CharField(required=False)
    start = forms.CharField(required=False)
    pool = forms.CharField(required=False)

    def request(self, more: Mapping[str, Any] | None = None) -> ContainerRequest:
        """Return what is asked for; more: what the advanced part adds. Raises SpecError naming the field."""
        data = self.data
        if not str(data.get("image", "")).strip():
            raise SpecError(_("Choose an image."), field="image")
        rest = dict(more or {})
        limits = {LIMITS[name]: parse(name, data) for name in ("memory", "cpus", "pids")} | rest.pop("limits", {})
        nics = _nics(data)
        return ContainerRequest(
            name=str(data.get("name", "")),
            image=str(data["image"]),
            project=str(data.get("project") or "default"),
            network="default" if nics is not None else str(data.get("network") or "default"),
            nics=nics,
            limits={name: value for name, value in limits.items() if value is not None},
            restart=str(data.get("restart") or "no"),
            pool=str(data.get("pool") or DEFAULT_POOL),
            **{
                name: parse(name, data)
                for name in ("description", "tags", "autostart", "ephemeral", "privileged", "start")
            },
            **{name: parse(name, data) for name in ("init_command", "environment")},
            **rest,
        )

    def take(self, error: CoreError, host: Host) -> None:
        """Put a refusal beside the field it names, or above the form."""
        names = {"limits.memory_bytes": "memory", "limits.cpus": "cpus", "limits.pids": "pids"}
        if (error.field or "").startswith("nics"):
            error.field = "network"
        field = names.get(error.field or "", (error.field or "").split(".")[0])
        if not error.field and error.code == "already-exists":
            field = "name"
        self.full_clean()
        self.add_error(field if field in self.fields else None, in_words(error, host))

    def clean(self) -> dict[str, Any]:
        """Refuse nothing here: the services have the rules."""
        return self.cleaned_data


def changes_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a form changes, as `update` takes them; raises SpecError naming the field.

    A setting is in the form only where somebody edited it; a check box brings NAME_there with it.
    """
    changes: dict[str, Any] = {}
    limits = {LIMITS[name]: parse(name, data) for name in LIMITS if name in data}
    if limits:
        changes["limits"] = limits
    for name in ("description", "tags", "restart", "init_command", "environment", "halt_signal", "hooks"):
        if name in data:
            value = parse(name, data)
            changes[name] = list(value) if isinstance(value, tuple) else value
    for name in ("autostart", "ephemeral", "privileged"):
        if f"{name}_there" in data:
            changes[name] = bool(data.get(name))
    if security := securitytext.changes(data):
        changes["security"] = security
    changes.update(behaviourtext.changes(data, memory_value))
    return changes


def field_of(error: CoreError) -> str:
    """Return the settings form's field that a refusal is about; nothing where it is about none."""
    parts = (error.field or "").split(".")
    if parts[0] == "security" and len(parts) > 1:
        return f"{securitytext.PREFIX}{parts[1]}"
    return behaviourtext.field_of(error.field or "") or FIELDS_OF_LIMITS.get(".".join(parts[:2]), parts[0])


def ranges(host: Host) -> dict[str, str]:
    """Return the words beside the limits: what is allowed on this host."""
    memory, cpus, pids = (host.facts.get(name) for name in ("memory_bytes", "cpus", "pids"))
    return {
        "memory": _("%(least)s to %(most)s; empty for no limit")
        % {"least": format_bytes(MEMORY_MIN_BYTES), "most": format_bytes(memory) if memory else "…"},
        "cpus": _("%(least)s to %(most)s; 0.5 is half a core; empty for no limit")
        % {"least": CPUS_MIN, "most": cpus or "…"},
        "pids": _("%(least)s to %(most)s processes and threads; empty for no limit")
        % {"least": PIDS_MIN, "most": pids or "…"},
        "swap": _("beside the memory; empty for none where memory is limited"),
        "cpu_weight": _("1 to %(most)s, when CPUs are short; every container has 100") % {"most": CPU_WEIGHT_MAX},
        "cpuset": _("such as 0-1,3, of %(online)s; empty for all") % {"online": host.facts.get("online") or "…"},
        "name": NAME_PATTERN,
    }
