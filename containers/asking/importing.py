"""Asking for a container of LXC's to be taken over; root on the host alone may, by `manage.py import-lxc`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q

from panel.accounts.models import Project

from ..bookkeeping import reservations
from ..core.errors import NotFound, SpecError
from ..core.names import check_name
from ..core.sentences import say
from ..models import Container, Host, Network, Operation, local_host
from . import configuration, giving, nics, queue

IMAGE_NAME = "lxc"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """A container as it will be. values: as configuration.CHANGEABLE names them. mac, machine_id: "" for new ones.

    nics: its interfaces, as asking.nics takes them; None is one on the network, called nic, with mac.
    A mac or machine_id that another container has already is not taken.
    """

    name: str
    project: str = "default"
    network: str = "default"
    values: dict[str, Any] = field(default_factory=dict)
    nics: tuple[dict[str, Any], ...] | None = None
    nic: str = "eth0"
    mac: str = ""
    machine_id: str = ""


def check(data: ImportRequest, host: Host) -> None:
    """Raise what import_container() would, and change nothing: SpecError, PolicyDenied, AlreadyExists, NotFound.

    HostUnsupported where the network is full. Fields of interfaces are named as nics.plan() does.
    """
    _plan(data, Container(host=host, slot=0, **_columns(data, host)))


def _columns(data: ImportRequest, host: Host) -> dict[str, Any]:
    """Return the columns of the new row."""
    check_name(data.name)
    queue.refuse_taken(data.name)
    given: dict[str, Any] = {name: data.values[name] for name in ("mounts", "devices") if name in data.values}
    rest = {name: value for name, value in data.values.items() if name not in given}
    columns = {**configuration.check_changes(rest, host), **giving.check(given, host, data.project)}
    project = Project.objects.filter(name=data.project).first()
    if project is None:
        raise NotFound(say("There is no project %(project)r.", project=data.project), field="project")
    _network(data.network, project, host)
    return {**columns, "name": data.name, "image_name": IMAGE_NAME, "project": project}


def import_container(data: ImportRequest, order: Callable[[str], None]) -> Operation:
    """Reserve the container and ask for it to be taken over. order: told its id, before anybody can begin with it."""
    host = local_host()

    def make() -> Operation:
        locked = reservations.lock_host(host)
        container = reservations.add_container(locked, _columns(data, locked))
        nics.write(container, _plan(data, container))
        _identify(container, data)
        order(container.pk)
        project = container.project
        return queue.insert(None, "import", host, None, container=container, project=project, cancellable=True)

    return queue.committed(None, None, make)


def _network(name: str, project: Project, host: Host) -> Network:
    visible = Q(project=None) | Q(project=project)
    network = Network.objects.filter(visible, host=host, name=name).first()
    if network is None:
        raise SpecError(
            say("There is no network %(name)r that %(project)s may use.", name=name, project=project.name),
            field="network",
        )
    return network


def _identify(container: Container, data: ImportRequest) -> None:
    """Give it what it was known by, where nobody else is."""
    if data.machine_id and not Container.objects.filter(machine_id=data.machine_id).exists():
        container.machine_id = data.machine_id
        container.save(update_fields=["machine_id"])


def _plan(data: ImportRequest, container: Container) -> list[nics.Values]:
    """Return the interfaces that are asked for as rows in the making, without the MACs that others have."""
    host = container.host
    wanted = data.nics if data.nics is not None else ({"name": data.nic, "network": data.network, "mac": data.mac},)
    taken, _addresses = nics.held(host)
    free = [{**one, "mac": None if one.get("mac") in taken else one.get("mac")} for one in wanted]
    return nics.plan(container, free, lambda name: _network(name, container.project, host))
