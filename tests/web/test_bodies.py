"""Bodies that are too large are refused before they are held: in a real daphne, and by the ASGI middleware."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from panel import bodies
from tests.web.sockets import WAIT_SEC

MIB = 1024**2

SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
from daphne.server import Server
from panel import bodies

async def application(scope, receive, send):
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

bodies.install()
Server(application, endpoints=[f"unix:{sys.argv[2]}"], signal_handlers=False).run()
"""


@pytest.fixture(scope="module")
def daphne(tmp_path_factory, request):
    """A daphne of its own, on a unix socket, whose application counts the bytes of a body."""
    path = tmp_path_factory.mktemp("d") / "s"
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen([sys.executable, "-c", SERVER, root, str(path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_SEC
    while not _listens(path):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield process, path
    process.kill()
    process.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        return link.connect_ex(str(path)) == 0


def _complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(end) and length is not None and len(body) >= int(length[1])


def talk(path: Path, head: str, body_bytes: int, *, chunked: bool = False) -> tuple[int, bytes]:
    """Send a request with so many bytes of body; return (status, the answer's body)."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(WAIT_SEC)
        link.connect(str(path))
        link.sendall(head.encode())
        piece = b"x" * MIB
        left = body_bytes
        try:
            while left > 0:
                data = piece[: min(left, MIB)]
                link.sendall(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
                left -= len(data)
            if chunked:
                link.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        while not _complete(answer):
            data = link.recv(65536)
            if not data:
                break
            answer += data
    first, _, rest = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), rest


def head(path: str, length: int | None) -> str:
    told = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{told}\r\n\r\n"


def memory_kib(pid: int) -> int:
    fields = Path(f"/proc/{pid}/status").read_text().split()
    return int(fields[fields.index("VmHWM:") + 1])


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, bodies.API_MAX_BYTES])
def test_what_is_within_the_limit_passes(size, daphne):
    assert talk(daphne[1], head("/api/v1/x", size), size) == (200, str(size).encode())


@pytest.mark.parametrize("chunked", [False, True])
def test_100_mib_get_a_clear_answer_and_cost_no_memory(chunked, daphne):
    process, path = daphne
    before = memory_kib(process.pid)
    size = 100 * MIB
    status, body = talk(path, head("/api/v1/x", None if chunked else size), size, chunked=chunked)
    assert (status, json.loads(body)["code"]) == (413, "too-large")
    # chunked is held up to the limit, in a file past 100 kB; nothing near the size of the body
    assert memory_kib(process.pid) - before < 32 * 1024


def test_the_answer_comes_before_the_body(daphne):
    assert talk(daphne[1], head("/api/v1/x", 10**12), 0)[0] == 413


def test_forms_have_a_smaller_limit(daphne):
    assert talk(daphne[1], head("/sign-in", bodies.FORM_MAX_BYTES + 1), bodies.FORM_MAX_BYTES + 1)[0] == 413
    assert talk(daphne[1], head("/sign-in", bodies.FORM_MAX_BYTES), bodies.FORM_MAX_BYTES)[0] == 200


def run_middleware(headers: list[tuple[bytes, bytes]], pieces: list[bytes]) -> tuple[int, int]:
    """Return (status, how many bytes the application was given)."""
    given = 0
    sent: list[dict] = []

    async def application(scope, receive, send):
        nonlocal given
        for _ in pieces:
            given += len((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent_pieces: list[int] = []

    async def receive_next():
        piece = pieces[len(sent_pieces)]
        sent_pieces.append(1)
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/api/v1/x", "headers": headers}
    asyncio.run(bodies.BodyLimit(application)(scope, receive_next, send))
    return sent[0]["status"], given


def test_the_middleware_refuses_by_length_and_while_reading():
    too_long = str(bodies.API_MAX_BYTES + 1).encode()
    assert run_middleware([(b"content-length", too_long)], [b"x"]) == (413, 0)
    assert run_middleware([], [b"x" * MIB] * 20) == (413, 9 * MIB)
    assert run_middleware([(b"content-length", b"2")], [b"x", b"y"]) == (200, 2)
