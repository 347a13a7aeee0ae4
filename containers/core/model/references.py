"""Names of images in registries, as people write them: alpine, ghcr.io/owner/name:tag, host:5000/a/b@sha256:... Pure.

Source of the grammar: the reference package of distribution/distribution; Docker's own short names are its history's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..errors import SpecError

HUB: Final = "docker.io"
_HUB_HOST: Final = "registry-1.docker.io"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One image of one registry. registry: as written, with its port. tag or digest says which; a digest wins."""

    registry: str
    repository: str
    tag: str
    digest: str | None

    @property
    def endpoint(self) -> str:
        """Return the host, and port, that answers for the registry."""
        return _HUB_HOST if self.registry == HUB else self.registry

    @property
    def host(self) -> str:
        """Return the host name or address that is connected to."""
        return self.endpoint.rpartition(":")[0] if re.search(r":[0-9]+$", self.endpoint) else self.endpoint

    @property
    def wanted(self) -> str:
        """Return what a manifest is asked for by."""
        return self.digest or self.tag

    def __str__(self) -> str:
        """Return it in full."""
        return f"{self.registry}/{self.repository}{f'@{self.digest}' if self.digest else f':{self.tag}'}"


def parse(text: str, field: str = "source.reference") -> Reference:
    """Return what a person's words mean: without a registry Docker's, without a tag latest. Raises SpecError."""
    bad = SpecError(
        "Write it as REGISTRY/NAME:TAG or NAME:TAG, such as debian:12 or ghcr.io/owner/name:1.0.", field=field
    )
    rest = text
    for prefix in ("docker://", "oci://"):
        rest = rest.removeprefix(prefix)
    rest, at, digest = rest.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise SpecError("A digest is sha256: and 64 hexadecimal digits.", field=field)
    first, slash, others = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, rest = first, others
    else:
        registry = HUB
    name, colon, tag = rest.partition(":")
    match = _HOST.fullmatch(registry)
    if match is None or (match["port"] and not 0 < int(match["port"]) < 65536):
        raise bad
    if registry == HUB and "/" not in name:
        name = f"library/{name}"
    if not _REPOSITORY.fullmatch(name) or len(name) > 255 or (colon and not _TAG.fullmatch(tag)):
        raise bad
    return Reference(registry=registry.lower(), repository=name, tag=tag or "latest", digest=digest if at else None)
