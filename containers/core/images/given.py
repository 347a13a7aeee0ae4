"""Images out of files: an archive that was uploaded, lies in a directory that the host's policy names, or on a server.

What the archive is shows when it is unpacked: a root file system, with the metadata of Incus, LXD or LXC or none; an
OCI layout; what ``docker save`` writes. All of it is unpacked confined, and what then is found by names that the
archive chose is opened without following links.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ..archives.unpacking import BadArchive
from ..hoststore import store
from ..kernel import files
from ..rules import policy_file
from ..sentences import say
from . import metadata, oci, staging
from .layered import Bench, Made
from .remote import Remote

_ROOT_NAMES: Final = ("bin", "etc", "sbin", "usr")
_HASH_BYTES: Final = 4 << 20


def from_file(bench: Bench) -> Made:
    """Make an image of ``{"type": "upload", "upload", "metadata"?, "sha256"?}`` or of a served file ("path")."""
    order, source = bench.order, bench.order.source
    name = "upload" if source["type"] == "upload" else "path"
    file = bench.directory / "file"
    order.progress(1, "Copying the file")
    size, digest = staging.take(
        order, source, name, file, lambda part: order.progress(1 + int(14 * part), "Copying the file")
    )
    told = _described(bench)
    return _whatever(bench, file, told, {"file_sha256": digest, "file_bytes": size}, f"source.{name}", done_pct=15)


def from_url(bench: Bench) -> Made:
    """Make an image of ``{"type": "url", "url", "sha256"?}``, an archive that a server has."""
    order, source = bench.order, bench.order.source
    url, file = str(source["url"]), bench.directory / "file"
    order.progress(1, say("Asking %(host)s", host=urlsplit(url).hostname))
    with Remote(order, policy_file.load(order.host), "source.url") as remote:
        digest = remote.fetch(
            url,
            file,
            digest=source.get("sha256"),
            size_bytes=None,
            tell=lambda part: order.progress(1 + int(49 * part), "Fetching"),
            most_bytes=remote.rules.images.max_bytes,
        )
    details = {"file_sha256": digest, "file_bytes": file.stat().st_size}
    return _whatever(bench, file, {}, details, "source.url", done_pct=50)


def _whatever(
    bench: Bench, file: Path, told: dict[str, str], details: dict[str, Any], field: str, *, done_pct: int
) -> Made:
    """Make an image of an archive, whatever it turns out to be. told: what a file beside it said of it."""
    order = bench.order
    layer, rootfs = bench.begin()
    bench.unpack(
        file,
        rootfs,
        layer=False,
        tell=lambda part, entries: order.progress(
            done_pct + int((80 - done_pct) * part), say("%(n)s files", n=entries)
        ),
        named=field,
    )
    file.unlink()
    names = set(os.listdir(rootfs))
    if {"oci-layout", "index.json", "blobs"} <= names:
        return _layout(bench, layer, rootfs, details)
    if "manifest.json" in names and not names & set(_ROOT_NAMES):
        return _docker(bench, layer, rootfs, details)
    if "metadata.yaml" in names and "rootfs" in names:
        told |= metadata.of_yaml(oci.read_inside(rootfs, "metadata.yaml") or b"")
        rootfs = _lift(bench, layer)
    return root_of(bench, layer, rootfs, told, details)


def _described(bench: Bench) -> dict[str, str]:
    """Return what the file beside tells, where one was given: metadata.tar.xz of Incus, meta.tar.xz of LXC."""
    order, source = bench.order, bench.order.source
    if not source.get("metadata"):
        return {}
    file = bench.directory / "metadata-file"
    staging.take(order, source, "metadata", file, lambda _part: None)
    return describe(bench, file, "source.metadata")


def describe(bench: Bench, file: Path, field: str) -> dict[str, str]:
    """Return what an archive with metadata.yaml tells, and remove it; LXC's meta.tar.xz, with its config, nothing."""
    with store.making(bench.order.host) as directory:
        tree = directory / "rootfs"
        tree.mkdir(mode=0o755)
        bench.unpack(file, tree, layer=False, tell=lambda _part, _entries: None, named=field)
        file.unlink()
        data = oci.read_inside(tree, "metadata.yaml")
        if data is None and oci.read_inside(tree, "config") is None:
            raise BadArchive("There is no metadata.yaml in it.", field=field, entry="", limit="")
        return metadata.of_yaml(data or b"")


