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


def wait_until(condition: Callable[[], Any], timeout_sec: float, what: str) -> Any:
    """Return the condition's first true value; fails after timeout_sec."""
    deadline = time.monotonic() + patient(timeout_sec)
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {patient(timeout_sec)} s")


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
        left = json.loads(self.manage("fsck", "--json", check=False).stdout or "null")
        shutil.rmtree(self.state_dir)
        assert left == [], left

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
            base_url=f"{self.address}/api/v1", headers={"Authorization": f"Bearer {self.token(user)}"}, timeout=90
        )

    def pids(self, role: str) -> list[int]:
        """Return the pids of this instance's processes whose command line holds role."""
        wanted = f"BOXROOM_STATE_DIR={self.state_dir}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if wanted in (entry / "environ").read_bytes().split(b"\0") and role in (
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    ):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


def call(client: httpx.Client, method: str, path: str, body: Any = None, *, wait: int = 60) -> dict[str, Any]:
    """Ask for an operation, wait for its end, and fail unless it succeeded."""
    answer = client.request(method, f"{path}{'&' if '?' in path else '?'}wait={wait}", json=body)
    assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
    operation: dict[str, Any] = answer.json()
    assert operation["status"] == "succeeded", operation
    return operation
