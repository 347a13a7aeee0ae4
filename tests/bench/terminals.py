"""Web terminals: echo, throughput, a reader that stalls, Ctrl-C in a flood; ours beside a plain one and terminado.

The same client reads all three. Ours goes through daphne to the container's supervisor, and acknowledges what it read;
the others run the same busybox on the host.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import connect

from tests.ports import free_port

from .measure import Table, in_turn, percentile, pss_kb, say
from .ours import Ours

CAT: Final = ["busybox", "cat"]
FLOOD: Final = ["busybox", "yes"]
BULK_BYTES: Final = 32 * 1024**2
BULK: Final = [
    "busybox",
    "sh",
    "-c",
    f"read go; busybox tr '\\0' x </dev/zero | busybox head -c {BULK_BYTES}; exec cat",
]
TRAP: Final = ["busybox", "sh", "-c", "trap : INT; busybox yes; echo ENDED; exec busybox cat"]
ACK_BYTES: Final = 64 * 1024
STALL_SEC: Final = 5
HERE: Final = Path(__file__).parent

Terminal = Callable[[list[str]], contextlib.AbstractContextManager["Client"]]


class Client:
    """One open terminal. pids: the processes whose memory is its server's."""

    def __init__(self, url: str, kind: str, pids: list[int], command: list[str], headers: dict[str, str]) -> None:
        self.kind, self.pids = kind, pids
        origin: Any = headers.pop("Origin", None)
        self.socket = connect(url, origin=origin, additional_headers=headers, compression=None, max_size=None)
        self.unacked = 0
        if kind == "boxroom":
            self._say(type="open", command=command, cols=80, rows=24)
            while json.loads(self.socket.recv())["type"] != "opened":
                pass

    def _say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def write(self, data: bytes) -> None:
        """Type."""
        self.socket.send(json.dumps(["stdin", data.decode()]) if self.kind == "terminado" else data)

    def read(self, timeout_sec: float = 30) -> bytes:
        """Return the next output; acknowledges it."""
        while True:
            message = self.socket.recv(timeout=timeout_sec)
            if self.kind == "terminado":
                kind, *rest = json.loads(message)
                if kind == "stdout":
                    return str(rest[0]).encode()
            elif isinstance(message, bytes):
                self.unacked += len(message)
                if self.kind == "boxroom" and self.unacked >= ACK_BYTES:
                    self._say(type="ack", bytes=self.unacked)
                    self.unacked = 0
                return message

    def read_until(self, wanted: bytes) -> None:
        """Read until the output holds this."""
        tail = b""
        while wanted not in tail:
            tail = tail[-len(wanted) :] + self.read()


