"""Shared directories and device nodes of a running container: the worker's half of core.proc.luggage."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

from ..errors import InvalidTransition, NotFound, SetupFailed, SpecError, TimedOut
from ..host import Host
from ..model.attachments import Attachments
from ..proc.luggage import CHANGE_SEC, TAKE_BACK_SEC
from ..protocol import Decoder, Kind, control, parse_control
from ..sentences import restored

_ANSWER_SEC: Final = CHANGE_SEC + TAKE_BACK_SEC + 10.0
_READ_BYTES: Final = 64 * 1024
_STEP: Final = "change what the container has of the host"


def change(host: Host, container_id: str, wanted: Attachments, before: Attachments) -> bool:
    """Attach and take away until a running container has what is wanted; returns False where it does not run.

    Where it fails, the container has what was before again, as far as that can be had. The caller stores the spec.
    Raises SetupFailed (step, path, errno), TimedOut, NotFound while it is just being started or stopped,
    InvalidTransition where its supervisor is too old for it, SpecError for more than a message holds.
    """
    try:
        _ask(host, container_id, wanted)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except (SetupFailed, TimedOut):
        with contextlib.suppress(SetupFailed, TimedOut, NotFound, OSError):
            _ask(host, container_id, before)
        raise
    return True


def _ask(host: Host, container_id: str, wanted: Attachments) -> None:
    try:
        question = control(cmd="attach", attachments=wanted.to_dict())
    except ValueError:
        raise SpecError("The paths are too long, taken together.", field="mounts") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(_ANSWER_SEC)
        connection.connect(str(host.supervisor_socket(container_id)))
        connection.sendall(question)
        said = _answer(connection)
    if said["type"] == "ok":
        return
    message = restored(said) or "The supervisor went away."
    if said.get("code") == TimedOut.code:
        raise TimedOut(message, step=said.get("step") or _STEP)
    if said.get("code") == "bad-frame":
        raise InvalidTransition("An older version started this container: restart it first.", action="update")
    if said.get("code") == NotFound.code:
        raise NotFound(message)
    raise SetupFailed(message, step=said.get("step") or _STEP, path=said.get("path"), errno=said.get("errno"))


def _answer(connection: socket.socket) -> dict[str, Any]:
    decoder = Decoder()
    try:
        while data := connection.recv(_READ_BYTES):
            for kind, payload in decoder.feed(data):
                if kind is Kind.CONTROL:
                    return parse_control(payload)
    except TimeoutError:
        raise TimedOut("The supervisor did not answer in time.", step=_STEP) from None
    except ConnectionResetError:
        pass
    return {"type": "gone"}
