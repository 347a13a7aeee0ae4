"""Ports of loopback for the suite's servers: none that the kernel gives to who connects, and each given once."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

LEAST: Final = 12000
"""Above all that Chromium refuses to open, of which 10080 is the last."""
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: list[socket.socket] = []
"""What keeps a port from other test processes while this one lives: an abstract name that holds its number."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, and that no other test process is given.

    Below those of connections: one of them may be anybody's source port, a moment after it was found to be free.
    """
    most = int(_RANGE.read_text().split()[0])
    ports = list(range(LEAST, most) if most > LEAST + 1000 else range(61000, 65536))
    random.SystemRandom().shuffle(ports)
    for port in ports:
        mine = socket.socket(socket.AF_UNIX)
        try:
            mine.bind(f"\0boxroom-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            mine.close()
            continue
        _given.append(mine)
        return port
    raise AssertionError("no port is free")


def held() -> set[str]:
    """Return the descriptors, as numbers in words, that hold given ports as long as this process lives."""
    return {str(one.fileno()) for one in _given}
