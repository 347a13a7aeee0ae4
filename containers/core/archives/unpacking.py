"""Takes an archive apart: starts the confined processes, and measures and hashes what flows from one to the other.

The file is root's own and has been checked before (its digest, where somebody gave one). What comes out of it is
hashed here, between the two processes, because neither is believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from ..cgroups import Cgroups, cages
from ..errors import HostUnsupported, SetupFailed, SpecError
from ..kernel import files, mount_api
from ..sentences import recognized, say
from ..units import format_bytes
from . import formats, rules

CHUNK_BYTES: Final = 1 << 20
_POLL_SEC: Final = 0.2
_END_SEC: Final = 30.0
_WORDS_BYTES: Final = 4096
_LINES_MAX_BYTES: Final = 64 << 20
"""Of reports: the list of directories that no entry spoke of is one line."""
_F_SETPIPE_SZ: Final = 1031
_PROCESS: Final = Path(__file__).with_name("process.py")


class BadArchive(SpecError):
    """An archive that is hostile, damaged or too much. details: entry (a name in it), limit (which one it passes)."""

    code = "bad-archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What an archive came to. diff_id: sha256 of the plain tar, hexadecimal. left_out: counts, by kind.

    implicit: directories that no entry spoke of; of an OCI layer they look as the layers below say.
    """

    diff_id: str
    plain_bytes: int
    entries: int
    left_out: Mapping[str, int]
    implicit: tuple[str, ...]


@dataclass(slots=True)
class Told:
    """What the tree's maker said so far."""

    entries: int = 0
    end: dict[str, Any] = field(default_factory=dict)
    rest: bytes = b""

    def take(self, data: bytes) -> None:
        """Take a piece of its report; raises BadArchive for what it would never say."""
        self.rest += data
        if len(self.rest) > _LINES_MAX_BYTES:
            raise BadArchive("The archive could not be read.", field="source", entry="", limit="")
        *lines, self.rest = self.rest.split(b"\n")
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                raise BadArchive("The archive could not be read.", field="source", entry="", limit="") from None
            if "entries" in value:
                self.entries = int(value["entries"])
            else:
                self.end = value


def unpack(
    archive: Path,
    found: formats.Format,
    rootfs: Path,
    *,
    groups: Cgroups,
    layer: bool = False,
    limits: rules.Limits = rules.Limits(),  # noqa: B008  frozen
    tell: Callable[[float, int], None] = lambda _part, _entries: None,
    check_cancelled: Callable[[], None] = lambda: None,
    named: str = "source",
) -> Unpacked:
    """Unpack an archive into rootfs, an empty directory of root's; owners lie unshifted. Not on the disk yet.

    archive: root's own file, in a directory that nobody else may enter; its mode becomes 0444. groups: the instance's,
    beside whose containers it is done. layer: whiteouts are taken as OCI's, and the last block need not be whole, for
    the caller compares the diff_id. tell: which part of the file was read (0 to 1), entries made. check_cancelled:
    called five times a second, may raise. named: the field of errors. Raises BadArchive, StorageFull, HostUnsupported
    naming the program that is missing, SetupFailed; rootfs is the caller's to remove then.
    """
    if found.program and not os.access(found.program[0], os.X_OK):
        raise HostUnsupported(
            say(
                "%(program)s is missing: install %(package)s to read %(kind)s archives.",
                program=found.program[0],
                package=found.package,
                kind=found.name,
            ),
            feature=found.package,
        )
    archive.chmod(0o444)
    try:
        with contextlib.ExitStack() as held:
            inside = held.enter_context(caged(groups, limits, rootfs))
            return _Flow(archive, found, rootfs, limits, layer, held, inside, tell, check_cancelled).run()
    except rules.Refused as refused:
        raise bad_archive(refused.why, refused.entry, refused.limit, named) from None
    except BadArchive as bad:
        bad.field = named
        raise


@contextlib.contextmanager
def caged(groups: Cgroups, limits: rules.Limits, place: Path | None = None) -> Iterator[cages.Cage]:
    """Yield the cgroup of what reads one archive; whatever comes of a process that the kernel killed there is Refused.

    For the caller to make a BadArchive of. Nothing of it runs afterwards. place: what is made lies in there; on a tmpfs
    it is memory, too.
    """
    memory_bytes = limits.memory_bytes
    if place is not None:
        with files.opened(place) as place_fd:
            if mount_api.file_system(place_fd) == mount_api.TMPFS:
                memory_bytes += limits.bytes
    with cages.cage(groups, memory_bytes=memory_bytes) as inside:
        try:
            yield inside
        except (SetupFailed, rules.Refused, BadArchive) as error:
            if not inside.starved():
                raise
            what = say("It takes more than %(size)s of memory to read.", size=format_bytes(inside.memory_bytes))
            raise rules.Refused(what, limit="memory") from error


