"""Images of simplestreams servers, in the layout of images.linuxcontainers.org.

An index names files of products; a product is a distribution's release in one variant for one architecture, with
aliases; its newest version that is complete is taken: a root file system, and Incus's metadata beside it. Every file's
sha256 stands in the list, which came by https, or is signed by a key that the host's policy names for the server: in
the same file (.sjson) or beside it (.json.gpg); one that is older than the one seen last is refused (freshness.py).
Differences between versions (vcdiff) are never asked for.
Source: the simplestreams formats index:1.0 and products:1.0, and the server's own files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, overload
from urllib.parse import quote, urlsplit

from ..errors import PolicyDenied, SpecError
from ..rules import policy_file
from ..sentences import say
from . import freshness, given, metadata, oci, signing
from .base import Order
from .layered import Bench, Made
from .remote import Remote

LIST_MAX_BYTES: Final = 32 << 20
PRODUCTS_MAX: Final = 20_000
_ROOTS: Final = ("squashfs", "root.tar.xz", "root.tar.gz", "root.tar.zst")
"""By preference; ftype of a product's item."""
_METADATA: Final = ("incus.tar.xz", "lxd.tar.xz")
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:+@-]*(?:/[A-Za-z0-9][A-Za-z0-9._~:+@-]*)*", re.ASCII)
"""Of a path: nothing that leads up, nothing that an address would read otherwise."""
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file to be had. path: below the server's address."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The newest version of a distribution's release, as it is offered. serial: that version's name."""

    aliases: tuple[str, ...]
    architecture: str
    os: str
    release: str
    variant: str
    serial: str
    root: Item
    described: Item


def from_server(bench: Bench) -> Made:
    """Make an image of ``{"type": "simplestreams", "server", "alias", "architecture"?}``."""
    order, source = bench.order, bench.order.source
    server, alias = str(source["server"]).rstrip("/"), str(source["alias"])
    order.progress(1, say("Asking %(host)s", host=urlsplit(server).hostname))
    with Remote(order, policy_file.load(order.host), "source.server") as remote:
        product = choose(list(catalogue(remote, server)), alias, str(source.get("architecture") or ""))
        order.log(f"{alias} is {product.os} {product.release} {product.variant}, {product.serial}")
        files = {"root": bench.directory / "file", "described": bench.directory / "metadata-file"}
        total = product.root.size_bytes + product.described.size_bytes
        done = 0
        for name, file in files.items():
            item: Item = getattr(product, name)
            remote.fetch(
                f"{server}/{quote(item.path, safe='/:@+~')}",
                file,
                digest=item.sha256,
                size_bytes=item.size_bytes,
                tell=lambda part, item=item, done=done: order.progress(  # type: ignore[misc]
                    2 + int(48 * (done + part * item.size_bytes) / max(1, total)), "Fetching"
                ),
                most_bytes=remote.rules.images.max_bytes,
            )
            done += item.size_bytes
    told = given.describe(bench, files["described"], "source.server")
    layer, rootfs = bench.begin()
    bench.unpack(
        files["root"],
        rootfs,
        layer=False,
        tell=lambda part, entries: order.progress(50 + int(45 * part), say("%(n)s files", n=entries)),
        named="source.server",
    )
    files["root"].unlink()
    about = {"os": product.os, "release": product.release, "variant": product.variant, **told}
    about["architecture"] = product.architecture
    details = {"file_sha256": product.root.sha256, "serial": product.serial, "server": server, "alias": alias}
    return given.root_of(bench, layer, rootfs, about, details)


def catalogue(remote: Remote, server: str) -> Iterator[Product]:
    """Yield what a server offers; raises SpecError where it is none, BadArchive where what it says is nonsense."""
    index = _document(remote, f"{server}/streams/v1/index.json")
    entries = index.get("index")
    for entry in entries.values() if isinstance(entries, dict) else ():
        if not isinstance(entry, dict) or entry.get("datatype") != "image-downloads":
            continue
        products = _document(remote, f"{server}/{_path(entry.get('path'))}").get("products")
        if not isinstance(products, dict) or len(products) > PRODUCTS_MAX:
            raise oci.bad("The server's list of images is none.")
        for product in products.values():
            if isinstance(product, dict) and (found := _product(product)) is not None:
                yield found


def listing(order: Order) -> list[dict[str, Any]]:
    """Return what ``order.source["server"]`` offers for this host, as JSON values, by name and architecture."""
    server = str(order.source["server"]).rstrip("/")
    with Remote(order, policy_file.load(order.host), "server") as remote:
        offered = [product for product in catalogue(remote, server) if metadata.runs_here(product.architecture)]
    found = [
        {
            "alias": min(product.aliases, key=len),
            "os": product.os,
            "release": product.release,
            "variant": product.variant,
            "architecture": product.architecture,
            "serial": product.serial,
            "size_bytes": product.root.size_bytes,
        }
        for product in offered
        if product.aliases
    ]
    return sorted(found, key=lambda item: (item["os"].lower(), item["release"], item["variant"], item["architecture"]))


