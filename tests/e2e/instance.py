"""A whole instance for the tests: `up --detach` on a state directory and a port of its own, and a client of its API."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from ..kernel.patience import patient
from ..ports import free_port

PROJECT: Final = Path(__file__).resolve().parents[2]
PATIENCE_SEC: Final = 60.0
"""How long a condition may take before a test gives up. Nothing is asserted by it: a busy machine is no defect."""


def wait_until(condition: Callable[[], Any], what: str, *, timeout_sec: float = PATIENCE_SEC) -> Any:
    """Return the condition's first true value; fails after timeout_sec."""
    deadline = time.monotonic() + patient(timeout_sec)
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {patient(timeout_sec)} s")
        time.sleep(0.05)
    return value


@dataclass
class Instance:
    """One running panel."""

    state_dir: Path
    port: int
    output: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    """What manage.py is run by: unshare, nsenter, taskset …"""
    umask: int = -1
    project: Path = PROJECT

    @classmethod
    def start(cls) -> Instance:
        """Make a state directory and start a panel on it."""
        instance = cls(Path(tempfile.mkdtemp(prefix="boxroom-e2e-")), free_port())
        instance.up()
        return instance

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def name(self) -> str:
        """The five letters of the instance."""
        return str(json.loads((self.state_dir / "instance.json").read_text())["id"])

    def manage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of manage.py on this instance."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("BOXROOM_", "DJANGO_"))
        }
        environment.pop("DATABASE_URL", None)
        environment["BOXROOM_STATE_DIR"] = str(self.state_dir)
        done = subprocess.run(
            [*self.wrapper, sys.executable, str(self.project / "manage.py"), *arguments],
            capture_output=True, text=True, check=False, env=environment, cwd="/", umask=self.umask,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{arguments}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def up(self) -> None:
        """Start the panel and wait until it is ready."""
        done = self.manage("up", "--detach", "--state-dir", str(self.state_dir), "--bind", f"127.0.0.1:{self.port}")
        self.output += done.stdout

    def down(self, *, containers: bool = False) -> None:
        """Stop the panel."""
        self.manage("down", "--state-dir", str(self.state_dir), *(["--containers"] if containers else []))

    def remove(self) -> None:
        """Stop everything, check that nothing is left, and remove the state directory."""
        self.down(containers=True)
        self.nothing_left()
        shutil.rmtree(self.state_dir)

    def nothing_left(self) -> None:
        """Fail unless fsck finds nothing. What is only being put away is gone soon, a leak never."""
        found: list[str] = []

        def clean() -> bool:
            found[:] = [self.manage("fsck", "--json", check=False).stdout.strip()]
            return found == ["[]"]

        deadline = time.monotonic() + patient(20)
        while not clean():
            assert time.monotonic() < deadline, found

    @property
    def sign_in_link(self) -> str:
        """The one-time link that `up` printed."""
        found = re.search(rf"{re.escape(self.address)}/\S+", self.output.split("Sign in once")[1])
        assert found, self.output
        return found[0]

    def token(self, user: str = "admin") -> str:
        """Return an API token of a user, made once."""
        if user not in self.tokens:
            self.tokens[user] = self.manage("token", user).stdout.strip().splitlines()[-1]
        return self.tokens[user]

    def client(self, user: str = "admin") -> httpx.Client:
        """Return an API client."""
        return httpx.Client(
            base_url=f"{self.address}/api/v1", headers={"Authorization": f"Bearer {self.token(user)}"}, timeout=180
        )

    def pids(self, *words: str) -> list[int]:
        """Return the pids of this instance's processes whose command line holds these words."""
        wanted = f"BOXROOM_STATE_DIR={self.state_dir}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if wanted not in (entry / "environ").read_bytes().split(b"\0"):
                        continue
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if all(word in line for word in words):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


def call(client: httpx.Client, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Ask for an operation, wait for its end, and fail unless it succeeded."""
    answer = client.request(method, f"{path}{'&' if '?' in path else '?'}wait=60", json=body)
    assert answer.status_code in (200, 202), f"{method} {path}: {answer.status_code} {answer.text}"
    operation: dict[str, Any] = answer.json()
    while operation["finished_at"] is None:  # pytest's own time limit ends it
        operation = client.get(f"/operations/{operation['id']}?wait=60").json()
    assert operation["status"] == "succeeded", operation
    return operation


def idle(client: httpx.Client, name: str) -> dict[str, Any]:
    """Return a container's row once nothing is being done with it, also nothing that the panel does unasked."""
    row: dict[str, Any] = wait_until(
        lambda: (found := client.get(f"/containers/{name}").json())["operation"] is None and found, f"{name} is idle"
    )
    return row


def delete(client: httpx.Client, name: str) -> None:
    """Delete a container, if there is one, whatever is being done with it just now."""

    def gone() -> bool:
        answer = client.delete(f"/containers/{name}?force=true&wait=60")
        return answer.status_code == 404 or (answer.status_code == 200 and answer.json()["status"] == "succeeded")

    wait_until(gone, f"{name} is deleted")
