"""Who reads servers' answers: a process that has nothing; certificates; servers that play tricks."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.server
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from containers.core import images
from containers.core.archives import confinement
from containers.core.errors import Cancelled, CoreError, SetupFailed
from containers.core.fetching import asking
from containers.core.images import downloading, remote
from containers.core.images.base import Order
from containers.core.rules import policy_file

from .patience import patient, wait_until
from .test_image_files import nothing_left, packed, tree


class Server(socket.socket):
    """Answers each connection by a function of the test's, in a thread of its own."""

    def __init__(self, answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.address = "127.0.0.1:{1}".format(*self.getsockname())
        self._answer, self._context = answer, context
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._one, args=(self.accept()[0],)).start()

    def _one(self, made: socket.socket) -> None:
        with contextlib.suppress(OSError), made:
            made.settimeout(patient(60))
            if self._context is None:
                self._answer(made)
            else:
                with self._context.wrap_socket(made, server_side=True) as secured:
                    self._answer(secured)

    def end(self) -> None:
        self.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.close()


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[str]:
    made = Server(answer, context)
    try:
        yield made.address
    finally:
        made.end()


def asked(made: socket.socket) -> bytes:
    """Return a request's head."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := made.recv(65536)):
            raise ConnectionError
        data += more
    return data


def insecure(host, *addresses: str) -> None:
    host.policy_path.write_text(f"[images]\ninsecure = {list(addresses)}\n")


@contextlib.contextmanager
def way_out(host, cancelled: Callable[[], bool] = lambda: False) -> Iterator[remote.Remote]:
    order = Order(host=host, name="x", source={}, progress=lambda *_: None, log=lambda _line: None, cancelled=cancelled)
    with remote.Remote(order, policy_file.load(host)) as made:
        yield made


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def helpers() -> list[int]:
    """Return the confined processes of this one's, outer before inner."""
    mine = [pid for pid in children(os.getpid()) if b"fetching/process.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return mine + [inner for pid in mine for inner in children(pid)]


def test_whoever_reads_an_answer_has_nothing(host):
    found: dict[str, object] = {}

    def answer(made: socket.socket) -> None:
        asked(made)
        _outer, inner = helpers()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{inner}/status").read_text().splitlines())
        found.update(status)
        found["alike"] = [
            name
            for name in ("cgroup", "ipc", "mnt", "net", "pid", "uts")
            if os.readlink(f"/proc/{inner}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")
        ]
        found["root"] = os.listdir(f"/proc/{inner}/root")
        found["mounts"] = Path(f"/proc/{inner}/mounts").read_text().splitlines()
        found["links"] = Path(f"/proc/{inner}/net/dev").read_text().count(":")
        found["files"] = sorted(os.readlink(f"/proc/{inner}/fd/{fd}").partition(":")[0] for fd in range(6))
        found["caged"] = "/u-" in Path(f"/proc/{inner}/cgroup").read_text()
        made.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with serving(answer) as address:
        insecure(host, address)
        with way_out(host) as out:
            assert out.read(f"http://{address}/", {}, 10)[2] == b"ok"
            [outer, _inner] = helpers()
        assert not Path(f"/proc/{outer}").exists()
    assert found["Uid"] == found["Gid"] == "\t".join([str(confinement.NOBODY)] * 4)
    assert found["Groups"].strip() == ""
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert (found["alike"], found["root"], found["caged"]) == ([], [], True)
    assert len(found["mounts"]) == 1
    assert " ro," in found["mounts"][0]
    assert found["links"] == 1, "a loopback device, which is down"
    assert found["files"] == ["/dev/null", "/dev/null", "pipe", "pipe", "socket", "socket"]


def test_it_can_make_no_connection_and_open_no_file(host):
    """The filter itself, on a process of this test's."""
    from containers.core.archives.calls import compile_connection
    from containers.core.kernel import syscalls

    filters = compile_connection()
    read_fd, write_fd = os.pipe()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.load_seccomp(filters)
            refused = 0
            for act in (
                socket.socket,
                lambda: ours.connect("/x"),
                lambda: ours.bind("/x"),
                lambda: os.open("/etc/passwd", os.O_RDONLY),
                lambda: os.execv("/bin/true", ["true"]),
                os.fork,
                lambda: os.kill(os.getppid(), 0),
                lambda: os.ftruncate(write_fd, 0),
                lambda: syscalls.unshare(syscalls.CLONE_NEWUSER),
            ):
                try:
                    act()
                except OSError:
                    refused += 1
            os.write(write_fd, str(refused).encode())
            os._exit(0)
        os.close(write_fd)
        os.waitpid(pid, 0)
        assert os.read(read_fd, 10) == b"9"
        os.close(read_fd)


def test_the_confined_process_imports_the_standard_library_only():
    project = str(Path(__file__).resolve().parents[2])
    program = (
        f"import sys; sys.path.insert(0, {project!r}); import containers.core.fetching.process\n"
        "known = sys.stdlib_module_names | {'containers', '__main__'}\n"
        "sys.exit(' '.join(sorted({m.partition('.')[0] for m in sys.modules} - known)) or 0)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


# servers that play tricks


def endless(head: bytes, more: bytes) -> Callable[[socket.socket], None]:
    def answer(made: socket.socket) -> None:
        asked(made)
        made.sendall(head)
        while True:
            made.sendall(more)

    return answer


def saying(data: bytes) -> Callable[[socket.socket], None]:
    def answer(made: socket.socket) -> None:
        asked(made)
        made.sendall(data)

    return answer


TRICKS = [
    saying(b""),
    saying(b"\0" * 70000),
    saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
    saying(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nx"),
    saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nx"),
    saying(b"HTTP/1.1 99999 OK\r\n\r\n"),
    saying(b"HTTP/1.1 307 See\r\nLocation: " + b"x" * 30000 + b"\r\n\r\n"),
    saying(b"HTTP/1.1 307 See\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n"),
    endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000),
    endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 10000),
    endless(b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 10000),
    endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"y" * 70000),
]


