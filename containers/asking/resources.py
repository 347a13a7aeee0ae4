"""The verbs for images and networks."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any, Final

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
from . import basket, queue, requests, sources
from .access import find_image, find_network, find_project, require_host_admin

DESCRIPTION_MAX: Final = 500

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


def delete_image(
    actor: Actor, name: str, *, keep_days: int | None = None, idempotency_key: str | None = None
) -> Operation:
    """Ask for an image to be removed; raises InUse with the containers that were made from it.

    keep_days: how long the trash has it; None: as the host keeps everything.
    """
    if known := queue.known(actor, idempotency_key):
        return known
    found = find_image(actor, name, "image-delete")
    days = basket.days(actor, found.host, {"keep_days": keep_days})

    def make() -> Operation:
        reservations.lock_host(found.host)
        image = Image.objects.filter(pk=found.pk).first()
        if image is None:
            raise NotFound("There is no such image.")
        queue.refuse_busy(image.operations.filter(status__in=Operation.UNFINISHED).first())
        users = list(image.containers.values_list("name", flat=True))
        if users:
            raise InUse(say("Containers that were made from %(name)s: %(n)s.", n=len(users), name=name), users=users)
        arguments = {"keep_days": days}
        return queue.insert(actor, "image-delete", found.host, idempotency_key, image=image, arguments=arguments)

    return queue.committed(actor, idempotency_key, make)


def usable_image(actor: Actor, name: str, host: Host) -> Image:
    """Return an image that the actor may make containers from; raises SpecError (field image), or Busy."""
    image = Image.objects.visible_to(actor.user, "use").filter(host=host, name=name).first()
    if image is None:
        raise SpecError(say("There is no image %(name)r.", name=name), field="image")
    held = image.operations.filter(status__in=Operation.UNFINISHED, action="image-delete")
    queue.refuse_busy(held.only("action").first())
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
    description: str = "",
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
    check_text(description, field="description", most=DESCRIPTION_MAX)
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
            description=description,
        )
        arguments = {"ipv4_auto": ipv4 == "auto", "ipv6_auto": ipv6 == "auto"}
        return queue.insert(
            actor, "network-create", host, idempotency_key, network=network, project=owner, arguments=arguments
        )

    return queue.committed(actor, idempotency_key, make)


def change_network(
    actor: Actor,
    name: str,
    *,
    ipv4: str | None = None,
    ipv6: str | None = None,
    nat: bool | None = None,
    description: str | None = None,
    idempotency_key: str | None = None,
) -> Operation:
    """Ask for a network to be changed; what is None stays. ipv4, ipv6: as for a new one; "auto" keeps what there is.

    Raises InUse with the containers on it where a subnet is to be another: their addresses are of the present one.
    """
    if known := queue.known(actor, idempotency_key):
        return known
    found = find_network(actor, name, "network-change")
    if description is not None:
        check_text(description, field="description", most=DESCRIPTION_MAX)

    def make() -> Operation:
        locked = reservations.lock_host(found.host)
        network = Network.objects.filter(pk=found.pk).first()
        if network is None:
            raise NotFound("There is no such network.")
        queue.refuse_busy(network.operations.filter(status__in=Operation.UNFINISHED).first())
        asked = {key: _asked(getattr(network, key), text) for key, text in (("ipv4", ipv4), ("ipv6", ipv6))}
        new_nat = network.nat if nat is None else nat
        config = requests.check_network(name, network.type, asked["ipv4"], asked["ipv6"], network.number, nat=new_nat)
        autos = {f"{key}_auto": text == "auto" for key, text in asked.items()}
        before = {key: getattr(network, key) for key in ("ipv4", "ipv6", "nat", "description")}
        values: dict[str, Any] = {key: _same(before[key], getattr(config, key) or "") for key in asked}
        values |= {"nat": new_nat, "description": network.description if description is None else description}
        if any(autos.values()) or any(before[key] != values[key] for key in asked):
            _refuse_used(network)
            _refuse_overlap(config.subnets(), locked, without=network)
        arguments = {"before": before, "after": values, **autos}
        return queue.insert(
            actor,
            "network-change",
            locked,
            idempotency_key,
            network=network,
            project=network.project,
            arguments=arguments,
        )

    return queue.committed(actor, idempotency_key, make)


def _asked(present: str, text: str | None) -> str:
    """Return what is asked for a family of a network that has this gateway, or none (empty)."""
    return present or text or "none" if text in (None, "auto") else text


def _same(present: str, wanted: str) -> str:
    """Return what is wanted, in the words that it is written in now where it is the same."""
    if present and wanted and ip_interface(present) == ip_interface(wanted):
        return present
    return wanted


def _refuse_used(network: Network) -> None:
    """Raise InUse where containers are on a network, Busy where one is about to be."""
    users = list(network.interfaces.values_list("container__name", flat=True).distinct())
    if users:
        raise InUse(
            say(
                "Subnets can be changed while no container is on the network: Containers on %(name)s: %(n)s.",
                n=len(users),
                name=network.name,
            ),
            users=users,
        )
    for operation in Operation.objects.filter(host=network.host, status__in=Operation.UNFINISHED).defer("log"):
        if any(row.get("network") == network.name for row in operation.arguments.get("nics") or ()):
            queue.refuse_busy(operation)


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
            raise InUse(say("Containers on %(name)s: %(n)s.", n=len(users), name=name), users=users)
        return queue.insert(
            actor, "network-delete", found.host, idempotency_key, network=network, project=found.project
        )

    return queue.committed(actor, idempotency_key, make)


def _refuse_overlap(subnets: tuple[str, ...], host: Host, without: Network | None = None) -> None:
    others = reservations.subnets_held(host, without)
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
    queue.refuse_busy(network.operations.filter(status__in=Operation.UNFINISHED).only("action").first())
    found: Network = network
    return found