def _lift(bench: Bench, layer: str) -> Path:
    """Make the directory rootfs of an unpacked archive the layer's tree; return it."""
    outer = bench.new[layer] / "outer"
    rootfs = bench.new[layer] / "rootfs"
    rootfs.rename(outer)
    with files.opened(outer) as outer_fd:
        if not stat.S_ISDIR(os.stat("rootfs", dir_fd=outer_fd, follow_symlinks=False).st_mode):
            raise BadArchive("Its rootfs is no directory.", field="source", entry="rootfs", limit="")
        os.rename("rootfs", rootfs, src_dir_fd=outer_fd)
    store.discard(bench.order.host, outer)
    return rootfs


def root_of(bench: Bench, layer: str, rootfs: Path, told: dict[str, str], details: dict[str, Any]) -> Made:
    """Take an unpacked tree as a system's root file system. told: what metadata said of it."""
    if not set(os.listdir(rootfs)) & set(_ROOT_NAMES):
        raise BadArchive(
            "There is no root file system in it: neither bin nor etc, sbin or usr.", field="source", entry="", limit=""
        )
    architecture = told.get("architecture", "")
    if not metadata.runs_here(architecture):
        raise BadArchive(
            say("It is for other machines than this one: %(architecture)s.", architecture=architecture),
            field="source",
            entry="",
            limit="",
        )
    runs = system_defaults(rootfs)
    if not runs["init_command"]:
        bench.order.log("There is no init in it: give its containers an init_command.")
    bench.finish(layer, kind="image")
    release = oci.read_inside(rootfs, "etc/os-release") or oci.read_inside(rootfs, "usr/lib/os-release") or b""
    about = {**metadata.of_os_release(release), **told}
    if architecture:
        about["architecture"] = metadata.machine(architecture)
    return Made(defaults=runs, details=metadata.shown(kind="system", **about, **details))


def system_defaults(rootfs: Path) -> dict[str, Any]:
    """Return what boots a system: its init. By which signal that one shuts down shows when it runs (halt.choose)."""
    for path in ("sbin/init", "usr/sbin/init", "lib/systemd/systemd", "usr/lib/systemd/systemd", "init"):
        if _is_there(rootfs, path):
            return {"init_command": [f"/{path}"], "environment": {}}
    return {"init_command": [], "environment": {}}


def _is_there(rootfs: Path, path: str) -> bool:
    """Tell whether a program is there; only the usual links of a merged /usr are followed: sbin to usr/sbin."""
    *parents, name = path.split("/")
    with files.opened(rootfs) as top_fd:
        if parents and (merged := _read_link(top_fd, parents[0])):
            parents = [part for part in merged.split("/") if part] + parents[1:]
            if ".." in parents:
                return False
        try:
            with files.entered(top_fd, parents) as directory_fd:
                os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except OSError:
            return False
    return True


def _read_link(directory_fd: int, name: str) -> str:
    try:
        return os.readlink(name, dir_fd=directory_fd)
    except OSError:
        return ""


# archives of OCI images


def _layout(bench: Bench, layer: str, tree: Path, details: dict[str, Any]) -> Made:
    """Take the image of an OCI layout. Source: OCI image-spec, image-layout.md."""
    aside = _aside(bench, layer, tree)

    def read(one: oci.Blob) -> dict[str, Any]:
        data = oci.read_inside(aside, f"blobs/sha256/{one.digest}", oci.JSON_MAX_BYTES)
        if data is None:
            raise oci.bad(say("The archive lacks a part of the image: sha256:%(digest)s.", digest=one.digest))
        return oci.document(data, one.digest)

    index = oci.document(oci.read_inside(aside, "index.json") or b"")
    listed = index.get("manifests")
    named = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if len(named) > 1 and not any("platform" in one for one in named):
        raise oci.bad(say("The archive holds %(named)s images: pack the one that you want.", named=len(named)))
    found = read(chosen := oci.choose(index))
    for _depth in range(4):
        if "manifests" not in found:
            break
        found = read(chosen := oci.choose(found))
    config, layers = oci.config_and_layers(found)
    parts = [_layer_in(bench, aside, ("blobs", "sha256"), one.digest, one.digest) for one in layers]
    return _taken(bench, aside, read(config), parts, digest=f"sha256:{chosen.digest}", **details)


