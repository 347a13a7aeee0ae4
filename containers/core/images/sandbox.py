"""Running other people's programs for a build: in their own namespaces, watched by line, ended without a trace."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from .. import cgroups, units
from ..cgroups import cages
from ..errors import SetupFailed
from ..kernel import files, mount_api
from ..sentences import say
from .base import Order

KEPT_LINES: Final = 30
"""How many of the last lines an error tells."""
_POLL_SEC: Final = 0.2
_KILL_TIMEOUT_SEC: Final = 10.0
_KEPT: Final = "chown dac_override fowner fsetid kill setfcap setgid setuid sys_chroot".split()
"""What unpacking and configuring packages takes. No mount, no device node, no process outside, no network card."""
ROOTFS: Final = "/build/rootfs"
"""Where a program finds the tree that it fills."""
MEMORY_BYTES: Final = 2 << 30
"""Of all processes of a build together, what they have read and written included as far as it cannot be given up."""
_JOIN: Final = 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"'
_CONFINE: Final = r"""
# A root of its own: the programs of this host, read-only, what looking up names takes, and the tree that is built.
umask 022
make_readonly() {
    for part in "$@"; do
        [ ! -e "$part" ] || { mount --bind "$part" "$part" && mount -o remount,bind,ro "$part"; }
    done
}
new=$1/sandbox tree=$1/rootfs
shift
mount -t tmpfs -o mode=755,nosuid,nodev,size=256m boxroom-build "$new"
cd "$new"
mkdir -p build/rootfs dev/shm etc/ssl old proc root run tmp usr var/tmp
chmod 1777 tmp var/tmp
for part in bin sbin lib lib32 lib64 libx32 usr; do
    if [ -L "/$part" ]; then
        cp -P "/$part" "$part"
    elif [ -d "/$part" ]; then
        mkdir -p "$part"
        mount --bind "/$part" "$part"
        mount -o remount,bind,ro "$part"
    fi
done
for part in alternatives gai.conf group host.conf hosts ld.so.cache nsswitch.conf passwd protocols services \
    ssl/certs ssl/openssl.cnf wgetrc; do
    [ ! -e "/etc/$part" ] || cp -RP "/etc/$part" "etc/$part"
done
[ ! -e /etc/resolv.conf ] || cp -L /etc/resolv.conf etc/resolv.conf  # often a symbolic link into /run
for part in null zero full random urandom tty; do
    : >"dev/$part"
    mount --bind "/dev/$part" "dev/$part"
done
ln -s /proc/self/fd dev/fd
mount -t proc -o ro,nosuid,nodev,noexec proc proc
mount --bind "$tree" build/rootfs
mount -o remount,bind,exec,suid build/rootfs
cd build/rootfs
# debootstrap takes these as they are: it may not mount or make device nodes itself
mount -t proc -o nosuid,nodev,noexec proc proc
make_readonly proc/bus proc/irq proc/sys proc/sysrq-trigger
mount -t tmpfs -o mode=755,nosuid,nodev,noexec,size=64k boxroom-build sys
mkdir sys/kernel
mount -t tmpfs -o mode=755,nosuid,noexec,size=16m boxroom-build dev
mkdir dev/pts dev/shm
for part in null zero full random urandom tty; do
    : >"dev/$part"
    mount --bind "/dev/$part" "dev/$part"
