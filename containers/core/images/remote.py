"""Downloads from addresses that people give: looked at before the first packet, bounded, gone on with after a break.

Where a name leads is looked up once; every address must be one that images may come from (policy.check_source), and it
is that address which is connected to, so that a second look-up cannot lead elsewhere. A redirection is looked at in the
same way, and gets no credentials of another host's. Behind the host's own proxy only names can be looked at.

What a server says over the connection is read by a confined process (core.fetching), and by nobody here.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from .. import cgroups
from ..archives.unpacking import BadArchive
from ..errors import HostUnsupported, PolicyDenied, SetupFailed, SpecError
from ..fetching.asking import Answer, Asker, Request, unreachable
from ..rules import policy
from ..sentences import say
from .base import Order
from .downloading import Download, partial
from .staging import require_room

REDIRECTS_MAX: Final = 3
CONNECT_SEC: Final = 10.0
DOCUMENT_SEC: Final = 300.0
"""How long a whole document may take, however slowly it comes."""
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_AGENT: Final = "boxroom"
_TARGET: Final = "!#$%&'()*+,/:;=?@[]~"
"""What stands in a request's target as it is (RFC 3986 2.2, and what is quoted already)."""


class Remote:
    """One order's way out. field: of the source, for errors; credentials are added by the caller, by header."""

    def __init__(self, order: Order, rules: policy.Policy, field: str = "source") -> None:
        self.order = order
        self.rules = rules
        self.field = field
        self._askers: dict[bool, Asker] = {}

    def __enter__(self) -> Remote:
        """Return itself; its connections are closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        for asker in self._askers.values():
            asker.close()

    @contextlib.contextmanager
    def get(
        self, url: str, headers: Mapping[str, str], *, private: Mapping[str, str] | None = None
    ) -> Iterator[Answer]:
        """Yield the answer to a GET, not read yet, after at most REDIRECTS_MAX redirections.

        private: headers for the first host only. Raises PolicyDenied, SpecError for an address that is none,
        Unreachable.
        """
        sent = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers}
        first = urlsplit(url).netloc
        for _redirect in range(REDIRECTS_MAX + 1):
            self.order.check_cancelled()
            own = dict(private or {}) if urlsplit(url).netloc == first else {}
            answer = self._ask(url, {**sent, **own})
            try:
                if answer.status not in _REDIRECTS:
                    yield answer
                    return
            finally:
                answer.close()
            url = self._joined(url, answer.headers.get("Location", ""))
        raise SetupFailed(say("%(first)s redirects too often.", first=first), step="download", path=first)

    def read(
        self, url: str, headers: Mapping[str, str], most_bytes: int, *, private: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return the status, the headers and the whole body of an answer; raises BadArchive for one too long."""
        deadline = time.monotonic() + DOCUMENT_SEC
        with self.get(url, headers, private=private) as answer:
            data = bytearray()
            while more := answer.read(most_bytes + 1 - len(data)):
                data += more
                if len(data) > most_bytes:
                    raise BadArchive(
                        say("An answer is longer than %(most_bytes)s bytes.", most_bytes=most_bytes),
                        field=self.field,
                        entry="",
                        limit="",
                    )
                if time.monotonic() > deadline:
                    raise unreachable(urlsplit(url).netloc, "it does not answer in time")
            return answer.status, answer.headers, bytes(data)

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        digest: str | None,
        size_bytes: int | None,
        tell: Callable[[float], None],
        private: Callable[[], Mapping[str, str]] = dict,
        renew: Callable[[str], None] | None = None,
        most_bytes: int,
    ) -> str:
        """Download to target what has this sha256, and return that; Range, RFC 9110 14.2.

        digest: with one it goes on where an earlier attempt ended; None: whatever is there, and only what the server
        says is unchanged is gone on with, by its strong ETag. size_bytes: what it must have; None: at most most_bytes.
        private: asked anew for each request; renew: told of a 401 with its challenge, to have another answer next.
        What arrived stays for KEPT_SEC where this fails, and goes where it is cancelled. Raises BadArchive where it is
        something else, Unreachable, StorageFull.
        """
        wanted = size_bytes if size_bytes is not None else most_bytes
        if wanted > most_bytes:
            raise BadArchive(
                say("It has more than %(most_bytes)s bytes.", most_bytes=most_bytes),
                field=self.field,
                entry="",
                limit="bytes",
            )
        require_room(target.parent, size_bytes or 0)
        with partial(self.order, digest, target) as part:
            download = Download(self, url, part, digest, wanted, tell, private, renew)
            found = download.run(exact=size_bytes is not None)
            os.rename(part, target)
        return found

    # one request

    def _ask(self, url: str, headers: Mapping[str, str]) -> Answer:
        parts = self._checked(url)
        host, secure = str(parts.hostname), parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        sent = {"Host": parts.netloc, **headers}
        tunnel = None
        if proxy := proxied(parts):
            self._permit(parts, [])
            if secure:
                tunnel = _credentials(proxy)
            else:
                target, sent = url.partition("#")[0], {**sent, **_credentials(proxy)}
        request = Request(
            key=f"{parts.scheme}://{host}:{port}",
            path=quote(target, safe=_TARGET),
            headers=sent,
            host=host,
            port=port,
            server_name=host if secure else None,
            proxy_headers=tunnel,
            connect=lambda: _connected_to_proxy(proxy) if proxy else self._connected(parts, port),
        )
        return self._asker(secure=secure).ask(request)

    def _asker(self, *, secure: bool) -> Asker:
        """Return the process that asks, one that can speak TLS, or one that need not."""
        asker = self._askers.get(secure)
        if asker is None or asker.ended():
            host = self.order.host
            groups = cgroups.open(host)
            asker = self._askers[secure] = Asker(groups, host.state_dir, self.order.check_cancelled, secure=secure)
        return asker

    def _joined(self, url: str, location: str) -> str:
        try:
            return urljoin(url, location)
        except ValueError:
            raise SpecError("This is no address.", field=self.field) from None

    def _checked(self, url: str) -> SplitResult:
        """Return the parts of an address that may be asked."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SpecError("This is no address.", field=self.field) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise SpecError("Only https addresses without a user are asked for images.", field=self.field)
        named = {one.lower() for one in (*self.rules.images.sources, *self.rules.images.insecure)}
        if parts.scheme == "http" and parts.netloc.lower() not in {one.lower() for one in self.rules.images.insecure}:
            raise PolicyDenied(
                say(
                    "Images are taken by https: name %(netloc)s under images.insecure in the host's policy.",
                    netloc=parts.netloc,
                ),
                field=self.field,
            )
        if port not in (None, 80, 443) and not {parts.netloc.lower(), parts.hostname.lower()} & named:
            raise PolicyDenied(
                say(
                    "Only ports 80 and 443 are asked: name %(netloc)s under images.sources in the host's policy.",
                    netloc=parts.netloc,
                ),
                field=self.field,
            )
        return parts

    def _connected(self, parts: SplitResult, port: int) -> socket.socket:
        """Return a connection to an address that a name has; all of them must be allowed."""
        host = str(parts.hostname)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise SpecError(say("%(host)s has no address.", host=host), field=self.field) from None
        addresses = [str(address[0]) for *_rest, address in found]
        self._permit(parts, addresses)
        return _first(host, addresses, port)

    def _permit(self, parts: SplitResult, addresses: list[str]) -> None:
        if parts.netloc.lower() in {one.lower() for one in self.rules.images.insecure}:
            return
        try:
            policy.check_source(self.rules, str(parts.hostname), addresses)
        except PolicyDenied as denied:
            denied.field = self.field
            raise


def proxied(parts: SplitResult) -> str | None:
    """Return the proxy that the host's environment has for an address; None where it is asked directly."""
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _credentials(proxy: str) -> dict[str, str]:
    """Return the header for a proxy whose address says who asks (RFC 7617); none where it does not."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _connected_to_proxy(proxy: str) -> socket.socket:
    """Return a connection to the host's own proxy, which the host's environment names; it need not be public."""
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise HostUnsupported("Only proxies by http can be asked for images.", feature="proxy")
    return _first(parts.hostname, [parts.hostname], parts.port or 80)


def _first(host: str, addresses: list[str], port: int) -> socket.socket:
    """Return a connection to the first address that answers."""
    words = "it does not answer"
    for address in addresses:
        try:
            return socket.create_connection((address, port), CONNECT_SEC)
        except OSError as error:
            words = error.strerror or words
    raise unreachable(host, words)
