"""What starts write to is learned from the first, and taken by the next: who has which memory, as the kernel says."""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from containers.core.host import Host
from containers.core.kernel import syscalls
from containers.core.lifecycle import running
from containers.core.model.behaviour import Init
from containers.core.model.spec import Spec
from containers.core.proc import pages
from containers.core.proc.records import RunFile

from .conftest import NoNetwork
from .patience import wait_until

_COUNT = 64


@contextmanager
def forked(act: Callable[[], object]) -> Iterator[tuple[int, int]]:
    """Give a fork that has done something and waits, and the error that it met (0 for none)."""
    told_read, told_write = os.pipe()
    wait_read, wait_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(wait_write)
        number = 0
        try:
            act()
        except OSError as error:
            number = error.errno or 255
        os.write(told_write, bytes((number,)))
        os.read(wait_read, 1)
        os._exit(0)
    os.close(told_write)
    os.close(wait_read)
    try:
        yield pid, os.read(told_read, 1)[0]
    finally:
        os.close(wait_write)
        os.close(told_read)
        os.waitpid(pid, 0)


def owned(ranges: bytes) -> set[int]:
    """Return the addresses of pages in a list of ranges."""
    words = array.array("Q", ranges)
    return {
        address
        for first, size in zip(words[::2], words[1::2], strict=True)
        for address in range(first, first + size, mmap.PAGESIZE)
    }


def test_what_one_fork_wrote_to_the_next_one_takes():
    memory = mmap.mmap(-1, _COUNT * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = (ctypes.c_char * len(memory)).from_buffer(memory)
    begin = ctypes.addressof(view)
    addresses = [begin + number * mmap.PAGESIZE for number in range(_COUNT)]
    for number in range(_COUNT):
        memory[number * mmap.PAGESIZE] = number
    written = {addresses[3], addresses[4], addresses[40]}

    def write() -> None:
        for number in (3, 4, 40):
            memory[number * mmap.PAGESIZE] = 200

    with forked(write) as (pid, _):
        found = pages.own(pid)
    assert owned(found) & set(addresses) == written
    with forked(lambda: syscalls.populate(found)) as (pid, number):
        if number == errno.EINVAL:
            pytest.skip("the kernel takes no such advice for several ranges (before Linux 6.13)")
        assert number == 0
        assert owned(pages.own(pid)) & set(addresses) == written
    # nothing but where it is: what stands there is what stood there
    assert [memory[number * mmap.PAGESIZE] for number in range(_COUNT)] == list(range(_COUNT))
    del view
    memory.close()


def shared(pid: int) -> list[str]:
    """Return the lines of a process's memory that others may write to as well."""
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.split()[1] == "rw-s"]


def test_the_first_start_tells_the_next_ones_and_nobody_else(host: Host, container: Callable[..., Spec]) -> None:
    listening = str(host.launcher_socket)
    first, second = container(slot=1), container(slot=2, init_command=("/bin/sleep",), init=Init(
        kind="application", arguments=("1000",)
    ))  # fmt: skip
    running.start(host, first, network=NoNetwork())
    supervisor = RunFile.read(host.run_path(first.id))
    assert supervisor is not None
    launcher = int(Path(f"/proc/{supervisor.supervisor.pid}/stat").read_text().rpartition(")")[2].split()[1])
    (area,) = shared(launcher)
    place = int(area.split("-")[0], 16)

    def length() -> int:
        with open(f"/proc/{launcher}/mem", "rb", buffering=0) as memory:
            return int.from_bytes(os.pread(memory.fileno(), 8, place), sys.byteorder)

    wait_until(length, what=f"the launcher at {listening} has been told")
    told = length()
    running.start(host, second, network=NoNetwork())
    for spec in (first, second):
        run = RunFile.read(host.run_path(spec.id))
        assert run is not None
        assert shared(run.supervisor.pid) == []
        assert shared(run.init.pid) == []
    assert length() == told
