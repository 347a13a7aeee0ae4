"""What is in a container's files, now and in its snapshots, read by a process in the container's own user namespace."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final, Literal

from ..errors import NotFound, SpecError
from ..host import Host
from ..hoststore import more_ids, points, store
from ..interpreter import interpreter
from ..sentences import say
from ..storage import disks

Verb = Literal["changes", "text", "list", "content", "archive"]
COMPARING: Final = ("changes", "text")
NOW: Final = ""
"""Instead of a snapshot's name: what the container is now."""
_READER: Final = Path(__file__).resolve().parents[1] / "proc" / "reader.py"


def request(
    host: Host, container_id: str, verb: Verb, *, after: str, before: str = NOW, path: str = "/"
) -> dict[str, Any]:
    """Return what core.proc.reader is to be told. after, before: snapshots or NOW; before where two are compared.

    Raises NotFound, SpecError for a point that holds no files.
    """
    spec = store.load(host, container_id)
    stacks = [_layers(host, container_id, after)]
    if verb in COMPARING:
        stacks.insert(0, _layers(host, container_id, before))
    known = list(dict.fromkeys(layer for stack in stacks for layer in stack))
    indices = [[known.index(layer) for layer in reversed(stack)] for stack in stacks]
    first, last = stacks[0], stacks[-1]
    shared = next(
        (at for at, (old, new) in enumerate(zip(first, last, strict=False)) if old != new), min(len(first), len(last))
    )
    return {
        "verb": verb,
        "path": path,
        "layers": [str(disks.source(host, layer)) for layer in known],
        "before": indices[0] if verb in COMPARING else [],
        "after": indices[-1],
        "shared": shared,
        "id_lines": more_ids.map_lines(host, spec),
    }


def _layers(host: Host, container_id: str, name: str) -> tuple[str, ...]:
    """Return a stack, bottom first."""
    if name == NOW:
        root = store.load_root(host, container_id)
        return (*root.layers, root.writable)
    layers = points.load(host, container_id, name).layers
    if not layers:
        raise SpecError("This point holds the configuration only.", field="snapshot")
    for layer in layers:
        if not store.is_layer_id(layer):
            raise NotFound(say("A layer of %(name)s is missing.", name=name))
    return layers


def start(host: Host, asked: dict[str, Any], out_fd: int) -> subprocess.Popen[bytes]:
    """Start a reader that answers a request on out_fd, borrowed. The caller ends and reaps it."""
    process = subprocess.Popen(
        ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", interpreter(), "-I", "-S", "-B", str(_READER)],
        stdin=subprocess.PIPE,
        stdout=out_fd,
        stderr=subprocess.DEVNULL,
        env={"BOXROOM_STATE_DIR": str(host.state_dir), "PATH": "/usr/bin:/bin"},
        cwd="/",
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(json.dumps(asked).encode() + b"\n")
    return process