def bad_archive(why: str, entry: str, limit: str, named: str = "source") -> BadArchive:
    """Return what a refused archive comes to, for people. named: the field of errors."""
    where = f" ({entry})" if entry else ""
    what = say("The archive is not taken: %(why)s%(where)s", why=why, where=where)
    return BadArchive(what, field=named, entry=entry, limit=limit)


@contextlib.contextmanager
def within_room(limits: rules.Limits, allowed_bytes: int, place: Path) -> Iterator[None]:
    """Say that the disk is full, where more was allowed than limits, which are what there is room for in place.

    Raises StorageFull instead of BadArchive then.
    """
    try:
        yield
    except BadArchive as error:
        if limits.bytes < allowed_bytes and error.details.get("limit") == "bytes":
            raise files.full("unpack", place) from error
        raise


class _Flow:
    """One archive on its way: file, program, hash, tree."""

    def __init__(
        self,
        archive: Path,
        found: formats.Format,
        rootfs: Path,
        limits: rules.Limits,
        layer: bool,  # noqa: FBT001
        held: contextlib.ExitStack,
        inside: cages.Cage,
        tell: Callable[[float, int], None],
        check_cancelled: Callable[[], None],
    ) -> None:
        self._archive_bytes = archive.stat().st_size
        self._rootfs = rootfs
        self._limits = limits
        self._layer = layer
        self._tell = tell
        self._check_cancelled = check_cancelled
        self._hash = hashlib.sha256()
        self._plain_bytes = 0
        self._told = Told()
        self._all_read = False
        self._deadline = time.monotonic() + limits.wall_sec
        self._file: IO[bytes] = held.enter_context(open(archive, "rb", buffering=0))
        self._source_fd = self._file.fileno()
        self._program: subprocess.Popen[bytes] | None = None
        given = {"limits": limits.as_dict(), "cage": inside.procs}
        if found.program:
            scratch = rootfs.parent / f"{rootfs.name}.decode"
            scratch.mkdir(mode=0o700)
            held.callback(scratch.rmdir)
            orders: dict[str, Any] = {
                "role": "decode",
                "scratch": str(scratch),
                "archive": str(archive),
                "program": found.program,
            }
            # the same open file: how far the program has read is where it stands
            self._program = held.enter_context(started({**orders, **given}, stdin=self._file, stdout=subprocess.PIPE))
            assert self._program.stdout is not None
            self._source_fd = self._program.stdout.fileno()
            widen(self._source_fd)
        report_r, report_w = os.pipe()
        self._report_fd = report_r
        held.callback(self._all_gone)
        orders = {"role": "make", "tree": str(rootfs), "layer": layer}
        try:
            self._maker = held.enter_context(
                started({**orders, **given}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, report_fd=report_w)
            )
        finally:
            os.close(report_w)
        assert self._maker.stdin is not None
        self._sink: IO[bytes] = self._maker.stdin
        widen(self._sink.fileno())

    def run(self) -> Unpacked:
        """Make the tree, to the archive's end. Raises as unpack() does, and Refused; once only."""
        for fd in (self._sink.fileno(), self._report_fd):
            os.set_blocking(fd, False)
        self._pump()
        code = self._maker.wait(_END_SEC)
        self._check_program()
        end = self._told.end
        if "refused" in end:
            raise bad_archive(
                recognized(str(end["refused"]), rules.SENTENCES), str(end.get("entry", "")), str(end.get("limit", ""))
            )
        if "done" not in end or code:
            self._fail(end, code)
        done = end["done"]
        return Unpacked(
            diff_id=self._hash.hexdigest(),
            plain_bytes=self._plain_bytes,
            entries=int(done["entries"]),
            left_out={str(kind): int(count) for kind, count in done["left_out"].items()},
            implicit=tuple(str(path) for path in done["implicit"]),
        )

    def _pump(self) -> None:
        """Move everything from the source to the maker, and read its report to the end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._report_fd, selectors.EVENT_READ)
            waiting = memoryview(b"")
            more, open_ = True, True
            looked_at = 0.0
            while open_:
                if time.monotonic() - looked_at >= _POLL_SEC:
                    looked_at = time.monotonic()
                    self._look(looked_at)
                if more and not waiting:
                    waiting = memoryview(self._next())
                    if waiting:
                        self._hash.update(waiting)
                        self._plain_bytes += len(waiting)
                        self._limits.check_flow(self._plain_bytes, self._archive_bytes)
                    elif self._all_read:
                        more = False
                        waiting = memoryview(self._padding())
                if not more and not waiting:
                    self._sink.close()
                if waiting:
                    selector.register(self._sink, selectors.EVENT_WRITE)
                ready = selector.select(_POLL_SEC if waiting or not more else 0)
                if waiting:
                    selector.unregister(self._sink)
                for key, _events in ready:
                    if key.fd == self._report_fd:
                        data = os.read(self._report_fd, 65536)
                        self._told.take(data)
                        open_ = bool(data)
                    else:
                        try:
                            waiting = waiting[os.write(self._sink.fileno(), waiting) :]
                        except BrokenPipeError:  # it has ended, and said why
                            waiting, more = memoryview(b""), False

    def _padding(self) -> bytes:
        """Return what a layer's last block lacks: umoci insert writes none. Its digest tells what was cut off."""
        return bytes(-self._plain_bytes % tarfile.BLOCKSIZE) if self._layer else b""

    def _next(self) -> bytes:
        """Return the next bytes of the plain tar, waiting a little; none at its end (_all_read), or where none came."""
        if self._program is not None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._source_fd, selectors.EVENT_READ)
                if not selector.select(_POLL_SEC):
                    return b""
        data = os.read(self._source_fd, CHUNK_BYTES)
        self._all_read = not data
        return data

    def _look(self, now: float) -> None:
        self._check_cancelled()
        if now > self._deadline:
            raise rules.Refused(
                say("It takes longer than %(most)s s to read.", most=f"{self._limits.wall_sec:g}"), limit="wall_sec"
            )
        read = os.lseek(self._file.fileno(), 0, os.SEEK_CUR)
        self._tell(read / max(1, self._archive_bytes), self._told.entries)

    def _all_gone(self) -> None:
        """Wait until the maker, which was killed, has let go of everything: then nobody writes into the tree."""
        os.set_blocking(self._report_fd, True)
        try:
            while os.read(self._report_fd, 65536):
                pass
        finally:
            os.close(self._report_fd)

    def _check_program(self) -> None:
        """Raise Refused where the program that reads the file did not come to its end."""
        if self._program is None or not self._all_read:
            return
        assert self._program.stderr is not None
        code = self._program.wait(_END_SEC)
        if code:
            words = words_of(self._program.stderr)
            raise rules.Refused(
                say("It is damaged: %(words)s.", words=words or say("its program ended with %(code)s", code=code))
            )

    def _fail(self, end: dict[str, Any], code: int) -> None:
        """Raise what the maker's own trouble comes to."""
        number = end.get("errno")
        if number in files.NO_SPACE:
            raise files.full("unpack", self._rootfs, number)
        assert self._maker.stderr is not None
        words = (
            str(end.get("message") or "") or words_of(self._maker.stderr) or say("it ended with %(code)s", code=code)
        )
        raise SetupFailed(
            say("Unpacking failed: %(words)s.", words=words),
            step="unpack",
            path=str(end.get("entry") or "") or None,
            errno=number,
        )


def widen(fd: int) -> None:
    """Have a pipe hold as much as is moved at once."""
    with contextlib.suppress(OSError):  # the user's share of pipe memory may be used up: slower, no worse
        fcntl.fcntl(fd, _F_SETPIPE_SZ, CHUNK_BYTES)


def words_of(stderr: IO[bytes]) -> str:
    """Return the last line that a process wrote, as plain text."""
    os.set_blocking(stderr.fileno(), False)
    text = (stderr.read(_WORDS_BYTES) or b"").decode(errors="replace")
    lines = [line for line in ("".join(filter(str.isprintable, line)).strip() for line in text.splitlines()) if line]
    return lines[-1].rstrip(".")[:300] if lines else ""


@contextlib.contextmanager
def started(
    orders: Mapping[str, Any],
    *,
    script: Path = _PROCESS,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int,
    report_fd: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a confined process; afterwards all of it is gone, whatever happened."""
    python = os.path.realpath(sys.executable)
    command = [python, "-I", "-S", "-B", "-X", "utf8", str(script), json.dumps({**orders, "report": report_fd})]
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        start_new_session=True,
        pass_fds=() if report_fd is None else (report_fd,),
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a group that it leads; none of it can leave it
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
