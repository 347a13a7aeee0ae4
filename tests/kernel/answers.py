"""What the web asks the ticker of a container's files, asked of a reader itself."""

from __future__ import annotations

import json
import os
from typing import Any

from containers.core.errors import NotFound, SpecError
from containers.core.host import Host
from containers.core.lifecycle import reading


def read(
    host: Host, container_id: str, verb: reading.Verb, *, after: str, before: str = reading.NOW, path: str = "/"
) -> tuple[dict[str, Any], bytes]:
    """Return the answer to a request: its head, and the bytes behind it. Raises NotFound, SpecError."""
    asked = reading.request(host, container_id, verb, after=after, before=before, path=path)
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    process = reading.start(host, asked, write_fd)
    os.close(write_fd)
    try:
        with os.fdopen(read_fd, "rb") as pipe:
            head, body = pipe.readline(), pipe.read()
        process.wait()
    finally:
        process.kill()
        process.wait()
    answer = json.loads(head)
    if not answer.pop("ok"):
        raise (
            NotFound(answer["message"]) if answer["code"] == "not-found" else SpecError(answer["message"], field="path")
        )
    return answer, body