def choose(offered: list[Product], alias: str, architecture: str = "", *, here: str | None = None) -> Product:
    """Return the product of an alias for this host, or for a named architecture that it runs; raises SpecError."""
    wanted = metadata.machine(architecture) if architecture else here or os.uname().machine
    if not metadata.runs_here(wanted, here=here):
        raise SpecError("This host runs no programs of that architecture.", field="source.architecture")
    mine = [product for product in offered if product.architecture == wanted]
    for product in mine:
        if alias in product.aliases:
            return product
    first = alias.partition("/")[0]
    near = sorted({name for product in mine for name in product.aliases if name.partition("/")[0] == first})
    others = sorted({product.aliases[0].partition("/")[0] for product in mine if product.aliases})
    told = ", ".join((near or others)[:30]) or "nothing for this architecture"
    raise SpecError(
        say("There is no %(alias)s for %(wanted)s. There is: %(told)s.", alias=alias, wanted=wanted, told=told),
        field="source.alias",
    )


def _document(remote: Remote, url: str) -> dict[str, Any]:
    """Return a list of a server's, whose signature was checked where there has to be one, and which is no old one."""
    parts = urlsplit(url)
    keyring = remote.rules.images.keyrings.get(parts.netloc.lower())
    if keyring is None and parts.scheme != "https":
        raise PolicyDenied(
            say(
                "What %(netloc)s offers is not encrypted: name a keyring for it under images.keyrings in the policy.",
                netloc=parts.netloc,
            ),
            field=remote.field,
        )
    data, signed_at = _signed(remote, url, keyring) if keyring is not None else (_read(remote, url), None)
    found = oci.document(data, most_bytes=LIST_MAX_BYTES)
    freshness.require_newest(
        remote.order, url, signed_at=signed_at, updated_at=freshness.told(found), field=remote.field
    )
    return found


def _signed(remote: Remote, url: str, keyring: str) -> tuple[bytes, float | None]:
    """Return a list and when it was signed."""
    plain = url.removesuffix(".sjson").removesuffix(".json")
    if (whole := _read(remote, f"{plain}.sjson", missing=True)) is not None:
        return signing.inside(whole, keyring)
    document = _read(remote, f"{plain}.json")
    return signing.beside(document, _read(remote, f"{plain}.json.gpg"), keyring)


@overload
def _read(remote: Remote, url: str) -> bytes: ...
@overload
def _read(remote: Remote, url: str, *, missing: Literal[True]) -> bytes | None: ...
def _read(remote: Remote, url: str, *, missing: bool = False) -> bytes | None:
    """Return what is at an address; missing: None where there is nothing."""
    status, _headers, data = remote.read(url, {"Accept": "application/json"}, LIST_MAX_BYTES)
    if status == 404 and missing:
        return None
    if status != 200:
        raise SpecError(
            say("This is no simplestreams server: %(url)s answers with %(status)s.", url=url, status=status),
            field="source.server",
        )
    return data


def _product(product: dict[str, Any]) -> Product | None:
    """Return a product's newest complete version; None where it has none."""
    versions = product.get("versions")
    if not isinstance(versions, dict):
        return None
    for serial in sorted((str(name) for name in versions), reverse=True):
        items = versions[serial].get("items") if isinstance(versions[serial], dict) else None
        by_type = {
            str(item.get("ftype")): item
            for item in (items.values() if isinstance(items, dict) else ())
            if isinstance(item, dict)
        }
        root = next((found for kind in _ROOTS if (found := _item(by_type.get(kind))) is not None), None)
        described = next((found for kind in _METADATA if (found := _item(by_type.get(kind))) is not None), None)
        if root is None or described is None:
            continue
        aliases = [metadata.text(alias) for alias in str(product.get("aliases") or "").split(",")]
        return Product(
            aliases=tuple(alias for alias in aliases if alias),
            architecture=metadata.machine(metadata.text(product.get("arch") or "")),
            os=metadata.text(product.get("os") or ""),
            release=metadata.text(product.get("release") or ""),
            variant=metadata.text(product.get("variant") or "default"),
            serial=metadata.text(serial),
            root=root,
            described=described,
        )
    return None


def _item(item: object) -> Item | None:
    values = item if isinstance(item, dict) else {}
    sha256, size, path = str(values.get("sha256")), values.get("size"), str(values.get("path"))
    if not _SHA256.fullmatch(sha256) or not isinstance(size, int) or not 0 < size < 1 << 40:
        return None
    return Item(path=path, sha256=sha256, size_bytes=size) if _PATH.fullmatch(path) else None


def _path(path: object) -> str:
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise oci.bad("The server's index names no list.")
    return path
