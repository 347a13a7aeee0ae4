"""The verbs for images and networks."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from panel.accounts.actor import Actor
from panel.accounts.models import Project

from ..bookkeeping import reservations
from ..core.errors import AlreadyExists, InUse, NotFound, SpecError
from ..core.model.spec import check_text
from ..core.model.subnets import check_free
from ..core.names import check_name
from ..core.sentences import say
from ..models import Container, Host, Image, Network, Operation, local_host
from . import queue, requests, sources
from .access import find_image, find_network, find_project, require_host_admin

# images


def build_image(
    actor: Actor,
    name: str,
    source: dict[str, Any] | None = None,
    *,
    description: str = "",
    idempotency_key: str | None = None,
) -> Operation:
    """Ask for an image to be made; source None makes one that is known and not made yet (or failed)."""
    if known := queue.known(actor, idempotency_key):
        return known
    require_host_admin(actor, "image-build", name)
    check_name(name)
    check_text(description, field="description", most=500)
    host = local_host()
    checked = sources.check(actor, source, host) if source is not None else None

    def make() -> Operation:
        locked = reservations.lock_host(host)
        image = Image.objects.filter(host=locked, name=name).first()
        if image is None:
            if checked is None:
                raise NotFound(say("There is no image %(name)r.", name=name))
            image = Image.objects.create(host=locked, name=name, description=description, source=checked)
        elif image.state == Image.State.READY or (checked is not None and checked != image.source):
            raise AlreadyExists(say("There is an image %(name)s already.", name=name), field="name")
        queue.refuse_busy(image.operations.filter(status__in=Operation.UNFINISHED).first())
        container = _published(image)
        return queue.insert(
            actor, "image-build", host, idempotency_key, image=image, container=container, cancellable=True
        )

    return queue.committed(actor, idempotency_key, make)


def _published(image: Image) -> Container | None:
    """Return the container that an image is made of, held by the operation; raises NotFound, Busy."""
    if image.source.get("type") != "container":
        return None
    container = Container.objects.filter(pk=image.source.get("id")).first()
    if container is None:
        raise NotFound(say("The container %(name)s is gone.", name=image.source.get("container")))
    queue.refuse_busy(container.operations.filter(status__in=Operation.UNFINISHED).first())
    return container


def delete_image(actor: Actor, name: str, *, idempotency_key: str | None = None) -> Operation:
    """Ask for an image to be removed; raises InUse with the containers that were made from it."""
    if known := queue.known(actor, idempotency_key):
        return known
    found = find_image(actor, name, "image-delete")

    def make() -> Operation:
        reservations.lock_host(found.host)
        image = Image.objects.filter(pk=found.pk).first()
        if image is None:
            raise NotFound("There is no such image.")
        queue.refuse_busy(image.operations.filter(status__in=Operation.UNFINISHED).first())
        users = list(image.containers.values_list("name", flat=True))
        if users:
            raise InUse(say("%(n)s container(s) were made from %(name)s.", n=len(users), name=name), users=users)
        return queue.insert(actor, "image-delete", found.host, idempotency_key, image=image)

    return queue.committed(actor, idempotency_key, make)


def usable_image(actor: Actor, name: str, host: Host) -> Image:
    """Return an image that the actor may make containers from; raises SpecError (field image), or Busy."""
    image = Image.objects.visible_to(actor.user, "use").filter(host=host, name=name).first()
    if image is None:
        raise SpecError(say("There is no image %(name)r.", name=name), field="image")
    held = image.operations.filter(status__in=Operation.UNFINISHED, action="image-delete").first()
    queue.refuse_busy(held)
    found: Image = image
    return found


# networks


def create_network(
    actor: Actor,
    name: str,
    *,
    project: str | None = None,
    kind: str = "bridge",
    ipv4: str = "auto",
    ipv6: str = "auto",
    nat: bool = True,
    idempotency_key: str | None = None,
) -> Operation:
    """Ask for a network; ipv4, ipv6: a gateway or subnet with prefix length, "auto" or "none".

    project None: everybody's, which only host administrators may make.
    """
    if known := queue.known(actor, idempotency_key):
        return known
    owner = find_project(actor, project, "network-create") if project is not None else None
    if owner is None:
        require_host_admin(actor, "network-create", name)
    requests.check_network(name, kind, ipv4, ipv6, 0, nat=nat)
    host = local_host()

    def make() -> Operation:
        locked = reservations.lock_host(host)
        if Network.objects.filter(host=locked, name=name).exists():
            raise AlreadyExists(say("There is a network %(name)s already.", name=name), field="name")
        config = requests.check_network(name, kind, ipv4, ipv6, reservations.free_network_number(locked), nat=nat)
        _refuse_overlap(config.subnets(), locked)
        network = Network.objects.create(
            host=locked,
            project=owner,
            name=name,
            type=kind,
            number=config.number,
            ipv4=config.ipv4 or "",
            ipv6=config.ipv6 or "",
            nat=nat,
        )
        arguments = {"ipv4_auto": ipv4 == "auto", "ipv6_auto": ipv6 == "auto"}
        return queue.insert(
            actor, "network-create", host, idempotency_key, network=network, project=owner, arguments=arguments
        )

    return queue.committed(actor, idempotency_key, make)


def delete_network(actor: Actor, name: str, *, idempotency_key: str | None = None) -> Operation:
    """Ask for a network to be removed; raises InUse with the containers that are on it."""
    if known := queue.known(actor, idempotency_key):
        return known
    found = find_network(actor, name, "network-delete")

    def make() -> Operation:
        reservations.lock_host(found.host)
        network = Network.objects.filter(pk=found.pk).first()
        if network is None:
            raise NotFound("There is no such network.")
        queue.refuse_busy(network.operations.filter(status__in=Operation.UNFINISHED).first())
        users = list(network.interfaces.values_list("container__name", flat=True).distinct())
        if users:
            raise InUse(say("%(n)s container(s) are on %(name)s.", n=len(users), name=name), users=users)
        return queue.insert(
            actor, "network-delete", found.host, idempotency_key, network=network, project=found.project
        )

    return queue.committed(actor, idempotency_key, make)


def _refuse_overlap(subnets: tuple[str, ...], host: Host) -> None:
    others = [net for row in Network.objects.filter(host=host) for net in reservations.config_of(row).subnets()]
    for subnet in subnets:
        if clash := check_free(subnet, others):
            raise SpecError(
                say("%(subnet)s shares addresses with %(clash)s.", subnet=subnet, clash=clash),
                field="ipv6" if ":" in subnet else "ipv4",
            )


def usable_network(actor: Actor, name: str, project: Project, host: Host) -> Network:
    """Return a network that the project's containers may be on: its own, or everybody's."""
    rows = Network.objects.visible_to(actor.user, "use")
    network = rows.filter(Q(project=project) | Q(project=None), host=host, name=name).first()
    if network is None:
        raise SpecError(say("There is no network %(name)r.", name=name), field="network")
    queue.refuse_busy(network.operations.filter(status__in=Operation.UNFINISHED).first())
    found: Network = network
    return found
