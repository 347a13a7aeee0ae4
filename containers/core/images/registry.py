"""Images of OCI registries: found by name, for this machine, layer by layer, every part checked by its digest.

Sources: OCI distribution-spec 1.1; the token authentication of distribution/distribution (RFC 6750, RFC 7617).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from ..errors import PolicyDenied, SetupFailed, SpecError
from ..host import Host
from ..model import references
from ..rules import policy_file
from ..sentences import say
from . import metadata, oci
from .layered import Bench, Made
from .remote import Remote

FIELD: Final = "source.reference"
_TOKEN_MAX_BYTES: Final = 1 << 20
_ACCEPT: Final = ", ".join((*oci.INDEX_TYPES, *oci.MANIFEST_TYPES))
_CHALLENGE = re.compile(r'([a-z]+)="([^"]*)"', re.ASCII)
_DEPTH_MAX: Final = 3
_LAYER_MAX_BYTES: Final = 1 << 40


def from_registry(bench: Bench) -> Made:
    """Make an image of ``{"type": "oci", "reference", "project"?}``."""
    order = bench.order
    wanted = references.parse(str(order.source["reference"]), FIELD)
    rules = policy_file.load(order.host)
    with Remote(order, rules, FIELD) as remote:
        project = order.source.get("project")
        registry = Registry(remote, wanted, credentials(order.host, wanted.registry, project))
        order.progress(1, say("Asking %(host)s", host=wanted.registry))
        digest, manifest = registry.manifest(wanted.wanted)
        for _depth in range(_DEPTH_MAX):
            if "manifests" not in manifest:
                break
            chosen = oci.choose(manifest)
            digest, manifest = registry.manifest(f"sha256:{chosen.digest}")
        config, layers = oci.config_and_layers(manifest)
        order.log(f"{wanted} is sha256:{digest}")
        document = registry.document(config)
        parts = [oci.Layer(size_bytes=one.size_bytes or 0, fetch=registry.fetcher(one)) for one in layers]
        return oci.take(bench, document, parts, digest=f"sha256:{digest}", reference=str(wanted))


class Registry:
    """One repository of one registry, and the right to read it."""

    def __init__(self, remote: Remote, wanted: references.Reference, login: tuple[str, str] | None) -> None:
        self._remote = remote
        self._wanted = wanted
        self._login = login
        self._authorization: str | None = None
        insecure = {one.lower() for one in remote.rules.images.insecure}
        scheme = "http" if wanted.endpoint.lower() in insecure else "https"
        self._base = f"{scheme}://{wanted.endpoint}/v2/{wanted.repository}"

    def manifest(self, which: str) -> tuple[str, dict[str, Any]]:
        """Return a manifest or an index by tag or digest, and its digest (sha256, hexadecimal)."""
        data = self._read(f"{self._base}/manifests/{which}", {"Accept": _ACCEPT}, oci.JSON_MAX_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        asked = oci.DIGEST.fullmatch(which)
        return digest, oci.document(data, asked[1] if asked else None)

    def document(self, one: oci.Blob) -> dict[str, Any]:
        """Return a JSON object that is a blob."""
        return oci.document(self._read(f"{self._base}/blobs/sha256:{one.digest}", {}, oci.JSON_MAX_BYTES), one.digest)

    def fetcher(self, one: oci.Blob) -> Callable[[Path, Callable[[float], None]], None]:
        """Return what puts a blob, checked, at a path."""

        def fetch(target: Path, tell: Callable[[float], None]) -> None:
            self._remote.fetch(
                f"{self._base}/blobs/sha256:{one.digest}",
                target,
                digest=one.digest,
                size_bytes=one.size_bytes,
                tell=tell,
                private=self._private,
                renew=self._renew,
                most_bytes=min(_LAYER_MAX_BYTES, self._remote.rules.images.max_bytes),
            )

        return fetch

    def _renew(self, challenge: str) -> None:
        self._authorization = self._answer(challenge)

    def _private(self) -> Mapping[str, str]:
        return {"Authorization": self._authorization} if self._authorization else {}

    def _read(self, url: str, headers: Mapping[str, str], most_bytes: int) -> bytes:
        """Return a document; where the registry wants to know who asks, it is told, once."""
        for attempt in range(2):
            status, told, data = self._remote.read(url, headers, most_bytes, private=self._private())
            if status == 200:
                return data
            if status == 401 and attempt == 0:
                self._authorization = self._answer(told.get("WWW-Authenticate", ""))
                continue
            self._refuse(status)
        raise AssertionError("unreachable")

    def _refuse(self, status: int) -> None:
        """Raise what an answer means that is none."""
        name = str(self._wanted)
        if status == 404:
            raise SpecError(say("There is no %(name)s.", name=name), field=FIELD)
        if status in (401, 403):
            raise SpecError(
                say(
                    "%(registry)s does not give %(name)s to everybody, or there is none. Credentials for it are "
                    "written in the host's registries.toml.",
                    registry=self._wanted.registry,
                    name=name,
                ),
                field=FIELD,
            )
        if status == 429:
            raise SetupFailed(
                say("%(registry)s was asked too often; try again later.", registry=self._wanted.registry),
                step="download",
            )
        raise SetupFailed(
            say("%(registry)s answers with %(status)s.", registry=self._wanted.registry, status=status),
            step="download",
            path=name,
        )

    def _answer(self, challenge: str) -> str:
        """Return the Authorization header that a challenge asks for (RFC 9110 11.6.1)."""
        scheme, _, rest = challenge.partition(" ")
        asked = dict(_CHALLENGE.findall(rest))
        basic = None
        if self._login is not None:
            basic = f"Basic {base64.b64encode(':'.join(self._login).encode()).decode()}"
        if scheme.lower() == "basic" and basic is not None:
            return basic
        if scheme.lower() != "bearer" or not asked.get("realm"):
            self._refuse(401)
        query = {"scope": asked.get("scope") or f"repository:{self._wanted.repository}:pull"}
        if asked.get("service"):
            query["service"] = asked["service"]
        mark = "&" if "?" in asked["realm"] else "?"
        private = {"Authorization": basic} if basic else {}
        status, _headers, data = self._remote.read(
            f"{asked['realm']}{mark}{urlencode(query)}", {}, _TOKEN_MAX_BYTES, private=private
        )
        if status != 200:
            self._refuse(status if status in (401, 403, 429) else 401)
        try:
            told = json.loads(data)
            token = told.get("token") or told.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,65536}", token):
            raise SetupFailed(
                say("%(registry)s gave no token.", registry=self._wanted.registry),
                step="download",
                path=str(self._wanted),
            )
        return f"Bearer {token}"


def credentials(host: Host, registry: str, project: str | None) -> tuple[str, str] | None:
    """Return who asks a registry, from root's registries.toml; None where nothing is written of it.

    The file holds tables by registry, ``["ghcr.io"]`` with username and password, and below ``[projects.NAME]`` those
    of one project, which come first. Raises PolicyDenied where others than root may read it.
    """
    path = host.state_dir / "registries.toml"
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != 0 or stat.S_IMODE(about.st_mode) & 0o077:
                raise PolicyDenied("registries.toml holds passwords: make it root's, mode 0600.", field=FIELD)
            tables = tomllib.load(file)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyDenied(
            say("registries.toml cannot be read: %(value)s", value=metadata.text(error)), field=FIELD
        ) from None
    own = tables.get("projects", {}).get(project, {}) if project else {}
    found = own.get(registry) or tables.get(registry)
    if not isinstance(found, dict):
        return None
    username, password = found.get("username"), found.get("password")
    if not isinstance(username, str) or not isinstance(password, str) or ":" in username:
        raise PolicyDenied(
            say("registries.toml has no username and password for %(registry)s.", registry=registry), field=FIELD
        )
    return username, password
