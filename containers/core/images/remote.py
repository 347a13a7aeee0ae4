"""Downloads from addresses that people give: looked at before the first packet, bounded, gone on with after a break.

Where a name leads is looked up once; every address must be one that images may come from (policy.check_source), and it
is that address which is connected to, so that a second look-up cannot lead elsewhere. A redirection is looked at in the
same way, and gets no credentials of another host's. Behind the host's own proxy only names can be looked at.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from ..archives.unpacking import BadArchive
from ..errors import PolicyDenied, SetupFailed, SpecError
from ..rules import policy
from ..sentences import say
from .base import Order
from .downloading import Download, Unreachable, partial
from .staging import require_room

REDIRECTS_MAX: Final = 3
CONNECT_SEC: Final = 10.0
READ_SEC: Final = 3.0
"""How long a read waits before the connection is given up, and gone on with anew; so long a cancel may take."""
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_AGENT: Final = "boxroom"


class Remote:
    """One order's way out. field: of the source, for errors; credentials are added by the caller, by header."""

    def __init__(self, order: Order, rules: policy.Policy, field: str = "source") -> None:
        self.order = order
        self.rules = rules
        self.field = field
        self._pools: dict[tuple[str, str, int], urllib3.HTTPConnectionPool] = {}

    def __enter__(self) -> Remote:
        """Return itself; its connections are closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.close()

    @contextlib.contextmanager
    def get(
        self, url: str, headers: Mapping[str, str], *, private: Mapping[str, str] | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
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
            if answer.status not in _REDIRECTS:
                try:
                    yield answer
                finally:
                    answer.close()
                return
            url = urljoin(url, answer.headers.get("Location", ""))
            answer.drain_conn()
        raise SetupFailed(say("%(first)s redirects too often.", first=first), step="download", path=first)

    def read(
        self, url: str, headers: Mapping[str, str], most_bytes: int, *, private: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return the status, the headers and the whole body of an answer; raises BadArchive for one too long."""
        with self.get(url, headers, private=private) as answer, _translated(urlsplit(url).netloc):
            data = answer.read(most_bytes + 1, decode_content=False)
            if len(data) > most_bytes:
                raise BadArchive(
                    say("An answer is longer than %(most_bytes)s bytes.", most_bytes=most_bytes),
                    field=self.field,
                    entry="",
                    limit="",
                )
            return answer.status, answer.headers, data

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

    def _ask(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        parts = self._checked(url)
        pool = self._pool(parts)
        path = parts.path or "/"
        if proxied(parts):
            path = url
        elif parts.query:
            path = f"{path}?{parts.query}"
        with _translated(parts.netloc):
            return pool.urlopen(
                "GET",
                path,
                headers={"Host": parts.netloc, **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                assert_same_host=False,
            )

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

    def _pool(self, parts: SplitResult) -> urllib3.HTTPConnectionPool:
        host, secure = str(parts.hostname), parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        key = (parts.scheme, host, port)
        if key in self._pools:
            return self._pools[key]
        timeout = Timeout(connect=CONNECT_SEC, read=READ_SEC)
        if proxy := proxied(parts):
            self._permit(parts, [])
            with _translated(host):
                manager = urllib3.ProxyManager(proxy, timeout=timeout, retries=False)
                pool = manager.connection_from_host(host, port, parts.scheme)
        else:
            address = self._resolved(parts, port)
            more: dict[str, Any] = {"timeout": timeout, "maxsize": 2, "block": False}
            if secure:
                more |= {"server_hostname": host, "assert_hostname": host, "ssl_context": ssl.create_default_context()}
                pool = urllib3.HTTPSConnectionPool(address, port, **more)
            else:
                pool = urllib3.HTTPConnectionPool(address, port, **more)
        self._pools[key] = pool
        return pool

    def _resolved(self, parts: SplitResult, port: int) -> str:
        """Return the address to connect to; all that a name has must be allowed."""
        host = str(parts.hostname)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise SpecError(say("%(host)s has no address.", host=host), field=self.field) from None
        addresses = [str(address[0]) for *_rest, address in found]
        self._permit(parts, addresses)
        for address in addresses:
            with contextlib.suppress(OSError), socket.create_connection((address, port), CONNECT_SEC):
                return address
        raise Unreachable(say("%(host)s does not answer.", host=host), step="download", path=host)

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


@contextlib.contextmanager
def _translated(host: str) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        words = str(getattr(error, "reason", None) or error)
        raise Unreachable(
            say("%(host)s could not be asked: %(words)s.", host=host, words=words[:300]), step="download", path=host
        ) from error
