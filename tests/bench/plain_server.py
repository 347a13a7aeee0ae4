"""A plain web terminal, to measure beside: websockets and a pty, no window, no session. Arguments: PORT COMMAND..."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import sys
from typing import Any

from websockets.asyncio.server import serve


async def terminal(connection: Any) -> None:
    """One terminal for one connection."""
    pid, master = pty.fork()
    if pid == 0:
        os.execvp(sys.argv[2], sys.argv[2:])
    loop = asyncio.get_running_loop()
    output: asyncio.Queue[bytes] = asyncio.Queue()

    def readable() -> None:
        try:
            output.put_nowait(os.read(master, 65536))
        except OSError:
            loop.remove_reader(master)

    async def send() -> None:
        while True:
            await connection.send(await output.get())

    loop.add_reader(master, readable)
    sender = asyncio.create_task(send())
    with contextlib.suppress(Exception):
        async for message in connection:
            os.write(master, message)
    sender.cancel()
    loop.remove_reader(master)
    os.kill(pid, 9)
    os.close(master)
    os.waitpid(pid, 0)


async def main() -> None:
    """Serve until killed."""
    async with serve(terminal, "127.0.0.1", int(sys.argv[1]), compression=None, max_size=None):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(main())
