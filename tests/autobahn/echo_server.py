"""The server under test: echoes on a free port, which is its only line on stdout, until stdin ends.

Started as: python -m tests.autobahn.echo_server native
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from unlimitedws import Handlers, Server
from unlimitedws.config import MIB

MESSAGE_BYTES = 32 * MIB  # the cases 9.* echo messages of 16 MiB

handlers = Handlers()


@handlers.on_message
def echo(conn: Any, message: str | bytes) -> None:
    conn.send(message)


async def serve_until_eof(engine: str) -> None:
    server = Server(handlers, port=0, engine=engine, message_bytes=MESSAGE_BYTES, queue_bytes=2 * MESSAGE_BYTES)
    async with server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve_until_eof(sys.argv[1]))
