"""OCI images, wherever they lie: manifests and configurations checked, layers taken one by one. No network here.

Sources: OCI image-spec (manifest.md, image-index.md, config.md, layer.md) 1.1; the archive of ``docker save``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..archives.unpacking import BadArchive
from ..errors import SpecError
from ..failpoints import failpoint
from ..kernel import files
from ..kernel.halt import parse as parse_signal
from ..model.behaviour import Init
from ..model.spec import check_environment
from ..sentences import say
from ..storage.marks import is_opaque
from ..storage.stack import copy_attributes
from . import metadata
from .layered import Bench, Made

JSON_MAX_BYTES: Final = 4 << 20
VALUES_MAX: Final = 1_000_000
"""Of a document: what three bytes say can take a hundred when it has been read."""
_BEFORE_VALUES: Final = (b",", b"[", b"{")
LAYERS_MAX: Final = 127
DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INITS: Final = ("/sbin/init", "/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/usr/sbin/init")
_LABELS: Final = "org.opencontainers.image."
_SHOWN_LABELS: Final = ("description", "licenses", "revision", "source", "title", "url", "version")
_PORT = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:/(?:tcp|udp|sctp))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Something that is known by its digest (sha256, hexadecimal). size_bytes: None where nobody said."""

    digest: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer to be had. fetch: puts its file, whose digest it has checked, at a path. size_bytes: of that file."""

    size_bytes: int
    fetch: Callable[[Path, Callable[[float], None]], None]


def bad(message: str) -> BadArchive:
    """Return the error for an image that is not one."""
    return BadArchive(message, field="source", entry="", limit="")


def document(data: bytes, digest: str | None = None, *, most_bytes: int = JSON_MAX_BYTES) -> dict[str, Any]:
    """Return a JSON object that has this digest, where one is given; raises BadArchive."""
    if len(data) > most_bytes:
        raise bad(say("A document of the image is larger than %(most_bytes)s bytes.", most_bytes=most_bytes))
    if sum(map(data.count, _BEFORE_VALUES)) > VALUES_MAX:
        raise bad(say("A document of the image lists more than %(most)s things.", most=VALUES_MAX))
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise bad(say("A document of the image is not the one of digest sha256:%(digest)s.", digest=digest))
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise bad("A document of the image is no JSON.") from None
    if not isinstance(found, dict):
        raise bad("A document of the image is no JSON object.")
    return found


def blob(descriptor: object) -> Blob:
    """Return what a descriptor refers to; raises BadArchive for another digest than sha256."""
    values = descriptor if isinstance(descriptor, dict) else {}
    match = DIGEST.fullmatch(str(values.get("digest")))
    size = values.get("size")
    if match is None or not (size is None or (isinstance(size, int) and 0 <= size < 1 << 50)):
        raise bad("A part of the image has no sha256 digest, or no size.")
    return Blob(digest=match[1], size_bytes=size)


def choose(index: dict[str, Any], *, here: str | None = None) -> Blob:
    """Return the manifest of an index that is for this host; raises BadArchive naming those that there are."""
    offered: list[str] = []
    entries = index.get("manifests")
    if not isinstance(entries, list):
        raise bad("The image's index lists nothing.")
    found: list[tuple[bool, Blob]] = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("artifactType"):
            continue
        platform = entry.get("platform")
        platform = platform if isinstance(platform, dict) else {}
        system, machine = str(platform.get("os") or "linux"), str(platform.get("architecture") or "")
        if "unknown" in (system, machine):  # build attestations
            continue
        offered.append(metadata.text(f"{system}/{machine}" if machine else system))
        if system == "linux" and metadata.runs_here(machine, here=here):
            found.append((metadata.machine(machine) != (here or os.uname().machine), blob(entry)))
    if not found:
        raise bad(
            say(
                "The image is for other machines than this one: %(offered)s.",
                offered=", ".join(offered[:20]) or "none at all",
            )
        )
    return min(found, key=lambda one: one[0])[1]


def config_and_layers(manifest: dict[str, Any]) -> tuple[Blob, list[Blob]]:
    """Return the configuration and the layers that a manifest names, the lowest first; raises BadArchive."""
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) > LAYERS_MAX or "config" not in manifest:
        raise bad("The image's manifest is none: it names no configuration or no layers.")
    config = manifest["config"]
    kind = str(config.get("mediaType", "")) if isinstance(config, dict) else ""
    if kind and "image.config" not in kind and "container.image" not in kind:
        raise bad("This is an artifact, not an image.")
    return blob(config), [blob(layer) for layer in layers]


def take(bench: Bench, config: dict[str, Any], layers: Sequence[Layer], **details: Any) -> Made:
    """Put an image's layers on the bench, those that are here already shared; return what its containers are.

    Raises BadArchive where a layer is not the one that the configuration names, and as Bench.unpack does.
    """
    diffs = _diffs(config, len(layers))
    architecture = str(config.get("architecture") or "")
    if str(config.get("os") or "linux") != "linux" or not metadata.runs_here(architecture):
        raise bad(
            say(
                "The image is for other machines than this one: %(architecture)s.",
                architecture=metadata.text(architecture),
            )
        )
    runs = defaults(config)
    total = max(1, sum(layer.size_bytes for layer in layers))
    done, chain = 0, ""
    for number, (diff, layer) in enumerate(zip(diffs, layers, strict=True), 1):
        chain = diff if not chain else hashlib.sha256(f"sha256:{chain} sha256:{diff}".encode()).hexdigest()
        bench.order.check_cancelled()
        words = say("Layer %(number)s of %(count)s", number=number, count=len(layers))
        if bench.share(f"sha256:{diff}", f"chain:{chain}"):
            bench.order.log(f"{words} is here already")
        else:
            _one(bench, layer, diff, chain, words, (2 + 94 * done // total, 94 * layer.size_bytes / total))
        done += layer.size_bytes
    system = "kind" not in runs.get("init", {})
    return Made(
        defaults=runs,
        details=metadata.shown(
            architecture=metadata.machine(architecture),
            kind="system" if system else "application",
            created_at=metadata.text(config.get("created") or ""),
            ports=ports(config),
            labels=labels(config),
            **_of_system(bench),
            **details,
        ),
    )


def _one(bench: Bench, layer: Layer, diff: str, chain: str, words: str, span: tuple[int, float]) -> None:
    """Fetch and unpack one layer. span: where its share of the progress begins, and how long it is."""
    begin, width = span
    tell = bench.order.progress
    file = bench.directory / "blob"
    layer.fetch(file, lambda part: tell(int(begin + width * part * 0.5), say("%(layer)s: fetching", layer=words)))
    failpoint(bench.order.host.state_dir, "image.fetched")
    made, rootfs = bench.begin()
    told = bench.unpack(
        file,
        rootfs,
        layer=True,
        tell=lambda part, entries: tell(
            int(begin + width * (0.5 + part * 0.5)), say("%(layer)s: %(n)s files", layer=words, n=entries)
        ),
    )
    file.unlink()
    if told.diff_id != diff:
        raise bad(
            say(
                "%(words)s is not the one that the image's configuration names (sha256:%(diff)s).",
                words=words,
                diff=diff,
            )
        )
    # directories that the layer does not speak of look as below: such a layer is fit for this chain only
    bound = _dress(bench, rootfs, told.implicit)
    bench.finish(made, kind="oci", key=f"chain:{chain}" if bound else f"sha256:{diff}", diff_id=diff)


def _dress(bench: Bench, rootfs: Path, implicit: Sequence[str]) -> bool:
    """Give directories that only came along the look of those below; returns whether any was there."""
    bound = False
    for path in implicit:
        parts = path.split("/")
        for below in reversed(bench.stack):
            try:
                with files.opened(bench.rootfs(below)) as top_fd, files.entered(top_fd, parts) as source_fd:
                    with files.opened(rootfs) as own_fd, files.entered(own_fd, parts) as target_fd:
                        if not is_opaque(target_fd):
                            copy_attributes(source_fd, target_fd)
                            bound = True
                break
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                break
    return bound


def _diffs(config: dict[str, Any], count: int) -> list[str]:
    listed = config.get("rootfs", {}).get("diff_ids") if isinstance(config.get("rootfs"), dict) else None
    found = [DIGEST.fullmatch(str(diff)) for diff in listed or ()]
    if not isinstance(listed, list) or len(listed) != count or not all(found):
        raise bad("The image's configuration does not name its layers.")
    return [match[1] for match in found if match is not None]


# what its containers are


def defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Return what an image's containers run, and how; raises BadArchive for what no container could be.

    An image whose command is an init is a system; every other one an application.
    """
    asked = config.get("config") if isinstance(config.get("config"), dict) else {}
    assert isinstance(asked, dict)
    entry, command = _words(asked.get("Entrypoint")), _words(asked.get("Cmd"))
    program, arguments = (entry, command) if entry else (command[:1], command[1:])
    found: dict[str, Any] = {"environment": _environment(asked.get("Env"))}
    if stop := asked.get("StopSignal"):
        found["halt_signal"] = _signal(str(stop))
    init: dict[str, Any] = {}
    if not program or program[0] in _INITS:
        program, arguments = [*(program or ["/sbin/init"]), *arguments], []
    else:
        init = {"kind": "application", "arguments": arguments}
        if user := str(asked.get("User") or ""):
            init["user"] = user
        if (cwd := str(asked.get("WorkingDir") or "")) not in ("", "/"):
            init["cwd"] = cwd
    found |= {"init_command": program, "init": {name: value for name, value in init.items() if value}}
    try:
        Init.from_dict(found["init"]).check()
        check_environment(found["environment"])
        if sum(map(len, program)) > 32768 or any("\0" in word for word in program):
            raise SpecError("Its command is too long.")
    except SpecError as error:
        raise bad(
            say("The image's configuration is none that a container could have: %(message)s", message=error.message)
        ) from None
    return found


