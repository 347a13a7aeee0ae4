"""A backup on its way in: hostile until proven otherwise.

A confined process decompresses it, and one for each layer makes its tree (core.archives); what is between the two, the
outer tar, is read here, member by member, and hashed. Its headers are believed only where they are what form.header()
would have made. Nothing of a backup counts before its digests, at its end, have been compared.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import select
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol

from ..archives import formats, rules
from ..archives.rules import SENTENCES, Limits, Refused
from ..archives.unpacking import CHUNK_BYTES, Told, bad_archive, caged, started, widen, words_of
from ..cgroups import Cgroups
from ..errors import HostUnsupported, SetupFailed
from ..kernel import files
from ..sentences import recognized, say
from . import form

_POLL_SEC: Final = 0.2
_END_SEC: Final = 30.0
WALL_SEC: Final = 48 * 3600.0
ENTRIES_MAX: Final = 20_000_000
"""Of one layer."""


class Maker(Protocol):
    """What becomes of a layer while it comes: a tree, or nothing."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of its tar."""

    def finish(self) -> None:
        """All of it has come."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a backup came to. plain_bytes: of its layers' tars. left_out: entries that were not taken, by kind."""

    manifest: form.Manifest
    plain_bytes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def take(
    source_fd: int,
    scratch: Path,
    *,
    groups: Cgroups,
    begin: Callable[[form.Manifest], None],
    layer: Callable[[int], contextlib.AbstractContextManager[Maker | None]],
    limits: Limits,
    check_cancelled: Callable[[], None],
) -> Outcome:
    """Read a backup from a descriptor (borrowed) to its end, and compare its digests.

    scratch: a directory of root's, for nothing but the decompressor's root. groups: the instance's. begin: told the
    manifest first, may raise. layer: what takes a layer, by number; None for nobody. limits: bytes is what all layers'
    tars may come to. Raises BadArchive (field ``source``), HostUnsupported, SetupFailed, StorageFull and what the
    callbacks raise.
    """
    program = formats.ZSTD.program
    if not os.access(program[0], os.X_OK):
        raise HostUnsupported(
            say("%(program)s is missing: install %(package)s.", program=program[0], package="zstd"), feature="zstd"
        )
    place = scratch / "decode"
    place.mkdir(mode=0o700)
    orders = {"role": "decode", "scratch": str(place), "archive": "", "program": program, "limits": limits.as_dict()}
    try:
        with (
            open(source_fd, "rb", buffering=0, closefd=False) as source,
            caged(groups, limits) as inside,
            started({**orders, "cage": inside.procs}, stdin=source, stdout=subprocess.PIPE) as process,
        ):
            assert process.stdout is not None
            widen(process.stdout.fileno())
            stream = _Stream(process, limits, check_cancelled)
            return _read(stream, begin, layer)
    except Refused as refused:
        raise bad_archive(refused.why, refused.entry, refused.limit) from None
    finally:
        place.rmdir()


class _Stream:
    """What the decompressor writes, read exactly."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits, check_cancelled: Callable[[], None]) -> None:
        assert process.stdout is not None
        self._process, self._fd = process, process.stdout.fileno()
        self._check_cancelled = check_cancelled
        self._deadline = time.monotonic() + limits.wall_sec
        self.most = limits.bytes
        self.taken = 0

    def exactly(self, size: int) -> bytes:
        """Return so many bytes; raises Refused where there are fewer."""
        held = bytearray()
        while len(held) < size:
            data = self._some(size - len(held))
            if not data:
                self._ended()
                raise Refused("It is damaged or cut off: its end is missing.")
            held += data
        return bytes(held)

    def at_end(self) -> None:
        """Raise Refused unless this was all."""
        if self._some(1):
            raise Refused("Something follows its end.")
        self._ended()

    def count(self, size: int) -> None:
        """Take bytes of a layer's tar into account; raises Refused where all of them become too many."""
        self.taken += size
        if self.taken > self.most:
            raise Refused(say("It comes to more than %(most)s bytes.", most=self.most), limit="bytes")

    def _some(self, most: int) -> bytes:
        while True:
            self._check_cancelled()
            if time.monotonic() > self._deadline:
                raise Refused("It takes too long to read.", limit="wall_sec")
            if select.select([self._fd], [], [], _POLL_SEC)[0]:
                return os.read(self._fd, min(most, CHUNK_BYTES))

    def _ended(self) -> None:
        assert self._process.stderr is not None
        if code := self._process.wait(_END_SEC):
            words = words_of(self._process.stderr) or say("its program ended with %(code)s", code=code)
            raise Refused(say("It is damaged: %(words)s.", words=words))


