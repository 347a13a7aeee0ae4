"""The command line's own streams and terminal, joined to a container."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containers.core.host import Host
from containers.core.lifecycle import running
from containers.core.model.spec import Spec

from .conftest import NoNetwork
from .patience import patient

PROJECT = Path(__file__).resolve().parents[2]
CODE = """
import sys
import termios
from django.conf import settings
settings.configure(BOXROOM_RUN_DIR={run_dir!r})
from containers.clients import relay
from containers.core.errors import CoreError
try:
    code = {call}
except CoreError as error:
    print(error.code, error.message, file=sys.stderr)
    code = 99
sys.exit(code or 0)
"""
WHO = {"user": "root", "user_id": 1, "mode": "rw"}


@pytest.fixture
def command(host: Host) -> Callable[[str], list[str]]:
    """Return a function that makes a command line of a call of relay's."""

    def make(call: str) -> list[str]:
        return [sys.executable, "-c", CODE.format(run_dir=str(host.run_dir), call=call)]

    return make


def execute(
    command: Any, spec: Spec, *words: str, stdin: bytes = b"", **more: Any
) -> subprocess.CompletedProcess[bytes]:
    call = f"relay.run_command({spec.id!r}, command={list(words)!r}, **{more!r})"
    return subprocess.run(
        command(call), input=stdin, capture_output=True, cwd=PROJECT, timeout=patient(120), check=False
    )


def test_streams_and_exit_codes(command: Any, running_container: Spec) -> None:
    done = execute(command, running_container, "sh", "-c", "cat; echo oops >&2; exit 41", stdin=b"a\0b\xff")
    assert (done.returncode, done.stdout, done.stderr) == (41, b"a\0b\xff", b"oops\n")
    assert execute(command, running_container, "sh", "-c", "kill -9 $$").returncode == 137
    assert execute(command, running_container, "nothing-of-this-name").returncode == 127
    refused = execute(command, running_container, "true", user="nobody-here")
    assert refused.returncode == 99
    assert b"invalid-value" in refused.stderr