def test_an_answer_that_is_none_is_refused(host):
    for answer in TRICKS:
        with serving(answer) as address:
            insecure(host, address)
            with way_out(host) as out, pytest.raises(CoreError):
                out.read(f"http://{address}/", {}, 1 << 20)
        assert helpers() == []


def test_answers_that_never_begin_or_never_end_are_given_up(host, monkeypatch):
    monkeypatch.setattr(asking, "WAIT_SEC", 1.0)
    monkeypatch.setattr(asking, "_GRACE_SEC", 1.0)
    monkeypatch.setattr(remote, "DOCUMENT_SEC", 1.0)
    monkeypatch.setattr(downloading, "TOTAL_SEC", 1.0)

    def slowly(made: socket.socket) -> None:
        asked(made)
        made.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            made.sendall(b"x")
            time.sleep(0.05)

    for answer in (asked, endless(b"", b"HTTP/1.1 100 Go on\r\n\r\n")):
        with serving(lambda made, answer=answer: (answer(made), made.recv(1))) as address:
            insecure(host, address)
            with way_out(host) as out, pytest.raises(asking.Unreachable, match="in time"):
                out.read(f"http://{address}/", {}, 100)
    with serving(slowly) as address:
        insecure(host, address)
        with way_out(host) as out, pytest.raises(asking.Unreachable, match="in time"):
            out.read(f"http://{address}/", {}, 1 << 20)
        with pytest.raises(SetupFailed, match="does not get on"):
            images.build(host, "x", {"type": "url", "url": f"http://{address}/x"})
    nothing_left(host)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx"])
def test_a_server_that_says_nothing_more_does_not_keep_anybody_from_cancelling(host, monkeypatch, head):
    monkeypatch.setattr(asking, "WAIT_SEC", patient(600))
    waiting = threading.Event()

    def answer(made: socket.socket) -> None:
        asked(made)
        made.sendall(head)
        waiting.set()
        made.recv(1)

    with serving(answer) as address:
        insecure(host, address)
        with pytest.raises(Cancelled):
            images.build(host, "x", {"type": "url", "url": f"http://{address}/x"}, cancelled=waiting.is_set)
    assert helpers() == []
    nothing_left(host)


