"""terminado as its documentation shows it, to measure beside. Run by an interpreter that has it: PORT COMMAND..."""

import asyncio
import sys

import tornado.web
from terminado import TermSocket, UniqueTermManager


async def main() -> None:
    """Serve until killed."""
    manager = UniqueTermManager(shell_command=sys.argv[2:])
    application = tornado.web.Application([("/", TermSocket, {"term_manager": manager})])
    application.listen(int(sys.argv[1]), "127.0.0.1")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