def test_ten_megabytes_go_through_and_come_back(command: Any, running_container: Spec) -> None:
    data = os.urandom(1024 * 1024) * 10
    done = execute(command, running_container, "cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_a_frozen_container_and_one_that_is_stopped_are_told(host: Host, command: Any, running_container: Spec) -> None:
    running.freeze(host, running_container.id)
    frozen = execute(command, running_container, "true")
    assert b"frozen" in frozen.stderr
    running.stop(host, running_container.id, kill=True)
    assert b"invalid-transition" in execute(command, running_container, "true").stderr


class OnTerminal:
    """A process whose terminal we hold."""

    def __init__(self, words: list[str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(PROJECT)
            os.execv(words[0], words)
        self.output = b""

    def expect(self, text: bytes) -> None:
        deadline = time.monotonic() + patient(60)
        while text not in self.output:
            assert time.monotonic() < deadline, self.output
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self.fd, 65536)
                except OSError:
                    assert text in self.output, self.output

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def end(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def test_a_shell_on_a_terminal(command: Any, running_container: Spec) -> None:
    term = OnTerminal(command(f"relay.run_terminal({running_container.id!r}, viewer={WHO!r})"))
    term.expect(b"# ")
    fcntl.ioctl(term.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    # the size is told on its way beside what is typed
    term.type(b'until [ "$(stty size)" = "33 99" ]; do sleep 0.05; done; stty size; test -t 0 && echo is-a-tty\n')
    term.expect(b"33 99\r\nis-a-tty")
    term.type(b"exit 6\n")
    assert term.end() == 6


def test_a_terminal_has_the_variables_and_the_directory_that_were_asked_for(
    command: Any, running_container: Spec
) -> None:
    call = f"relay.run_terminal({running_container.id!r}, viewer={WHO!r}, cwd='/etc', environment={{'A': 'bcd'}})"
    term = OnTerminal(command(call))
    term.expect(b"# ")
    term.type(b'echo "<$A in $PWD>"; exit 6\n')
    term.expect(b"<bcd in /etc>")
    assert term.end() == 6


@pytest.mark.parametrize(("word", "code"), [("/bin/nothing-of-this-name", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_run_on_a_terminal_has_the_status_of_a_shell(
    command: Any, running_container: Spec, word: str, code: int
) -> None:
    term = OnTerminal(command(f"relay.run_terminal({running_container.id!r}, viewer={WHO!r}, command=[{word!r}])"))
    term.expect(word.encode() + b": ")
    assert term.end() == code


def test_what_was_typed_too_early_is_not_lost(command: Any, running_container: Spec) -> None:
    words = ["sh", "-c", "read x; echo got $x"]
    term = OnTerminal(command(f"relay.run_terminal({running_container.id!r}, viewer={WHO!r}, command={words!r})"))
    term.type(b"early\n")
    term.expect(b"got early")
    assert term.end() == 0


def test_one_leaves_a_console_by_its_key(host: Host, container: Any, command: Any) -> None:
    spec = container(init_command=("/bin/sh", "-c", "echo ready; while read x; do echo got $x; done; sleep 3600"))
    running.start(host, spec, network=NoNetwork())
    term = OnTerminal(command(f"relay.run_terminal({spec.id!r}, escape=1, viewer={WHO!r}, session='console')"))
    term.expect(b"ready")
    term.type(b"a\x01\x01b\n")
    term.expect(b"got a\x01b")
    term.type(b"\x01q")
    assert term.end() == 0
    assert running.observe(host)[spec.id].status == "running"


NAMESPACES = """
import os, signal, sys, time, types
import django
# who runs the tests may ignore it, as a shell does for what is put in the background
signal.signal(signal.SIGINT, signal.default_int_handler)
django.setup()
from containers.management.ct import base, namespaces
row = types.SimpleNamespace(pk={id!r}, name="c", privileged=False)
fork = os.fork
def fork_and_lose_the_processor():
    pid = fork()
    if pid:
        time.sleep({late!r})
    return pid
os.fork = fork_and_lose_the_processor
try:
    code = namespaces.run(row, namespaces.parse({kinds!r}), {words!r}, dict(os.environ))
except base.Failed as failed:
    print(failed, file=sys.stderr)
    code = 99
sys.exit(code)
"""


def begin(host: Host, spec: Spec, kinds: str, *words: str, late: float = 0.0) -> subprocess.Popen[str]:
    code = NAMESPACES.format(id=spec.id, kinds=kinds, words=list(words), late=late)
    more = {
        "DJANGO_SETTINGS_MODULE": "panel.settings",
        "BOXROOM_ROLE": "test",
        "BOXROOM_STATE_DIR": str(host.state_dir),
    }
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        start_new_session=True,
    )


def enter(host: Host, spec: Spec, kinds: str, *words: str) -> subprocess.CompletedProcess[str]:
    with begin(host, spec, kinds, *words) as started:
        out, err = started.communicate(timeout=patient(120))
    return subprocess.CompletedProcess(words, started.returncode, out, err)


def test_one_namespace_after_another(host: Host, running_container: Spec) -> None:
    spec = running_container
    inside = running.observe(host)[spec.id].init_pid
    shown = "for n in net pid uts mnt user; do readlink /proc/self/ns/$n; done"
    own = {n: os.readlink(f"/proc/self/ns/{n}") for n in ("net", "pid", "uts", "mnt", "user")}
    theirs = {n: os.readlink(f"/proc/{inside}/ns/{n}") for n in ("net", "pid", "uts", "mnt", "user")}
    done = enter(host, spec, "NETWORK|UTSNAME", "sh", "-c", f"{shown}; hostname; exit 5")
    expected = [theirs["net"], own["pid"], theirs["uts"], own["mnt"], own["user"], spec.name]
    assert (done.returncode, done.stdout.split("\n")[:-1]) == (5, expected), done.stderr
    whole = enter(
        host,
        spec,
        "USER,MOUNT,PID,NETWORK,IPC,UTSNAME,CGROUP",
        "/bin/sh",
        "-c",
        "id -u; ls /sbin/idle; ls -l /proc/self/fd | wc -l",
    )
    assert whole.stdout.split("\n")[:2] == ["0", "/sbin/idle"], whole.stderr
    assert enter(host, spec, "PID", "sh", "-c", "kill -9 $$").returncode == 137
    assert enter(host, spec, "NETWORK", "nothing-of-this-name").returncode == 127
    piped = enter(host, spec, "NETWORK", "sh", "-c", "yes | head -1")
    assert (piped.stdout, piped.stderr) == ("y\n", ""), "what is run ends when nobody reads it, as everywhere"
    assert "USER" in enter(host, spec, "MOUNT", "true").stderr
    assert "There is no kind" in enter(host, spec, "WINGS", "true").stderr


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_an_interrupt_is_for_what_was_run(host: Host, running_container: Spec, late: float) -> None:
    """As with system(3): the command line waits for what its program makes of ^C.

    late: seconds that those who wait stand still after each fork, while what was run runs.
    """
    waits = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    started = begin(host, running_container, "NETWORK", "sh", "-c", waits, late=late)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    os.killpg(started.pid, signal.SIGINT)
    assert started.communicate(timeout=patient(60))[0] == "caught\n"
    assert started.returncode == 5
