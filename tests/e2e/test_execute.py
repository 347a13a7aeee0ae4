"""`ct execute` in the middle of a shell's pipeline: streams, exit status, signals, and what is left of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from containers.core.host import Host

from ..kernel.patience import patient
from .instance import PROJECT, Instance, call, wait_until


@pytest.fixture
def execute(instance: Instance) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that begins one."""
    begun = []

    def begin(*words: str) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "BOXROOM_STATE_DIR": str(instance.state_dir)}
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), "ct", "execute", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd="/",
        )  # fmt: skip
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        process.wait()


@pytest.mark.lxc("lxc-execute: in a pipeline, with its exit status, and nothing left of it", "lxc-execute")
def test_it_stands_in_a_pipeline(
    instance: Instance, api: httpx.Client, name: str, execute: Callable[..., subprocess.Popen[bytes]]
) -> None:
    data = os.urandom(300_000)
    process = execute(name, "--image", "busybox", "--", "sh", "-c", "cat; echo apart >&2; exit 41")
    assert process.communicate(data, timeout=patient(120)) == (data, b"apart\n")
    assert process.returncode == 41
    assert api.get(f"/containers/{name}").status_code == 404
    assert not list(Host.open(instance.state_dir).run_dir.glob("stdio-*"))


@pytest.mark.parametrize(("word", "code"), [("nothing-of-this-name", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_run_has_the_status_of_a_shell(
    api: httpx.Client, name: str, execute: Callable[..., subprocess.Popen[bytes]], word: str, code: int
) -> None:
    process = execute(name, "--image", "busybox", "--", word)
    _output, told = process.communicate(b"", timeout=patient(120))
    assert (process.returncode, word in told.decode()) == (code, True)
    assert api.get(f"/containers/{name}").status_code == 404


def test_a_container_that_is_there_is_what_it_was_after_a_signal(
    api: httpx.Client, name: str, execute: Callable[..., subprocess.Popen[bytes]]
) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox"})
    before = api.get(f"/containers/{name}").json()
    process = execute(name, "--", "sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(patient(60)) == 7
    after = wait_until(
        lambda: (row := api.get(f"/containers/{name}").json())["status"] == "stopped" and row, "it ended"
    )
    assert [after[key] for key in ("init_command", "init")] == [before[key] for key in ("init_command", "init")]
    assert after["last_exit"]["exit_code"] == 7