done
: >dev/console
ln -s pts/ptmx dev/ptmx
cd ../..
pivot_root . old
cd /
umount -l /old
rmdir /old
exec "$@"
"""
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_ROOM_LEAST_BYTES: Final = 4 << 20
_NO_ROOM: Final = ("No space left on device", "Disk quota exceeded")


def command(program: Sequence[str], directory: Path, inside: cages.Cage) -> list[str]:
    """Return the command line that runs a program as root in mount, pid, uts and ipc namespaces of its own, in a cage.

    directory: holds rootfs, the tree it fills at ROOTFS, and sandbox, an empty directory. Of the host it sees nothing
    but programs, read-only, and keeps nothing but the network, to download by. Without the capability to mount, to make
    device nodes or to reach other processes it cannot get more. What it starts dies with it, and it with the thread
    that started it.
    """
    return [
        *("/usr/bin/setpriv", "--pdeathsig", "KILL", "--"),
        *("/bin/sh", "-eu", "-c", _JOIN, "join", *inside.procs, "--"),
        *("/usr/bin/unshare", "--mount", "--pid", "--uts", "--ipc", "--propagation", "private"),
        *("--fork", "--kill-child", "--"),
        *("/bin/sh", "-eu", "-c", _CONFINE, "confine", os.fspath(directory)),
        *("/usr/bin/setpriv", "--inh-caps", "-all", "--bounding-set"),
        *(",".join(["-all", *(f"+{name}" for name in _KEPT)]), "--"),
        *program,
    ]


def run(
    order: Order,
    step: str,
    program: Sequence[str],
    *,
    environment: dict[str, str],
    script: str = "",
    watch: Callable[[str], None] = lambda _line: None,
    room: Path,
) -> None:
    """Run a program in its sandbox to its end; script is its standard input.

    Every line of its output goes to order.log and watch. Raises Cancelled within a second of the order's being
    cancelled, StorageFull naming room where the disk is full, SetupFailed with step and the last lines where it fails,
    or where it takes more than MEMORY_BYTES. In all cases every process of it is gone. room: the rootfs that it fills,
    at ROOTFS as the program sees it.
    """
    kept: deque[str] = deque(maxlen=KEPT_LINES)

    def take(raw: bytes) -> None:
        line = _CONTROL.sub("", raw.decode(errors="replace")).rstrip()
        if line:
            kept.append(line)
            order.log(line)
            watch(line)

    with cages.cage(cgroups.open(order.host), memory_bytes=_memory_bytes(room)) as inside:
        process = subprocess.Popen(
            command(program, room.parent, inside),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(script.encode())
            lowest_bytes = _read_lines(order, process, take, room)
            process.wait(_KILL_TIMEOUT_SEC)
        finally:
            end(process)
        if process.returncode and inside.starved():
            size = units.format_bytes(inside.memory_bytes)
            what = say("%(step)s takes more than %(size)s of memory.", step=step, size=size)
            raise SetupFailed(what, step=step, path=os.fspath(room), console="\n".join(kept))
    if process.returncode:
        _fail(step, process.returncode, kept, room, lowest_bytes)


def _memory_bytes(room: Path) -> int:
    """Return how much memory a build may take; on a tmpfs what it makes is memory, too."""
    with files.opened(room) as room_fd:
        in_memory = mount_api.file_system(room_fd) == mount_api.TMPFS
    return MEMORY_BYTES + (_free_bytes(room) if in_memory else 0)


def require_room(step: str, room: Path, least_bytes: int) -> None:
    """Raise StorageFull where there is less room than the step is known to need."""
    if (free_bytes := _free_bytes(room)) < least_bytes:
        full = files.full(step, room)
        full.details["free_bytes"], full.details["needed_bytes"] = free_bytes, least_bytes
        full.message += f" It needs {units.format_bytes(least_bytes)}; {units.format_bytes(free_bytes)} are free."
        raise full


def _read_lines(order: Order, process: subprocess.Popen[bytes], take: Callable[[bytes], None], room: Path) -> int:
    """Hand on each line until the program's end; return how little room there ever was. Raises Cancelled."""
    assert process.stdout is not None
    output_fd = process.stdout.fileno()
    rest = b""
    lowest_bytes = _free_bytes(room)
    with selectors.DefaultSelector() as selector:
        selector.register(output_fd, selectors.EVENT_READ)
        asked_at = 0.0
        while True:
            if time.monotonic() - asked_at >= _POLL_SEC:
                order.check_cancelled()
                asked_at = time.monotonic()
                lowest_bytes = min(lowest_bytes, _free_bytes(room))
            # asked first: what it said right before its end is there then
            ended = process.poll() is not None
            if not selector.select(_POLL_SEC):
                if ended:
                    break
                continue
            data = os.read(output_fd, 65536)
            if not data:
                break
            *lines, rest = (rest + data)[-65536:].split(b"\n")
            for line in lines:
                take(line)
    take(rest)
    return lowest_bytes


def _free_bytes(room: Path) -> int:
    found = os.statvfs(room)
    return found.f_bavail * found.f_frsize


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a sandbox, if it still runs, and wait until all of it is gone; close its pipes."""
    if process.poll() is None:
        # The first process of the pid namespace goes first: unshare, its parent, then returns only after the kernel has
        # ended every other process in there, and with them their mounts.
        for child in _children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                child_fd = os.pidfd_open(child)
                try:
                    if child in _children(process.pid):  # not reused in between
                        signal.pidfd_send_signal(child_fd, signal.SIGKILL)
                finally:
                    os.close(child_fd)
        try:
            process.wait(_KILL_TIMEOUT_SEC)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _fail(step: str, code: int, kept: deque[str], room: Path, lowest_bytes: int) -> None:
    """Raise what fits: a program that tidies up leaves room again, and may not say what it lacked."""
    console = "\n".join(kept)
    if any(words in console for words in _NO_ROOM) or lowest_bytes < _ROOM_LEAST_BYTES:
        full = files.full(step, room)
        full.details["console"] = console
        raise full
    told = next((line for line in reversed(kept) if line.startswith(("E:", "error:"))), None) or (kept or [""])[-1]
    how = say("was killed by signal %(number)s", number=-code) if code < 0 else say("ended with %(code)s", code=code)
    raise SetupFailed(
        say("%(step)s %(how)s: %(told)s", step=step, how=how, told=told),
        step=step,
        path=os.fspath(room),
        console=console,
    )