class Files(http.server.BaseHTTPRequestHandler):
    """One file, in parts, whose connection stays; kills who reads it after the first half, once."""

    protocol_version = "HTTP/1.1"
    data = b""
    connections: set[tuple[str, int]]
    ranges: list[int]
    kills = False
    place = Path()

    def do_GET(self) -> None:
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.connections.add(self.client_address)
        self.ranges.append(begin)
        self.send_response(206 if begin else 200)
        self.send_header("ETag", '"same"')
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(self.data) - 1}/{len(self.data)}")
        self.send_header("Content-Length", str(len(self.data) - begin))
        self.end_headers()
        half = len(self.data) // 2
        if type(self).kills and not begin:
            type(self).kills = False
            self.wfile.write(self.data[:half])
            wait_until(lambda: any(part.stat().st_size for part in self.place.glob("*/file.part")), what="some came")
            os.kill(helpers()[1], signal.SIGKILL)
            begin = half
        with contextlib.suppress(OSError):
            self.wfile.write(self.data[begin:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kept(host, tmp_path) -> Iterator[tuple[str, type[Files]]]:
    made = tree(tmp_path / "tree")
    (made / "noise").write_bytes(os.urandom(3 << 20))
    data = packed(tmp_path / "root.tar", "-C", str(made), ".").read_bytes()

    class Mine(Files):
        connections: set[tuple[str, int]] = set()
        ranges: list[int] = []

    Mine.data, Mine.place = data, host.tmp_dir
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        insecure(host, f"127.0.0.1:{server.server_port}")
        yield f"127.0.0.1:{server.server_port}", Mine
        server.shutdown()
        thread.join()


def test_one_that_was_killed_is_replaced_and_goes_on_where_it_was(host, kept):
    address, files = kept
    files.kills = True
    built = images.build(host, "x", {"type": "url", "url": f"http://{address}/x"})
    assert built.details["file_sha256"] == hashlib.sha256(files.data).hexdigest()
    [first, second] = files.ranges
    assert first == 0 < second


def test_a_connection_is_gone_on_with(host, kept):
    address, files = kept
    with way_out(host) as out:
        for _ in range(3):
            assert out.read(f"http://{address}/x", {}, 64 << 20)[2] == files.data
    assert len(files.connections) == 1


# certificates


def certificate(place: Path, name: x509.GeneralName) -> ssl.SSLContext:
    """Make a server's key and certificate, signed by itself, in place/server.pem; return a context that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    both = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (place / "both.pem").write_bytes(both + made.public_bytes(pem))
    (place / "server.pem").write_bytes(made.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "both.pem")
    return context


LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
OK = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize("way", ["file", "directory"])
def test_a_certificate_is_believed_that_the_host_believes(host, tmp_path, monkeypatch, way):
    context = certificate(tmp_path, LOOPBACK)
    if way == "file":
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    else:
        (tmp_path / "certs").mkdir()
        command = ["openssl", "x509", "-hash", "-noout", "-in", tmp_path / "server.pem"]
        known_as = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        (tmp_path / f"certs/{known_as}.0").symlink_to(tmp_path / "server.pem")
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "certs"))
    with serving(OK, context) as address:
        host.policy_path.write_text('[images]\nsources = ["127.0.0.1"]\n')
        with way_out(host) as out:
            assert out.read(f"https://{address}/", {}, 10)[2] == b"ok"


def test_another_certificate_is_not_believed(host, tmp_path, monkeypatch):
    for name, known in ((x509.DNSName("example.org"), True), (LOOPBACK, False)):
        context = certificate(tmp_path, name)
        if known:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        else:
            monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with serving(OK, context) as address:
            host.policy_path.write_text('[images]\nsources = ["127.0.0.1"]\n')
            with way_out(host) as out, pytest.raises(asking.Unreachable, match="certificate"):
                out.read(f"https://{address}/", {}, 10)


def test_the_hosts_proxy_is_asked_with_what_its_address_says(host, tmp_path, monkeypatch):
    heads: list[bytes] = []
    context = certificate(tmp_path, x509.DNSName("images.example"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))

    def proxy(made: socket.socket) -> None:
        heads.append(asked(made))
        if heads[-1].startswith(b"CONNECT"):
            made.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
            with context.wrap_socket(made, server_side=True) as secured:
                OK(secured)
        else:
            made.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with serving(proxy) as address:
        monkeypatch.setenv("no_proxy", "")
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", f"http://me:a%20word@{address}")
        host.policy_path.write_text('[images]\nsources = ["images.example"]\ninsecure = ["images.example"]\n')
        with way_out(host) as out:
            for scheme in ("http", "https"):
                assert out.read(f"{scheme}://images.example/a?b=c", {}, 10)[2] == b"ok"
    plain, tunnel = heads
    assert plain.startswith(b"GET http://images.example/a?b=c HTTP/1.1\r\n")
    assert tunnel.startswith(b"CONNECT images.example:443 HTTP/1.")
    assert all(b"Proxy-Authorization: Basic bWU6YSB3b3Jk\r\n" in head for head in heads)
