"""A container's files, seen and changed by a process in the container's own user namespace (core.proc.filer).

Who changes files of a container that does not run holds its lock, so that it is not started, copied or deleted
meanwhile; in one that runs the process is in the container's own cgroups, and stands still and ends with it. One at a
time changes a container's files.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .. import cgroups, filer_answers
from ..errors import (
    Busy,
    InvalidTransition,
    PolicyDenied,
    SpecError,
)
from ..host import Host
from ..hoststore import more_ids, points, store
from ..interpreter import interpreter
from ..model.spec import Spec
from ..proc.records import RunFile
from ..rules import policy_file
from ..storage import overlay
from . import runs

READING: Final = ("list", "entry", "text", "content", "archive")
CHANGING: Final = ("write", "make", "rename", "remove", "attributes", "put-back")
WAIT_SEC: Final = 5.0
END_SEC: Final = 5.0
_FILER: Final = Path(__file__).resolve().parents[1] / "proc" / "filer.py"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a filer is told, and the descriptors that it takes along, the caller's."""

    request: dict[str, Any]
    fds: tuple[int, ...]


@contextlib.contextmanager
def prepared(
    host: Host, container_id: str, verb: str, asked: dict[str, Any], *, snapshot: str = ""
) -> Iterator[Prepared]:
    """Yield what a filer is to be told; what must not happen meanwhile does not, until the block is left.

    snapshot: to look into, or to put files back from. Raises NotFound, SpecError, Busy, InvalidTransition.
    """
    spec = store.load(host, container_id)
    writes = verb in CHANGING
    request: dict[str, Any] = {
        "verb": verb,
        "asked": asked,
        "writes": writes,
        "id_lines": more_ids.map_lines(host, spec),
        "file_bytes": policy_file.load(host).containers.file_bytes,
        "procs": [],
        "init_fd": None,
        "init_pid": 0,
        "point": [],
        "lowers": [],
        "own": None,
    }
    with contextlib.ExitStack() as held:
        if verb == "write" and asked["size"] > request["file_bytes"]:
            raise PolicyDenied("The host's policy allows no file of this size.", field="size_bytes")
        if snapshot and not writes:
            request["lowers"] = _layers_of(host, container_id, snapshot)
            yield Prepared(request, ())
            return
        if snapshot:
            request["point"] = _layers_of(host, container_id, snapshot)
        if writes:
            held.enter_context(store.lock(host, "files", container_id, wait_sec=WAIT_SEC))
        request |= _now(host, spec, held, writes=writes)
        yield Prepared(request, () if request["init_fd"] is None else (request["init_fd"],))


def _layers_of(host: Host, container_id: str, snapshot: str) -> list[str]:
    """Return the trees of a snapshot, uppermost first."""
    layers = points.load(host, container_id, snapshot).layers
    if not layers:
        raise SpecError("This point holds the configuration only.", field="snapshot")
    for layer in layers:
        overlay.require(host, layer)
    return [str(store.rootfs(host, layer)) for layer in reversed(layers)]


def _now(host: Host, spec: Spec, held: contextlib.ExitStack, *, writes: bool) -> dict[str, Any]:
    """Return how to get at what the container is now: its init where it runs, its layers where it does not."""
    run, alive = runs.look(host, spec.id)
    if run is None or not alive:
        if writes:
            held.enter_context(store.lock(host, "container", spec.id, wait_sec=WAIT_SEC))
            run, alive = runs.look(host, spec.id)
        if run is None or not alive:
            return _stopped(host, spec, writes=writes)
    if spec.privileged:
        # its root is the host's: nobody enters it for files. What it has written shows in its layers
        if writes:
            raise InvalidTransition(
                "The files of a privileged container can be changed while it is stopped, or in its terminal."
            )
        return _stopped(host, spec, writes=False)
    return _running(host, spec, run, held, writes=writes)


def _stopped(host: Host, spec: Spec, *, writes: bool) -> dict[str, Any]:
    root = overlay.plan(host, spec)
    if writes:
        return {"lowers": list(root.lowers), "own": root.disk or root.writable}
    # without a writable layer nothing is in the way of a start meanwhile
    return {"lowers": [root.disk or root.upper, *root.lowers]}


def _running(host: Host, spec: Spec, run: RunFile, held: contextlib.ExitStack, *, writes: bool) -> dict[str, Any]:
    init_fd = run.init.open()
    if init_fd is None:
        raise Busy("The container is starting or ending; try again.")
    held.callback(os.close, init_fd)
    groups = cgroups.open(host)
    procs: Sequence[str] = groups.joined(spec.id).attach_procs
    if groups.frozen(spec.id, inner=False):
        # who joined it would stand still as well; it is not thawed, stopped and started meanwhile instead
        procs = ()
        if writes:
            held.enter_context(store.lock(host, "container", spec.id, wait_sec=WAIT_SEC))
    return {"init_fd": init_fd, "init_pid": run.init.pid, "procs": list(procs)}


def start(host: Host, ready: Prepared, out_fd: int) -> subprocess.Popen[bytes]:
    """Start a filer that answers on out_fd, borrowed: a socket, where a file is written. The caller ends it."""
    process = subprocess.Popen(
        ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", interpreter(), "-I", "-S", "-B", str(_FILER)],
        stdin=subprocess.PIPE,
        stdout=out_fd,
        stderr=subprocess.DEVNULL,
        pass_fds=ready.fds,
        env={"BOXROOM_STATE_DIR": str(host.state_dir), "PATH": "/usr/bin:/bin"},
        cwd="/",
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(json.dumps(ready.request).encode() + b"\n")
    return process


def put_back(
    host: Host, container_id: str, snapshot: str, paths: Sequence[str], *, exact: bool, tell: Callable[[int, int], None]
) -> dict[str, Any]:
    """Put files and directories of a snapshot back where they were, in a container that runs or does not.

    exact: what is in a directory and was not then is removed. tell: called with the entries and bytes so far. Returns
    {"put_back", "removed", "same", "size_bytes", "skipped", "left_out"}: device nodes, the first by name and how many.
    Raises NotFound, SpecError, Busy, StorageFull, InUse, InvalidTransition, SetupFailed; what was put back stays.
    """
    asked = {"path": "/", "paths": list(paths), "exact": exact}
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    with contextlib.ExitStack() as held:
        pipe = held.enter_context(os.fdopen(read_fd, "rb"))
        try:
            ready = held.enter_context(prepared(host, container_id, "put-back", asked, snapshot=snapshot))
            process = start(host, ready, write_fd)
        finally:
            os.close(write_fd)
        try:
            answer: dict[str, Any] = {}
            for line in pipe:
                answer = json.loads(line)
                if "ok" not in answer:
                    tell(answer["entries"], answer["size_bytes"])
        finally:
            _end(process)
    return checked(answer)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a filer that puts files back; it takes away what is not in its place yet, if it can."""
    process.terminate()
    try:
        process.wait(END_SEC)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what a filer answered; raises what it was refused with, SetupFailed where it said nothing."""
    if answer.pop("ok", False):
        return answer
    told = str(answer.get("message") or "")
    raise filer_answers.error(str(answer.get("code")), told) or filer_answers.silence()