@contextlib.contextmanager
def _server(interpreter: str, script: str, kind: str, command: list[str]) -> Iterator[Client]:
    port = free_port()
    server = subprocess.Popen(
        [interpreter, str(HERE / script), str(port), *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        client = Client(f"ws://127.0.0.1:{port}/", kind, [server.pid], command, {})
        try:
            yield client
        finally:
            client.socket.close_socket()
    finally:
        server.kill()
        server.wait()


def terminals(ours: Ours, work: Path) -> dict[str, Terminal]:
    """Return how to open each terminal that can be had here."""
    container = f"supervisor {ours.instance.name} term"

    @contextlib.contextmanager
    def own(command: list[str]) -> Iterator[Client]:
        pids = [*ours.instance.pids("daphne"), *ours.instance.pids(container)]
        url = ours.address.replace("http", "ws") + "/ws/containers/term/terminal"
        client = Client(url, "boxroom", pids, command, {"Cookie": ours.cookies, "Origin": ours.address})
        try:
            yield client
        finally:
            client.socket.close_socket()
            # a session outlives its viewers: what floods would go on
            for one in ours.api.get("/containers/term/sessions").json()["items"]:
                ours.api.delete(f"/containers/term/sessions/{one['session']}")

    found: dict[str, Terminal] = {
        "boxroom": own,
        "plain": lambda command: _server(sys.executable, "plain_server.py", "plain", command),
    }
    python = work / "terminado/bin/python"
    say("installing terminado into an environment of its own")
    subprocess.run([sys.executable, "-m", "venv", str(work / "terminado")], check=True)
    installed = subprocess.run([python, "-m", "pip", "-q", "install", "terminado"], capture_output=True, check=False)
    if installed.returncode == 0:
        found["terminado"] = lambda command: _server(str(python), "terminado_server.py", "terminado", command)
    return found


def measure(ours: Ours, work: Path, rounds: int, table: Table) -> None:
    """Fill the table."""
    ours.create("term", start=True)
    opened = terminals(ours, work)
    _echo(opened, rounds * 15, table)
    _throughput(opened, table)
    _stall(opened, table)
    _interrupt(opened, table)
    ours.call("DELETE", "/containers/term?force=true")


def _add(table: Table, what: str, cells: dict[str, str], target: str = "") -> None:
    beside = "; ".join(f"{name} {cell}" for name, cell in cells.items() if name != "boxroom")
    table.add(what, cells["boxroom"], beside or "–", target)


def _echo(opened: dict[str, Terminal], rounds: int, table: Table) -> None:
    say("echo")

    def press(client: Client) -> float:
        began = time.perf_counter()
        client.write(b"x")
        client.read_until(b"x")
        return (time.perf_counter() - began) * 1000

    with contextlib.ExitStack() as undo:
        clients = {name: undo.enter_context(opener(CAT)) for name, opener in opened.items()}
        time.sleep(0.5)
        taken = in_turn(rounds, warm_up=10, **{name: lambda c=client: press(c) for name, client in clients.items()})
    cells = {name: f"{statistics.median(v):.2f} / {percentile(v, 0.99):.2f}" for name, v in taken.items()}
    _add(table, "echo of a key p50 / p99, ms", cells)


def _throughput(opened: dict[str, Terminal], table: Table) -> None:
    say("throughput")

    def once(opener: Terminal) -> float:
        with opener(BULK) as client:
            time.sleep(0.3)
            client.write(b"\n")
            began, got = time.perf_counter(), 0
            while got < BULK_BYTES:
                got += len(client.read())
            return BULK_BYTES / 1e6 / (time.perf_counter() - began)

    taken = in_turn(3, warm_up=0, **{name: lambda o=opener: once(o) for name, opener in opened.items()})
    _add(table, f"{BULK_BYTES >> 20} MiB of output, MB/s", {k: f"{statistics.median(v):.1f}" for k, v in taken.items()})


def _stall(opened: dict[str, Terminal], table: Table) -> None:
    say("a reader that stalls")
    cells = {}
    for name, opener in opened.items():
        with opener(FLOOD) as client:
            before = [pss_kb(pid) / 1024 for pid in client.pids]
            time.sleep(STALL_SEC)
            after = [pss_kb(pid) / 1024 for pid in client.pids]
            cells[name] = " + ".join(f"{a:.0f} → {b:.0f}" for a, b in zip(before, after, strict=True))
    _add(table, f"memory while the reader stalls {STALL_SEC} s, MB (ours: daphne + supervisor)", cells, "bounded")


def _interrupt(opened: dict[str, Terminal], table: Table) -> None:
    say("Ctrl-C in a flood")

    def once(opener: Terminal) -> float:
        with opener(TRAP) as client:
            until = time.monotonic() + 1
            while time.monotonic() < until:
                client.read()
            began = time.perf_counter()
            client.write(b"\x03")
            client.read_until(b"ENDED")
            return (time.perf_counter() - began) * 1000

    taken = in_turn(5, warm_up=0, **{name: lambda o=opener: once(o) for name, opener in opened.items()})
    _add(table, "Ctrl-C in a flood → its end is read, ms", {k: f"{statistics.median(v):.0f}" for k, v in taken.items()})
