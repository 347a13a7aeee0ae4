"""Scripts of system calls: carried out without an interpreter, and by one, they come to the same."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containers.core.kernel import numbers, runner
from containers.core.kernel.script import AT_FDCWD, Kept, Script, StepFailed
from containers.core.kernel.syscalls import (
    CLONE_ARGUMENTS_BYTES,
    CLONE_CLEAR_SIGHAND,
    CLONE_VM,
    clone_arguments,
)

_TOKENS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of include/uapi/linux/audit.h."""

Add = Callable[[Script], None]
Carry = Callable[[Add], tuple[Script, int]]


@pytest.mark.parametrize("machine", numbers.MACHINES)
def test_numbers_of_system_calls_are_those_that_libseccomp_knows(machine: str) -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    resolve = library.seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    ours = numbers.of(machine)
    assert {name: resolve(_TOKENS[machine], name.encode()) for name in ours} == ours


def execute(script: Script, command: str) -> None:
    arguments = script.texts(["sh", "-c", command])
    script.call("execve", script.text("/bin/sh"), arguments, script.texts([]), path="/bin/sh")


def begotten(script: Script) -> int:
    """Add the making of a process in this one's memory; returns where its pid will stand."""
    arguments = script.data(clone_arguments(CLONE_VM | CLONE_CLEAR_SIGHAND, exit_signal=signal.SIGCHLD))
    pid_at, forked = script.room(4), len(script)
    script.call("clone3", arguments, CLONE_ARGUMENTS_BYTES, kept=pid_at)
    script.stop(forked)
    return pid_at


def without_interpreter(add: Add) -> tuple[Script, int]:
    script = Script()
    pid_at = begotten(script)
    add(script)
    runner.run(script.first)
    return script, os.waitstatus_to_exitcode(os.waitpid(script.value(pid_at), 0)[1])


def by_fork(add: Add) -> tuple[Script, int]:
    script = Script()
    add(script)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(StepFailed, EOFError):
            script.carry_out()
        os._exit(1)
    return script, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(params=["runner", "fork"])
def carry(request: pytest.FixtureRequest) -> Carry:
    """Return a way to have a process carry a script out, which gives the script and the exit code."""
    if request.param == "fork":
        return by_fork
    if not runner.available():
        pytest.skip("this machine has no runner")
    return without_interpreter


def test_calls_have_results_of_calls_before_and_pass_over_what_may_fail(carry: Carry, tmp_path: Path) -> None:
    file, there = tmp_path / "file", tmp_path / "there"
    there.mkdir()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND

    def add(script: Script) -> None:
        file_fd, word = script.room(4), script.data(b"\x01\0\0\0")
        script.call("openat", AT_FDCWD, script.text(str(file)), flags, 0o600, kept=file_fd)

        def write(text: str) -> None:
            script.call("write", Kept(file_fd), script.text(text), len(text))

        script.call("mkdirat", AT_FDCWD, script.text(str(there)), 0o700, tolerated=(errno.EEXIST,), skip_tolerated=1)
        write("never: it was there. ")
        script.call("mkdirat", AT_FDCWD, script.text(str(tmp_path / "new")), 0o700, tolerated=(errno.EEXIST,), skip=1)
        write("never: it was made. ")
        script.call("mkdirat", AT_FDCWD, script.text("/proc/nothing"), 0o700, tolerated=None)
        write("all may fail; ")
        # 1 becomes 5: the length of what is written
        script.set_bits(word, 4)
        script.call("write", Kept(file_fd), script.text("fives"), Kept(word))
        execute(script, "exit 7")

    assert carry(add)[1] == 7
    assert file.read_text() == "all may fail; fives"
    assert (tmp_path / "new").is_dir()


def test_the_call_that_fails_is_named_and_ends_it(tmp_path: Path) -> None:
    def add(script: Script) -> None:
        script.step = "look for it"
        script.call("chdir", script.text("/"), path="/")
        script.step = lambda: "go there"
        script.call("chdir", script.text(str(tmp_path / "no")), path="no")
        script.call("mkdirat", AT_FDCWD, script.text(str(tmp_path / "never")), 0o700)

    script, code = without_interpreter(add)
    assert code == 1
    failed = script.failure()
    assert failed is not None
    assert (failed.step, failed.error.errno, failed.error.filename) == ("go there", errno.ENOENT, "no")
    other = Script()
    add(other)
    here = os.getcwd()
    try:
        with pytest.raises(StepFailed) as raised:
            other.carry_out()
    finally:
        os.chdir(here)
    assert (raised.value.step, raised.value.error.args) == (failed.step, failed.error.args)
    assert not (tmp_path / "never").exists()


def test_the_end_of_a_file_ends_it_and_is_no_failure(carry: Carry) -> None:
    ours, theirs = os.pipe()
    os.close(theirs)

    def add(script: Script) -> None:
        script.receive(ours)
        execute(script, "exit 7")

    script, code = carry(add)
    os.close(ours)
    assert (code, script.failure()) == (1, None)


def test_who_is_made_does_not_undo_what_its_maker_knows() -> None:
    """Both have the call's result, at one place: 0 must not be written over the pid, whoever comes last."""
    for _ in range(200):
        script = Script()
        pid_at = begotten(script)
        script.call("chdir", script.text("/nowhere"))
        runner.run(script.first)
        pid = script.value(pid_at)
        assert os.waitpid(pid, 0) == (pid, 1 << 8)


def test_signals_that_are_handled_have_their_default_in_it() -> None:
    """A handler would run on the maker's stack."""
    called: list[Any] = []
    before = signal.signal(signal.SIGUSR1, lambda *what: called.append(what))
    read_fd, write_fd = os.pipe()
    try:
        script = Script()
        pid_at = begotten(script)
        script.receive(read_fd)
        runner.run(script.first)
        pid = script.value(pid_at)
        os.kill(pid, signal.SIGUSR1)
        assert os.waitpid(pid, 0)[1] == signal.SIGUSR1
    finally:
        os.close(read_fd)
        os.close(write_fd)
        signal.signal(signal.SIGUSR1, before)
    assert called == []


def test_what_is_too_much_is_refused_before_anything_is_done() -> None:
    with pytest.raises(OSError, match="too long") as raised:
        Script().data(bytes(8 * 1024**2))
    assert raised.value.errno == errno.E2BIG
    script = Script()
    entries = 0
    with contextlib.suppress(OSError):
        while entries < 100_000:
            script.call("setsid")
            entries += 1
    assert 400 < entries < 100_000
    with pytest.raises(ValueError, match="null"):
        script.text("a\0b")
