"""The instance's private Redis: a unix socket, two ACL users, nothing on disk, and nothing in it that must last.

Doorbells (Celery queues) and change notices pass through it. What was asked for stands in the database.
"""

from __future__ import annotations

import re
import subprocess
from typing import Final

from containers.core.host import Host

from .layout import read_json

MEMORY_MAX: Final = "128mb"

# What kombu needs of a publisher, what the notices need, and /healthz; found by running with ACL LOG empty.
WEB_COMMANDS: Final = (
    "+ping +hello +auth +select +client|setname +client|id +multi +exec +discard +sadd +smembers +llen +lpush "
    "+publish +subscribe +unsubscribe"
)
WORKER_COMMANDS: Final = (
    f"{WEB_COMMANDS} +watch +unwatch +rpush +brpop +rpop +zadd +zrem +zrange +zrevrangebyscore "
    "+hset +hget +hdel +get +set +del +eval +evalsha +script|load"
)


def _newer_commands() -> str:
    """Return the ACL words that this server knows: CLIENT SETINFO came with Redis 7.2."""
    said = subprocess.run(["/usr/bin/redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return " +client|setinfo" if found and (int(found[1]), int(found[2])) >= (7, 2) else ""


def config(host: Host) -> str:
    """Return redis-server's configuration; it is given on standard input, so that no secret is in a file or argv."""
    web = read_json(host.panel_dir / "web.json")["redis_password"]
    worker = read_json(host.state_dir / "root.json")["redis_password"]
    newer = _newer_commands()
    queue_keys = "~host.* ~_kombu.binding.host.* ~_kombu.binding_permanent.host.*"
    unacked = "~unacked ~unacked_index ~unacked_mutex"
    shared = "~boxroom.* &boxroom.*"
    return "\n".join(
        [
            "port 0",
            f"unixsocket {host.redis_socket}",
            "unixsocketperm 770",
            f"dir {host.redis_socket.parent}",
            "daemonize no",
            "supervised no",
            'save ""',
            "appendonly no",
            f"maxmemory {MEMORY_MAX}",
            "maxmemory-policy noeviction",
            "databases 1",
            # a changed title would overwrite the environment, by which the instance's processes are found
            "set-proc-title no",
            "loglevel notice",
            "user default off",
            f"user web on >{web} resetkeys resetchannels {queue_keys} {shared} -@all {WEB_COMMANDS}{newer}",
            f"user worker on >{worker} resetkeys resetchannels {queue_keys} {unacked} {shared} -@all "
            + WORKER_COMMANDS
            + newer,
            "",
        ]
    )
