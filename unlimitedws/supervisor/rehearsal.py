"""A worker's whole life, played before the first fork: with it everything is imported that templates and workers need.

What an interpreter learns by running code (specialised instructions, caches of methods and attributes, tables of keys), it
writes into the objects it runs. Learned before the fork, it lies in memory that all processes share; learned afterwards,
each has its own copy of those pages.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from array import array
from typing import Any

from unlimitedws import engine
from unlimitedws.config import Config
from unlimitedws.engine.counters import FIELDS
from unlimitedws.errors import EngineUnavailable
from unlimitedws.listener import Listening
from unlimitedws.supervisor import process
from unlimitedws.supervisor.channel import Channel
from unlimitedws.supervisor.order import Order

log = logging.getLogger("unlimitedws.supervisor")

CLIENTS = 20
"""One after the other: the interpreter specialises a function once it has run some times (8 in CPython 3.11)."""

TIMEOUT_S = 5.0
"""Whatever goes wrong: the real workers are waiting."""

VISIT = (
    b"GET / HTTP/1.1\r\nHost: rehearsal\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    b"\x81\x82\0\0\0\0hi"  # a message
    b"\x88\x82\0\0\0\0\x03\xe8"  # Close, 1000
)


def rehearse(config: Config) -> None:
    """Runs one worker with an echo app until its last client has left. What fails here only costs memory, and is logged.

    Needs a thread without a running loop, as the one that forks is."""
    import_all()
    if not is_there(config.engine):
        return
    ours, theirs = Channel.pair()
    loop = process.loop_factory()()
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("")  # any abstract name that is free (unix(7))
            listener.listen()
            listener.setblocking(False)
            row = memoryview(array("q", [0] * len(FIELDS)))
            star = process.WorkerProcess(Order(0, 0, 0, ()), theirs, row, [Listening(listener.fileno())])
            loop.run_until_complete(asyncio.wait_for(play(star, config, ours, listener.getsockname()), TIMEOUT_S))
    except Exception:
        log.warning("no worker could be rehearsed: each will take some more memory", exc_info=True)
    finally:
        loop.close()
        ours.close()
        theirs.close()


def import_all() -> None:
    """Imports what templates and workers need, and the supervisor itself does not."""
    import unlimitedws.supervisor.template
    import unlimitedws.worker  # noqa: F401

    process.loop_factory()


def is_there(name: str) -> bool:
    """Whether the engine is; if not, the template will say so."""
    try:
        engine.load(name)
    except EngineUnavailable:
        return False
    return True


async def play(star: process.WorkerProcess, config: Config, supervisor: Channel, address: bytes) -> None:
    life = asyncio.ensure_future(star.main(lambda: process.prepare(echo(), Config(engine=config.engine))))
    crowd = asyncio.ensure_future(visits(address))
    try:
        await asyncio.wait((life, crowd), return_when=asyncio.FIRST_COMPLETED)
        if not crowd.done():
            raise RuntimeError(f"its process would have ended with {life.result()}")
        crowd.result()
    finally:
        crowd.cancel()
        supervisor.send({"stop": 1001, "reason": "the rehearsal is over"})
        await life


async def visits(address: bytes) -> None:
    for _ in range(CLIENTS):
        await visit(address)


def echo() -> Any:
    from unlimitedws.app import App
    from unlimitedws.handlers import Handlers

    handlers = Handlers()
    handlers.on_message = lambda conn, message: conn.send(message)
    return App.of(handlers)


async def visit(address: bytes) -> None:
    """A client that says one thing and leaves."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, VISIT)
        while await loop.sock_recv(client, 4096):
            pass