def _words(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise bad("The image's command is no list of words.")
    return list(value)


def _environment(value: object) -> dict[str, str]:
    found = {}
    for entry in _words(value):
        name, _, text = entry.partition("=")
        if name:
            found[name] = text
    return found


def _signal(name: str) -> str:
    wanted = name if name.isdigit() or name.startswith("SIG") else f"SIG{name}"
    try:
        parse_signal(wanted)
    except ValueError:
        raise bad(say("The image's stop signal is none: %(name)s.", name=metadata.text(name))) from None
    return wanted


def ports(config: dict[str, Any]) -> list[str]:
    """Return the ports that an image says its program listens on, such as 80/tcp: to be shown, nothing is opened."""
    asked = config.get("config") if isinstance(config.get("config"), dict) else {}
    assert isinstance(asked, dict)
    listed = asked.get("ExposedPorts")
    names = sorted(listed) if isinstance(listed, dict) else []
    return [name if "/" in name else f"{name}/tcp" for name in names if _PORT.fullmatch(name)][:64]


def labels(config: dict[str, Any]) -> dict[str, str]:
    """Return what an image says of itself in the labels that OCI has names for."""
    asked = config.get("config") if isinstance(config.get("config"), dict) else {}
    listed = asked.get("Labels") if isinstance(asked, dict) else None
    if not isinstance(listed, dict):
        return {}
    return {name: metadata.text(listed[_LABELS + name]) for name in _SHOWN_LABELS if listed.get(_LABELS + name)}


def _of_system(bench: Bench) -> dict[str, str]:
    """Return what the uppermost os-release file of the stack tells."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        for layer in reversed(bench.stack):
            if (data := read_inside(bench.rootfs(layer), path)) is not None:
                return metadata.of_os_release(data)
    return {}


def read_inside(tree: Path, path: str, most_bytes: int = metadata.MAX_BYTES) -> bytes | None:
    """Return the content of a regular file of a hostile tree, following no link; None where there is none such."""
    *parents, name = path.split("/")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        with files.opened(tree) as top_fd, files.entered(top_fd, parents) as directory_fd:
            with open(os.open(name, flags, dir_fd=directory_fd), "rb") as file:
                if not os.path.isfile(file.fileno()) or os.fstat(file.fileno()).st_size > most_bytes:
                    return None
                return file.read(most_bytes)
    except OSError:
        return None
