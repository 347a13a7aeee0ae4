"""/networks: bridges that containers are attached to."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Router

from containers.asking import services
from containers.models import Network
from containers.showing import present

from . import answers, lists
from .answers import Key, Wait
from .auth import actor
from .lists import PageQuery
from .schemas import NetworkIn, NetworkPatch

router = Router(tags=["networks"])


@router.get("/networks", summary="Networks")
def list_networks(request: HttpRequest, page: PageQuery) -> dict[str, Any]:
    """The networks that the caller may see, by name."""
    rows = Network.objects.visible_to(actor(request).user)
    return lists.answer(request, rows.select_related("project", "host"), page, present.network)


@router.get("/networks/{name}", summary="A network")
def get_network(request: HttpRequest, name: str) -> dict[str, Any]:
    """One network."""
    return present.network(services.find_network(actor(request), name))


@router.post("/networks", summary="Make a network")
async def create_network(request: HttpRequest, body: NetworkIn, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Make a bridge with subnets of its own."""
    ask = partial(
        services.create_network,
        actor(request),
        body.name,
        project=body.project,
        kind=body.type,
        ipv4=body.ipv4,
        ipv6=body.ipv6,
        nat=body.nat,
        description=body.description,
        idempotency_key=key,
    )
    return await answers.operation(request, wait, ask)


@router.patch("/networks/{name}", summary="Change a network")
async def change_network(
    request: HttpRequest, name: str, body: NetworkPatch, wait: Wait = 0, key: Key = None
) -> HttpResponse:
    """Change a network; what is left out stays, and so does its name. Subnets only while no container is on it."""
    ask = partial(services.change_network, actor(request), name, **body.given(), idempotency_key=key)
    return await answers.operation(request, wait, ask)


@router.delete("/networks/{name}", summary="Delete a network")
async def delete_network(request: HttpRequest, name: str, wait: Wait = 0, key: Key = None) -> HttpResponse:
    """Delete a network that no container uses."""
    ask = partial(services.delete_network, actor(request), name, idempotency_key=key)
    return await answers.operation(request, wait, ask)
