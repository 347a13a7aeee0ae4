"""An application with its caller's standard streams: every byte, the end of file, who reads no more, signals."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.core.errors import SetupFailed
from containers.core.host import Host
from containers.core.lifecycle import running
from containers.core.model.behaviour import Init
from containers.core.model.spec import Spec
from containers.core.model.states import Status

from .conftest import NoNetwork
from .patience import patient, wait_until

PROJECT = Path(__file__).resolve().parents[2]
CALLER = """
import os, signal, sys
# who runs the tests may ignore it, as a shell does for what is put in the background
signal.signal(signal.SIGINT, signal.default_int_handler)
from django.conf import settings
settings.configure(BOXROOM_RUN_DIR={run_dir!r})
from containers.clients import stdio
with stdio.Offer() as offer:
    os.write({told}, offer.name.encode())
    os.read({started}, 1)
    streams = offer.taken()
if streams is None:
    sys.exit(98)
problem = streams.carry()
sys.exit(0 if problem is None else problem.errno)
"""
MANY = 100 * 1024**2


@pytest.fixture
def begin(host: Host, container: Callable[..., Spec]) -> Iterator[Callable[..., tuple[Spec, subprocess.Popen[bytes]]]]:
    """Return a function that starts a script as an application; its caller has the streams that are given."""
    callers = []

    def make(script: str, *, user: str = "", shell: str = "", **streams: Any) -> tuple[Spec, subprocess.Popen[bytes]]:
        init = Init(kind="application", arguments=("-c", script), user=user)
        spec = container(init_command=("/bin/sh",), init=init)
        (told_read, told_write), (started_read, started_write) = os.pipe(), os.pipe()
        code = CALLER.format(run_dir=str(host.run_dir), told=told_write, started=started_read)
        words = [sys.executable, "-c", code]
        caller = subprocess.Popen(
            ["/bin/sh", "-c", shell, "sh", *words] if shell else words,
            pass_fds=(told_write, started_read),
            cwd=PROJECT,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )
        callers.append(caller)
        os.close(told_write)
        os.close(started_read)
        with open(told_read, "rb", buffering=0) as told, open(started_write, "wb", buffering=0) as started:
            name = told.read(64).decode()
            running.start(host, spec, network=NoNetwork(), stdio=name)
            started.write(b".")
        return spec, caller

    yield make
    for caller in callers:
        caller.kill()
        for pipe in filter(None, (caller.stdin, caller.stdout, caller.stderr)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        caller.wait()


def ended(host: Host, spec: Spec) -> int | None:
    wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, what="the container ends")
    last = running.observe(host)[spec.id].last_exit
    return last.exit_code if last else None


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.lxc(
    "lxc-execute: the application has the streams of its caller: every byte, and the end of file", "lxc-execute"
)
def test_every_byte_goes_through_and_the_end_of_file_too(host: Host, begin: Any, tmp_path: Path) -> None:
    block = os.urandom(1024**2)
    with (tmp_path / "in").open("wb") as file:
        for _ in range(MANY // len(block)):
            file.write(block)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        spec, caller = begin("cat; echo apart >&2; exit 41", stdin=source, stdout=target)
        assert caller.communicate(timeout=patient(120))[1] == b"apart\n"
    assert caller.returncode == 0
    assert ended(host, spec) == 41
    assert digest(tmp_path / "in") == digest(tmp_path / "out")
    log = host.container_dir(spec.id) / "console.log"
    assert not log.exists(), "what was handed on is not in the console's log"


def test_what_is_piped_in_arrives_as_it_is_written(host: Host, begin: Any) -> None:
    spec, caller = begin("while read line; do echo got $line; done; echo end", stdin=subprocess.PIPE)
    for word in (b"one", b"two"):
        caller.stdin.write(word + b"\n")
        caller.stdin.flush()
        assert caller.stdout.readline() == b"got " + word + b"\n"
    caller.stdin.close()
    assert caller.stdout.read() == b"end\n"
    assert (caller.wait(patient(60)), ended(host, spec)) == (0, 0)


@pytest.mark.parametrize("closed", ["<&-", "</dev/null"])
def test_without_input_it_is_at_its_end(host: Host, begin: Any, closed: str) -> None:
    spec, caller = begin("cat; echo read", shell=f'exec "$@" {closed}')
    assert caller.communicate(timeout=patient(60)) == (b"read\n", b"")
    assert ended(host, spec) == 0


def test_they_are_no_terminal_and_may_be_opened_again_by_its_user(host: Host, begin: Any) -> None:
    script = """for n in 0 1 2; do test -t $n && echo tty $n; done; (: </dev/tty) 2>/dev/null && echo a terminal
    read line </dev/stdin; echo $(id -u) $line >/dev/stdout; echo told >/dev/stderr"""
    spec, caller = begin(script, user="1000:1000", stdin=subprocess.PIPE)
    assert caller.communicate(b"a line\n", timeout=patient(60)) == (b"1000 a line\n", b"told\n")
    assert ended(host, spec) == 0


def test_who_reads_no_more_ends_it_and_holds_nobody_up(host: Host, begin: Any) -> None:
    spec, caller = begin("yes")
    assert caller.stdout.readline() == b"y\n"
    caller.stdout.close()
    assert caller.wait(patient(60)) == 0
    assert ended(host, spec) == 128 + signal.SIGPIPE


def test_an_application_that_reads_no_more_ends_all_the_same(host: Host, begin: Any) -> None:
    spec, caller = begin("exec <&-; echo closed; sleep 0.1; exit 5", stdin=subprocess.PIPE)
    with contextlib.suppress(BrokenPipeError):
        caller.stdin.write(b"x" * 1024**2)
    assert caller.stdout.read() == b"closed\n"
    assert (caller.wait(patient(60)), ended(host, spec)) == (0, 5)


def test_a_full_disk_is_told(host: Host, begin: Any) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        _spec, caller = begin("yes", stdout=full)
        caller.wait(patient(60))
    assert caller.returncode == 28, "ENOSPC"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_is_the_applications(host: Host, begin: Any, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    spec, caller = begin(f"trap 'echo got; exit 42' {name}; echo ready; while :; do sleep 0.05; done")
    assert caller.stdout.readline() == b"ready\n"
    caller.send_signal(number)
    assert caller.stdout.read() == b"got\n"
    assert (caller.wait(patient(60)), ended(host, spec)) == (0, 42)


def test_a_signal_is_the_applications_whichever_thread_it_came_to(host: Host, begin: Any) -> None:
    spec, caller = begin("trap 'echo got; exit 42' TERM; echo ready; while :; do sleep 0.05; done")
    assert caller.stdout.readline() == b"ready\n"
    threads = [int(name) for name in os.listdir(f"/proc/{caller.pid}/task")]
    other = next(number for number in threads if number != caller.pid)
    tgkill = 234 if os.uname().machine == "x86_64" else 131
    assert ctypes.CDLL(None).syscall(tgkill, caller.pid, other, signal.SIGTERM) == 0
    assert caller.stdout.read() == b"got\n"
    assert (caller.wait(patient(60)), ended(host, spec)) == (0, 42)


def test_one_that_the_caller_ignores_it_does_not_get(host: Host, begin: Any) -> None:
    script = "trap 'echo hup' HUP; trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done"
    spec, caller = begin(script, shell='trap "" HUP; exec "$@"')
    assert caller.stdout.readline() == b"ready\n"
    caller.send_signal(signal.SIGHUP)
    caller.send_signal(signal.SIGTERM)
    assert caller.stdout.read() == b""
    assert (caller.wait(patient(60)), ended(host, spec)) == (0, 42)


def test_a_caller_that_is_killed_leaves_an_end_of_file(host: Host, begin: Any) -> None:
    spec, caller = begin("echo ready; cat; exit 6", stdin=subprocess.PIPE)
    assert caller.stdout.readline() == b"ready\n"
    caller.kill()
    assert ended(host, spec) == 6


def test_one_that_boots_again_has_its_console_then(host: Host, begin: Any) -> None:
    spec, caller = begin(
        "echo again; if [ -e /again ]; then exit 3; fi; touch /again; reboot -f", stdin=subprocess.PIPE
    )
    assert caller.communicate(timeout=patient(60))[0] == b"again\n"
    assert ended(host, spec) == 3
    assert (host.container_dir(spec.id) / "console.log").read_text().startswith("again")


@pytest.mark.parametrize("name", ["nobodyisthere", "../launcher"])
def test_without_whoever_asked_for_them_nothing_is_started(
    host: Host, container: Callable[..., Spec], name: str
) -> None:
    spec = container(init_command=("/bin/sh",), init=Init(kind="application", arguments=("-c", "sleep 3600")))
    with pytest.raises(SetupFailed) as failed:
        running.start(host, spec, network=NoNetwork(), stdio=name)
    assert failed.value.details["step"] == "hand over its standard streams"
    assert running.observe(host)[spec.id].status is Status.STOPPED