def _docker(bench: Bench, layer: str, tree: Path, details: dict[str, Any]) -> Made:
    """Take the image of an archive of ``docker save``, which names files and no digests but the configuration's."""
    aside = _aside(bench, layer, tree)
    try:
        listed = json.loads(oci.read_inside(aside, "manifest.json", oci.JSON_MAX_BYTES) or b"")
        [image] = listed
        paths = [str(path) for path in image["Layers"]]
        config = oci.read_inside(aside, str(image["Config"]).lstrip("/"), oci.JSON_MAX_BYTES)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise oci.bad("The archive's manifest.json does not name one image.") from None
    if len(paths) > oci.LAYERS_MAX or config is None:
        raise oci.bad("The archive lacks its image's configuration, or has too many layers.")
    parts = []
    for path in paths:
        *parents, name = _resolved(aside, path)
        parts.append(_layer_in(bench, aside, tuple(parents), name, None))
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    return _taken(bench, aside, oci.document(config), parts, config_digest=digest, **details)


def _resolved(aside: Path, path: str) -> list[str]:
    """Return the names on the way to a layer; one that is there twice is a link to the first, ``../ID/layer.tar``."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise oci.bad("The archive's manifest.json names a file outside of it.")
    with files.opened(aside) as top_fd:
        try:
            with files.entered(top_fd, parts[:-1]) as directory_fd:
                target = _read_link(directory_fd, parts[-1])
        except OSError:
            return parts
    if not target:
        return parts
    found = [part for part in os.path.normpath("/".join([*parts[:-1], target])).split("/") if part]
    if not found or ".." in found:
        raise oci.bad("A layer of the archive lies outside of it.")
    return found


def _aside(bench: Bench, layer: str, tree: Path) -> Path:
    """Take the tree of an archive off the bench: it holds an image, and is none."""
    aside = bench.directory / "unpacked"
    tree.rename(aside)
    store.discard(bench.order.host, bench.new.pop(layer))
    return aside


def _taken(bench: Bench, aside: Path, config: dict[str, Any], parts: list[oci.Layer], **details: Any) -> Made:
    made = oci.take(bench, config, parts, **details)
    store.discard(bench.order.host, aside)
    return made


def _layer_in(bench: Bench, aside: Path, parents: tuple[str, ...], name: str, digest: str | None) -> oci.Layer:
    """Return a layer that is a file of an unpacked archive. digest: what it must have; None: its diff_id is enough."""

    def fetch(target: Path, tell: Callable[[float], None]) -> None:
        try:
            with files.opened(aside) as top_fd, files.entered(top_fd, parents) as directory_fd:
                # one more name for the same file, in a directory that is nobody else's: nothing is copied
                os.link(name, target, src_dir_fd=directory_fd, follow_symlinks=False)
        except OSError:
            raise oci.bad(
                say("The archive lacks a layer: %(name)s.", name=metadata.text("/".join((*parents, name))))
            ) from None
        if not stat.S_ISREG(os.lstat(target).st_mode):
            raise oci.bad("A layer of the archive is no file.")
        if digest is not None and _digest(bench, target, tell) != digest:
            raise oci.bad(say("A layer of the archive is not the one of digest sha256:%(digest)s.", digest=digest))
        os.chown(target, 0, 0)

    try:
        with files.opened(aside) as top_fd, files.entered(top_fd, parents) as directory_fd:
            size = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_size
    except OSError:
        raise oci.bad(
            say("The archive lacks a layer: %(name)s.", name=metadata.text("/".join((*parents, name))))
        ) from None
    return oci.Layer(size_bytes=size, fetch=fetch)


def _digest(bench: Bench, path: Path, tell: Callable[[float], None]) -> str:
    found, done, size = hashlib.sha256(), 0, max(1, path.stat().st_size)
    with open(path, "rb") as file:
        while data := file.read(_HASH_BYTES):
            bench.order.check_cancelled()
            found.update(data)
            done += len(data)
            tell(done / size)
    return found.hexdigest()
