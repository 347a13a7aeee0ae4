"""Any file of a container's own cgroup, read by the ticker."""

from __future__ import annotations

from ..core.errors import InvalidTransition, NotFound
from ..core.model.limits import check_file
from ..core.model.states import Status
from ..models import Container
from . import ticker_client


def read(container: Container, file: str) -> str:
    """Return a file's text, as the kernel gives it, by the names of the host's cgroup version.

    Raises SpecError and NotFound (field ``file``), InvalidTransition where the container does not run, and
    TickerUnavailable.
    """
    check_file(file)
    if container.status not in (Status.RUNNING, Status.FROZEN):
        raise _not_running(container)
    found = ticker_client.ask(cmd="cgroup", container=container.pk, file=file)
    if (refused := found.get("refused")) is None:
        return str(found["value"])
    if refused["field"] is None:
        raise _not_running(container)
    raise NotFound(refused["message"], field=refused["field"])


def _not_running(container: Container) -> InvalidTransition:
    return InvalidTransition("The container is not running: it has no cgroup.", status=container.status)
