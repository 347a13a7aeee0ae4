"""Boxroom as a browser uses it: signed in by the one-time link, clicks by POST, news from /ws/events.

The core's own calls (start, kill, exec, freeze) are made from here too, on the same instance: they leave out web, queue
and worker.
"""

from __future__ import annotations

import json
import queue
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
from websockets.sync.client import ClientConnection, connect

from containers.core.host import Host
from containers.core.hoststore import every
from containers.core.lifecycle import running
from containers.core.model.spec import Spec
from containers.core.network import networks
from containers.core.protocol import Decoder, Kind, control, encode, parse_control
from containers.core.storage import overlay
from tests.e2e.instance import Instance

from . import marker
from .measure import timed

PASSWORD: Final = "a password for one run"
LIMITS: Final = {"memory_bytes": 64 * 1024**2, "cpus": 1, "pids": 100}


def _ended(message: dict[str, Any]) -> bool:
    """Tell whether it is the good end of an operation."""
    return message.get("type") == "operation.changed" and message["status"] == "succeeded"


class Ours:
    """One instance and one signed-in browser. Use as a context; everything is gone afterwards."""

    def __init__(self) -> None:
        self.instance = Instance.start()
        self.address = self.instance.address
        self.host = Host.open(self.instance.state_dir)
        self.web = httpx.Client(base_url=self.address, follow_redirects=True, timeout=90)
        self._sign_in()
        self.api = self.instance.client()
        self._events = self._listen()
        self._over: set[str] = set()  # operations whose end was seen: it may be told again
        self._posts: queue.Queue[tuple[str, dict[str, str]]] = queue.Queue()
        threading.Thread(target=self._post, daemon=True).start()

    def close(self) -> None:
        """Stop everything, and check that nothing is left."""
        self._events.close()
        self.web.close()
        self.api.close()
        # the marker hears no signal: nothing is gained by waiting for it
        self.instance.manage("down", "--containers", "--timeout", "1", "--state-dir", str(self.instance.state_dir))
        self.instance.remove()

    def _sign_in(self) -> None:
        link = self.instance.sign_in_link
        self.web.get(link)
        self._form(link, {})
        page = self._form("/account/password", {"new": PASSWORD, "again": PASSWORD})
        assert page.url.path == "/", page.text

    def _form(self, path: str, values: dict[str, str], **more: str) -> httpx.Response:
        token = self.web.cookies["boxroom_csrftoken"]
        headers = {"Origin": self.address, "X-CSRFToken": token, "Referer": self.address + "/", **more}
        answer = self.web.post(path, data=values, headers=headers)
        answer.raise_for_status()
        return answer

    @property
    def cookies(self) -> str:
        """The browser's cookies, as a header."""
        return "; ".join(f"{one.name}={one.value}" for one in self.web.cookies.jar)

    def _listen(self) -> ClientConnection:
        headers = {"Cookie": self.cookies}
        return connect(
            self.address.replace("http", "ws") + "/ws/events", origin=self.address,  # type: ignore[arg-type]
            additional_headers=headers, max_queue=None,
        )  # fmt: skip

    def _post(self) -> None:
        while True:
            path, values = self._posts.get()
            self._form(path, values, **{"HX-Request": "true"})

    def click(self, path: str, values: dict[str, str], seen: Callable[[dict[str, Any]], bool]) -> float:
        """Post a form as the page does; return the ms until /ws/events tells what was waited for.

        Its operation has ended by then, too: the next one would be refused.
        """
        self._drain()
        began = time.perf_counter()
        self._posts.put((path, values))
        ended = self._await(seen)
        took = (time.perf_counter() - began) * 1000
        if not ended:
            self._await(_ended)
        return took

    def _drain(self) -> None:
        while True:
            try:
                self._events.recv(timeout=0.01)
            except TimeoutError:
                return

    def _await(self, seen: Callable[[dict[str, Any]], bool], timeout_sec: float = 60) -> bool:
        """Wait for what is to be seen; tell whether an operation's end came with it or before."""
        deadline, ended = time.monotonic() + timeout_sec, False
        while True:
            message = json.loads(self._events.recv(timeout=max(0.1, deadline - time.monotonic())))
            if message.get("type") == "operation.changed" and message["id"] in self._over:
                continue
            if message.get("type") == "operation.changed" and message["status"] == "failed":
                raise RuntimeError(f"failed: {message}")
            if _ended(message):
                ended = True
                self._over.add(message["id"])
            if seen(message):
                return ended

    def click_to(self, name: str, action: str, status: str, values: dict[str, str] | None = None) -> float:
        """Click start, stop, freeze …; return the ms until the page is told of the status."""
        return self.click(
            f"/containers/{name}/{action}", values or {},
            lambda m: m.get("type") == "container.changed" and m["name"] == name and m["status"] == status,
        )  # fmt: skip

    def dialog(self, name: str, action: str, values: dict[str, str]) -> float:
        """Send a dialog's form; return the ms until the page is told that the operation has succeeded."""
        return self.click(
            f"/containers/{name}/_dialog/{action}", values,
            lambda m: m.get("type") == "operation.changed" and m["action"] == action and m["status"] == "succeeded",
        )  # fmt: skip

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Ask the API for an operation and wait until it has succeeded."""
        answer = self.api.request(method, f"{path}{'&' if '?' in path else '?'}wait=60", json=body)
        assert answer.status_code == 200, answer.text
        operation: dict[str, Any] = answer.json()
        assert operation["status"] == "succeeded", operation
        return operation

    def create(self, name: str, *, marked: bool = False, start: bool = False) -> None:
        """Make a container with limits; marked: its init is the marker."""
        body = {"name": name, "image": "busybox", "limits": LIMITS, "start": start}
        if marked:
            body["init_command"] = [f"/{marker.NAME}"]
        self.call("POST", "/containers", body)
        if marked:
            marker.install(self.root(name))

    def spec(self, name: str) -> Spec:
        """Return a container's spec from the host's store."""
        return next(spec for spec in every.load_all(self.host)[0].values() if spec.name == name)

    def root(self, name: str) -> Path:
        """Return where the container's writes are seen."""
        return Path(overlay.plan(self.host, self.spec(name)).upper)

    def core_start(self, spec: Spec, root: Path | None) -> float:
        """Start by the core's own call; return the ms until init's first instruction (root), or until it returns."""
        if root is not None:
            marker.forget(root)
        began = time.monotonic()
        running.start(self.host, spec, network=networks.Port(self.host))
        ended = marker.started_at(root) if root is not None else time.monotonic()
        return (ended - began) * 1000

    def core_kill(self, spec: Spec) -> float:
        """Kill by the core's own call; return the ms until it has ended."""
        return timed(lambda: running.stop(self.host, spec.id, kill=True))

    def core_exec(self, spec: Spec) -> float:
        """Run /bin/true by the supervisor's socket; return the ms until it tells the exit code."""

        def call() -> None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.host.supervisor_socket(spec.id)))
                asked = control(cmd="exec", command=["/bin/true"], environment={}, timeout=60, tty=False)
                connection.sendall(asked + encode(Kind.DATA, b""))
                decoder, answer = Decoder(), {}
                while answer.get("type") != "exit":
                    data = connection.recv(65536)
                    assert data, answer
                    for kind, payload in decoder.feed(data):
                        answer = parse_control(payload) if kind is Kind.CONTROL else answer
                    assert answer.get("type") != "error", answer
                assert answer["code"] == 0, answer

        return timed(call)

    def core_freeze(self, spec: Spec) -> float:
        """Freeze by the core's own call, and thaw; return the ms until it was frozen."""
        took = timed(lambda: running.freeze(self.host, spec.id))
        running.thaw(self.host, spec.id)
        return took

    def exec(self, name: str) -> float:
        """Run /bin/true by the API; return the ms until the answer."""

        def call() -> None:
            answer = self.api.post(f"/containers/{name}/exec", json={"command": ["/bin/true"]})
            assert answer.json()["exit_code"] == 0, answer.text

        return timed(call)

    def wait_status(self, name: str, status: str) -> None:
        """Wait until the API says so: the ticker sees a moment later what the core did by itself."""
        deadline = time.monotonic() + 20
        while self.api.get(f"/containers/{name}").json()["status"] != status:
            assert time.monotonic() < deadline, f"{name} is not {status}"
            time.sleep(0.05)

    def link(self) -> str:
        """Return a fresh sign-in link."""
        output = self.instance.manage("user", "link", "admin").stdout
        found = re.search(r"http\S+", output)
        assert found, output
        return found[0]
