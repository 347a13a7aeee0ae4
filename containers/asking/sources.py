"""What images may be made from: looked at before anything is asked for, as far as the web can tell.

The worker looks again at everything, above all at where names lead to.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from panel.accounts.actor import Actor
from panel.accounts.models import Project

from ..core.errors import NotFound, PolicyDenied, SpecError
from ..core.model import recipes, references
from ..core.rules import policy
from ..core.sentences import say
from ..models import Host
from . import uploads
from .access import find_container
from .told import policy_of

PATH_MAX: Final = 1024


def check(actor: Actor, source: dict[str, Any], host: Host) -> dict[str, Any]:
    """Return a source as it is kept; raises SpecError naming the field, PolicyDenied, NotFound, Forbidden."""
    kept = {name: value for name, value in source.items() if value is not None}
    kind = kept.get("type")
    rules: Mapping[str, Any] = host.facts.get("policy", {})
    if kind == "upload":
        for name in ("upload", "metadata"):
            if name in kept:
                _complete(actor, kept[name], f"source.{name}")
    elif kind == "file":
        with policy_of(host):
            if kept["directory"] not in rules.get("directories", ()):
                raise PolicyDenied("This host's policy names no such directory of images.", field="source.directory")
        for name in ("path", "metadata"):
            if name in kept:
                _path(kept[name], f"source.{name}")
    elif kind == "oci":
        wanted = references.parse(kept["reference"])
        named = tuple(rules.get("sources", ()))
        if wanted.endpoint not in rules.get("insecure", ()):
            check_remote(f"https://{wanted.endpoint}/", field="source.reference", named=named)
        if "project" in kept and not Project.objects.filter(name=kept["project"]).exists():
            raise SpecError(say("There is no project %(project)r.", project=kept["project"]), field="source.project")
    elif kind == "simplestreams":
        check_server(kept["server"], host, field="source.server")
    elif kind == "url":
        _check_address(kept["url"], host, field="source.url", wrong="Give an address as https://HOST/FILE.")
    elif kind == "container":
        container = find_container(actor, kept["container"], "clone")
        snapshot = kept.get("snapshot")
        if snapshot and not container.snapshots.filter(name=snapshot).exists():
            raise SpecError(
                say("%(name)s has no snapshot %(snapshot)r.", name=container.name, snapshot=snapshot),
                field="source.snapshot",
            )
        kept["id"] = container.pk
    else:
        return _check_recipe(source, host)
    return kept


def check_server(server: str, host: Host, *, field: str) -> None:
    """Raise SpecError or PolicyDenied unless images may be asked for at this address, as far as the web can tell."""
    if urlsplit(_check_address(server, host, field=field, wrong="Give the server as https://HOST.")).query:
        raise SpecError("The server's address may hold no query.", field=field)


def _check_address(url: str, host: Host, *, field: str, wrong: str) -> str:
    """Return an address that may be asked; raises SpecError (with these words where it is none), PolicyDenied."""
    rules: Mapping[str, Any] = host.facts.get("policy", {})
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SpecError(wrong, field=field) from None
    insecure = parts.netloc.lower() in rules.get("insecure", ())
    if parts.scheme != "https" and not (insecure and parts.scheme == "http"):
        raise SpecError(wrong, field=field)
    if parts.username is not None or parts.fragment:
        raise SpecError("The address may hold no user and no fragment.", field=field)
    if not insecure:
        check_remote(url, field=field, named=tuple(rules.get("sources", ())))
    return url


def _complete(actor: Actor, upload_id: str, field: str) -> None:
    try:
        upload = uploads.find(actor, upload_id)
    except NotFound:
        raise SpecError("You have no such upload: send the file first.", field=field) from None
    if upload.received_bytes != upload.size_bytes:
        left = upload.size_bytes - upload.received_bytes
        raise SpecError(say("The upload is not complete: %(left)s bytes are missing.", left=left), field=field)


def _path(path: str, field: str) -> None:
    parts = path.split("/")
    if not path or len(path) > PATH_MAX or path.startswith("/") or ".." in parts or not path.isprintable():
        raise SpecError("Give a path below the directory, without .. in it.", field=field)


def _check_recipe(source: dict[str, Any], host: Host) -> dict[str, Any]:
    """Return an image's source, of those that builders on the host make; raises SpecError.

    Raises PolicyDenied for a local mirror, unless the host's policy, as its worker last told it, names it.
    """
    kind = source.get("type")
    if kind == "busybox":
        return {"type": "busybox"}
    if kind != "debootstrap":
        raise SpecError(say("Images cannot be made from %(kind)r.", kind=kind), field="source.type")
    recipes.check(source)
    if mirror := source.get("mirror"):
        check_remote(mirror, field="source.mirror", named=tuple(host.facts.get("policy", {}).get("sources", ())))
    return {name: value for name, value in source.items() if value is not None}


def check_remote(url: str, *, field: str, named: tuple[str, ...] = ()) -> None:
    """Raise PolicyDenied where a URL's host is written as a loopback or private address.

    named: host names and subnets that the host's policy names as sources all the same.
    A name may still lead to one: whoever fetches it looks again at what it resolves to.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        good = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise SpecError("Give an http or https address.", field=field)
    address = _address(host)
    try:
        policy.check_source(policy.Policy(images=policy.Images(sources=named)), host, [address] if address else [])
    except PolicyDenied:
        raise PolicyDenied("Loopback and private addresses are not allowed as sources.", field=field) from None


def _address(host: str) -> str | None:
    """Return the address that a URL's host is, as inet_aton(3) reads it too: 127.1, 0x7f.1; None for a name."""
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    for read in (ipaddress.ip_address, lambda text: ipaddress.IPv4Address(socket.inet_aton(text))):
        try:
            return str(read(host))
        except (OSError, ValueError):
            continue
    return None
