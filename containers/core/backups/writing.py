"""A backup on its way out: layers, each packed by a confined reader, into one tar, through zstd, to a sink.

The readers are processes in the container's own user namespace (core.proc.reader); zstd is a process that may do
nothing but compress. What flows is hashed here. No more than a piece is held at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from ..archives.unpacking import widen
from ..errors import HostUnsupported, SetupFailed
from ..failpoints import failpoint
from ..host import Host
from ..interpreter import interpreter
from ..sentences import say
from . import form

Sink = Callable[[bytes], object]
"""Takes all of the bytes that it is given, or raises."""
ZSTD: Final = "/usr/bin/zstd"
_READER: Final = Path(__file__).resolve().parents[1] / "proc" / "reader.py"
_CHUNK_BYTES: Final = 1 << 20
_NOBODY: Final = "65534"
_ENVIRONMENT: Final = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}


class Output:
    """What is written to goes through zstd to a sink; afterwards size_bytes and sha256 are those of what came out."""

    def __init__(self, process: subprocess.Popen[bytes], sink: Sink) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._into, self._out, self._sink = process, process.stdin, process.stdout, sink
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self._failed: BaseException | None = None
        self._drain = threading.Thread(target=self._drained, name="backup-drain", daemon=True)
        self._drain.start()

    @property
    def sha256(self) -> str:
        """Of all that has come out, hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Compress; raises what the sink raised."""
        try:
            self._into.write(data)
        except BrokenPipeError:
            self._raise()

    def finish(self) -> None:
        """Have everything come out; raises what the sink raised."""
        with contextlib.suppress(BrokenPipeError):
            self._into.close()
        self._drain.join()
        if self._failed is not None or self._process.wait():
            self._raise()

    def _drained(self) -> None:
        try:
            while data := self._out.read1(_CHUNK_BYTES):  # type: ignore[attr-defined]
                self._hash.update(data)
                self.size_bytes += len(data)
                self._sink(data)
        except BaseException as error:  # noqa: BLE001  whatever it is, whoever writes gets it
            self._failed = error
            self._process.kill()

    def _raise(self) -> None:
        self._process.wait()
        self._drain.join()
        if self._failed is not None:
            raise self._failed
        raise SetupFailed("Compressing the backup failed: zstd ended early.", step="compress")


@contextlib.contextmanager
def compressed(sink: Sink) -> Iterator[Output]:
    """Yield what compresses into a sink; nothing of it runs afterwards. Raises HostUnsupported without zstd."""
    if not os.access(ZSTD, os.X_OK):
        raise HostUnsupported(
            say("%(program)s is missing: install %(package)s.", program=ZSTD, package="zstd"), feature="zstd"
        )
    bare = ["--reuid", _NOBODY, "--regid", _NOBODY, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    process = subprocess.Popen(
        ["/usr/bin/setpriv", *bare, "--no-new-privs", "--pdeathsig", "KILL", "--", ZSTD, "-q", "-3", "--check", "-c"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        cwd="/",
    )
    output = Output(process, sink)
    try:
        yield output
    finally:
        process.kill()
        process.wait()
        output._drain.join()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def write(
    host: Host,
    output: Output,
    manifest: form.Manifest,
    trees: list[Path],
    *,
    id_lines: str,
    tell: Callable[[int], None],
    check_cancelled: Callable[[], None],
) -> int:
    """Write a whole backup; return how many bytes its layers' tars have. trees: the layers, in the manifest's order.

    id_lines: the container's ids, as for uid_map. tell: how many bytes were packed so far. check_cancelled: called for
    each mebibyte, may raise.
    """
    head = form.write_manifest(manifest)
    _member(output, form.MANIFEST, head)
    digests: list[tuple[str, int]] = []
    done = 0
    for number, tree in enumerate(trees):
        failpoint(host.state_dir, "export.layer")
        found = hashlib.sha256()
        size = 0
        with _packed(host, tree, id_lines) as pipe:
            for piece, data in enumerate(_pieces(pipe, check_cancelled)):
                found.update(data)
                size += len(data)
                _member(output, form.piece_name(number, piece), data)
                tell(done + size)
        digests.append((found.hexdigest(), size))
        done += size
    _member(output, form.DIGESTS, form.write_digests(hashlib.sha256(head).hexdigest(), digests))
    output.write(form.END)
    output.finish()
    failpoint(host.state_dir, "export.streamed")
    return done


def _member(output: Output, name: str, data: bytes) -> None:
    output.write(form.header(name, len(data)))
    output.write(data)
    output.write(form.padding(len(data)))


def _pieces(pipe: IO[bytes], check_cancelled: Callable[[], None]) -> Iterator[bytes]:
    held = bytearray()
    while True:
        check_cancelled()
        data = pipe.read(min(_CHUNK_BYTES, form.PIECE_BYTES - len(held)))
        held += data
        if held and (not data or len(held) == form.PIECE_BYTES):
            yield bytes(held)
            held.clear()
        if not data:
            return


@contextlib.contextmanager
def _packed(host: Host, tree: Path, id_lines: str) -> Iterator[IO[bytes]]:
    """Yield a layer's tar, as a confined reader packs it; raises SetupFailed where that did not get to its end."""
    process = subprocess.Popen(
        ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", interpreter(), "-I", "-S", "-B", str(_READER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"BOXROOM_STATE_DIR": str(host.state_dir), "PATH": "/usr/bin:/bin"},
        cwd="/",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    request = {"verb": "pack", "layers": [str(tree)], "before": [], "after": [0], "shared": 0, "id_lines": id_lines}
    try:
        widen(process.stdout.fileno())
        with process.stdin as pipe:
            pipe.write(json.dumps(request).encode() + b"\n")
        head = json.loads(process.stdout.readline() or b"{}")
        if not head.get("ok"):
            raise _unreadable(str(head.get("message") or "its reader ended early"), tree)
        yield process.stdout
        if process.wait():
            words = process.stderr.read(300).decode(errors="replace")
            raise _unreadable("".join(filter(str.isprintable, words)) or "its reader ended early", tree)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _unreadable(why: str, tree: Path) -> SetupFailed:
    return SetupFailed(say("The container's files could not be read: %(why)s.", why=why), step="pack", path=str(tree))