def _read(
    stream: _Stream,
    begin: Callable[[form.Manifest], None],
    layer: Callable[[int], contextlib.AbstractContextManager[Maker | None]],
) -> Outcome:
    head = _member(stream, form.MANIFEST)
    outcome = Outcome(manifest=form.read_manifest(head))
    begin(outcome.manifest)
    digests: list[tuple[str, int]] = []
    name, size = _next(stream)
    for number in range(len(outcome.manifest.sizes)):
        found = hashlib.sha256()
        length = 0
        if name != form.piece_name(number, 0):
            raise Refused("A member is not the one that follows.", ascii(name)[1:-1])
        with layer(number) as maker:
            for piece in range(2**40):
                if name != form.piece_name(number, piece):
                    break
                data = stream.exactly(size)
                stream.exactly(len(form.padding(size)))
                found.update(data)
                length += size
                stream.count(size)
                if maker is not None:
                    maker.feed(data)
                name, size = _next(stream)
            if maker is not None:
                maker.finish()
        digests.append((found.hexdigest(), length))
    if name != form.DIGESTS:
        raise Refused("A member is not the one that follows.", ascii(name)[1:-1])
    told = form.read_digests(stream.exactly(size))
    stream.exactly(len(form.padding(size)) + len(form.END))
    stream.at_end()
    _compare(told, hashlib.sha256(head).hexdigest(), digests)
    outcome.plain_bytes = stream.taken
    return outcome


def _next(stream: _Stream) -> tuple[str, int]:
    found = form.read_header(stream.exactly(form.BLOCK))
    if found is None:
        raise Refused("It ends too early.")
    return found


def _member(stream: _Stream, wanted: str) -> bytes:
    name, size = _next(stream)
    if name != wanted or size > form.JSON_MAX_BYTES:
        raise Refused("It is no backup of a container: its first member is another one.", ascii(name)[1:-1])
    data = stream.exactly(size)
    stream.exactly(len(form.padding(size)))
    return data


def _compare(told: tuple[str, list[tuple[str, int]]], manifest: str, layers: list[tuple[str, int]]) -> None:
    if not hmac.compare_digest(told[0], manifest):
        raise Refused("It is damaged: its manifest is not the one of its digest.", form.MANIFEST)
    if len(told[1]) != len(layers):
        raise Refused("It is damaged: layers are missing.", form.DIGESTS)
    for number, (one, other) in enumerate(zip(told[1], layers, strict=True)):
        if one != other:
            raise Refused("It is damaged: a layer is not the one of its digest.", f"layers/{number:04d}")


