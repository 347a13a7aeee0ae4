"""A registry of this test's own: Debian's docker-registry on loopback, a server of its tokens, a line that breaks."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import http.server
import json
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from tests.ports import free_port

from .patience import patient, wait_until


@contextlib.contextmanager
def registry(place: Path, *, tokens: Tokens | None = None) -> Iterator[str]:
    """Run docker-registry on loopback; yields HOST:PORT."""
    for _ in range(5):  # somebody else may take a port between its being free and its being the registry's
        address = f"127.0.0.1:{free_port()}"
        server = _begin(place, address, tokens)
        if server is not None:
            break
    else:
        raise AssertionError((place / "registry.log").read_text())
    try:
        yield address
    finally:
        server.terminate()
        server.wait(patient(60))


def _begin(place: Path, address: str, tokens: Tokens | None) -> subprocess.Popen[bytes] | None:
    """Start a registry, and wait until it listens; None where it has ended instead."""
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place / "registry")}},
        "http": {"addr": address, "secret": secrets.token_hex(8)},
    }
    if tokens is not None:
        config["auth"] = {"token": tokens.configuration(place)}
    path = place / f"registry-{address.rpartition(':')[2]}.json"
    path.write_text(json.dumps(config))  # JSON is YAML
    with open(place / "registry.log", "wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", path], stdout=log, stderr=log, env={"PATH": "/usr/bin"})
    host, _, port = address.partition(":")

    def answers() -> bool:
        with socket.socket() as probe:
            return server.poll() is not None or probe.connect_ex((host, int(port))) == 0

    wait_until(answers, what="the registry listens")
    return server if server.poll() is None else None


class Tokens:
    """Gives tokens that the registry believes, to whoever knows the password. Source: distribution's token spec."""

    USER, PASSWORD = "somebody", "the pass:word"

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        now = dt.datetime.now(dt.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                outer.asked.append(query)
                wanted = f"{outer.USER}:{outer.PASSWORD}".encode()
                good = self.headers.get("Authorization") == f"Basic {base64.b64encode(wanted).decode()}"
                data = json.dumps({"token": outer.token(query)} if good else {}).encode()
                self.send_response(200 if good else 401)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def configuration(self, place: Path) -> dict[str, str]:
        bundle = place / "tokens.pem"
        bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        realm = f"http://{self.address}/token"
        return {"realm": realm, "service": "test", "issuer": "test", "rootcertbundle": str(bundle)}

    def token(self, query: dict[str, list[str]]) -> str:
        kind, name, actions = query["scope"][0].split(":")
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        body = {
            "iss": "test",
            "aud": query["service"][0],
            "sub": self.USER,
            "iat": now,
            "nbf": now - 60,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        signed = b".".join(_base64(json.dumps(part).encode()) for part in (head, body))
        return (signed + b"." + _base64(self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Line:
    """A way to a server that breaks when so many bytes have come back over it, as often as it is told to."""

    def __init__(self, target: str) -> None:
        self._target = (target.partition(":")[0], int(target.rpartition(":")[2]))
        self.break_after_bytes: int | None = None
        self.breaks_left = 0
        self.then_dead = False
        """Whether nobody answers any more once it has broken."""
        self.dead = False
        self.ranges: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.dead:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:  # it has gone before its clients have
                client.close()
                continue
            for work, one, other in ((self._to, client, server), (self._back, server, client)):
                thread = threading.Thread(target=work, args=(one, other))
                self._threads.append(thread)
                thread.start()

    def _to(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                self.ranges += re.findall(r"Range: (\S+)", data.decode("latin-1"))
                server.sendall(data)
        _end(client, server)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        done = 0
        with contextlib.suppress(OSError):
            while data := server.recv(16384):
                done += len(data)
                if self.breaks_left and self.break_after_bytes is not None and done > self.break_after_bytes:
                    self.breaks_left -= 1
                    self.dead = self.then_dead
                    break
                client.sendall(data)
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