class Tree:
    """A layer becoming a tree, by a confined process that is fed its tar. devices: nodes that root has to make."""

    def __init__(
        self, rootfs: Path, process: subprocess.Popen[bytes], report_fd: int, check_cancelled: Callable[[], None]
    ) -> None:
        assert process.stdin is not None
        self._rootfs, self._process, self._report_fd = rootfs, process, report_fd
        self._sink: IO[bytes] = process.stdin
        self._check_cancelled = check_cancelled
        self._told = Told()
        self._open = True
        self.left_out: Counter[str] = Counter()
        self.devices: list[dict[str, Any]] = []
        for fd in (self._sink.fileno(), report_fd):
            os.set_blocking(fd, False)
        widen(self._sink.fileno())

    def feed(self, data: bytes) -> None:
        """Hand bytes on; raises what its maker found wrong."""
        waiting = memoryview(data)
        while waiting:
            self._check_cancelled()
            readable, writable, _ = select.select([self._report_fd], [self._sink], [], _POLL_SEC)
            if readable and not self._heard():
                self._fail()
            if writable:
                try:
                    waiting = waiting[os.write(self._sink.fileno(), waiting) :]
                except BrokenPipeError:
                    self._to_the_end()
                    self._fail()

    def finish(self) -> None:
        """End its tar, and wait until the tree is made; raises what went wrong."""
        self._sink.close()
        self._to_the_end()
        code = self._process.wait(_END_SEC)
        if "done" not in self._told.end or code:
            self._fail()
        done = self._told.end["done"]
        self.left_out.update({str(kind): int(count) for kind, count in done["left_out"].items()})
        self.devices = list(done["devices"])

    def _to_the_end(self) -> None:
        while self._open:
            self._check_cancelled()
            if select.select([self._report_fd], [], [], _POLL_SEC)[0]:
                self._heard()

    def _heard(self) -> bool:
        data = os.read(self._report_fd, 65536)
        self._told.take(data)
        self._open = bool(data)
        return self._open

    def _fail(self) -> None:
        self._to_the_end()
        end = self._told.end
        if "refused" in end:
            raise Refused(
                recognized(str(end["refused"]), SENTENCES), str(end.get("entry", "")), limit=str(end.get("limit", ""))
            )
        number = end.get("errno")
        if number in files.NO_SPACE:
            raise files.full("unpack", self._rootfs, number)
        assert self._process.stderr is not None
        words = str(end.get("message") or "") or words_of(self._process.stderr) or "its process ended early"
        raise SetupFailed(
            say("Unpacking failed: %(words)s.", words=words),
            step="unpack",
            path=str(end.get("entry") or "") or None,
            errno=number,
        )


@contextlib.contextmanager
def tree(rootfs: Path, limits: Limits, groups: Cgroups, check_cancelled: Callable[[], None]) -> Iterator[Tree]:
    """Yield the maker of a tree in rootfs, an empty directory of root's; nothing of it runs afterwards."""
    orders = {"role": "make", "tree": str(rootfs), "layer": False, "exact": True, "limits": limits.as_dict()}
    with contextlib.ExitStack() as held:
        orders["cage"] = held.enter_context(caged(groups, limits, rootfs)).procs
        report_r, report_w = os.pipe()
        held.callback(_drained, report_r)
        try:
            process = held.enter_context(
                started(orders, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, report_fd=report_w)
            )
        finally:
            os.close(report_w)
        yield Tree(rootfs, process, report_r, check_cancelled)


def _drained(report_fd: int) -> None:
    """Wait until a maker that was killed has let go of everything: then nobody writes into the tree."""
    os.set_blocking(report_fd, True)
    try:
        while os.read(report_fd, 65536):
            pass
    finally:
        os.close(report_fd)


def make_devices(rootfs: Path, devices: list[dict[str, Any]]) -> int:
    """Make the device nodes that a tree's maker told of; return how many could not be made.

    They are inert where they lie, which is for root alone, and in every container that is not privileged.
    """
    failed = 0
    for one in devices:
        *parents, name = [str(part) for part in one["parts"]]
        try:
            with files.opened(rootfs) as top_fd, files.entered(top_fd, parents) as parent_fd:
                before = os.fstat(parent_fd)
                os.mknod(name, int(one["kind"]) | 0o600, os.makedev(*map(int, one["number"])), dir_fd=parent_fd)
                os.chown(name, *map(int, one["owner"]), dir_fd=parent_fd, follow_symlinks=False)
                os.chmod(name, int(one["mode"]) & 0o7777, dir_fd=parent_fd)
                if acl := bytes.fromhex(one["acl"]):
                    os.setxattr(f"/proc/self/fd/{parent_fd}/{name}", rules.ACL, acl, follow_symlinks=False)
                atime, mtime = map(int, one["times"])
                os.utime(name, ns=(atime, mtime), dir_fd=parent_fd, follow_symlinks=False)
                os.utime(parent_fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        except OSError as error:
            if error.errno in files.NO_SPACE:
                raise files.full("unpack", rootfs, error.errno) from error
            if error.errno == errno.EIO:
                raise
            failed += 1
    return failed
