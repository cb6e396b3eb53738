"""A `Server` on a loop in a thread of its own, so that tests talk to it with plain blocking clients."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.peer import BINARY, CLOSE, pack, request
from unlimitedws.server import Server

WAIT_S = 30.0
"""The longest a test waits for something that should come at once, on a machine that is busy with other things."""


class Served:
    """A running server, as the test's thread sees it."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop

    @property
    def counters(self) -> dict[str, int]:
        """As they are between two turns of the loop: in the middle of one, some are counted and others not yet."""
        counted: dict[str, int] = self.call(lambda: self.server.counters)
        return counted

    @property
    def port(self) -> int:
        return self.server.port

    def url(self, path: str = "/") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    @contextmanager
    def clients(self, number: int) -> Iterator[list[ClientConnection]]:
        with ExitStack() as stack:
            yield [stack.enter_context(self.client()) for _ in range(number)]

    def client(self, path: str = "/", **options: Any) -> ClientConnection:
        """A connected client of `websockets`; a context manager."""
        defaults = {"max_size": None, "ping_interval": None, "compression": None, "open_timeout": WAIT_S, "close_timeout": WAIT_S}
        client: ClientConnection = connect(self.url(path), **{**defaults, **options})
        return client

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine on the server's loop and gives its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)

    def call(self, function: Callable[[], Any]) -> Any:
        """Calls a function on the server's loop and gives its result."""

        async def called() -> Any:
            return function()

        return self.run(called())


@contextmanager
def served(handlers: Any, *, loop_factory: Any = None, serial: int = 0, **settings: Any) -> Iterator[Served]:
    """Serves `handlers` on a free port; at the end everything borrowed must have been given back.

    serial: the upper part of the ids of its connections, where there is more than one."""
    settings = {"stop_timeout_s": 5.0, **settings}
    gc.collect()  # what an earlier test dropped must not be missed below
    before = descriptors()
    with running_loop(loop_factory) as loop:
        server = Server(handlers, port=0, **settings)
        server.worker.serial = serial
        there = Served(server, loop)
        there.run(server.start())
        try:
            yield there
        finally:
            there.run(server.stop())
            left = {name: server.counters[name] for name in ("connections_open", "handshakes_pending", "queued_bytes", "buffers_held")}
    assert not any(left.values()), f"the server stopped and kept {left}"
    gc.collect()
    # A client's own thread closes its socket a moment after its context has ended.
    eventually(lambda: descriptors() == before, "descriptors were left open")


@contextmanager
def running_loop(loop_factory: Any = None) -> Iterator[asyncio.AbstractEventLoop]:
    loop = (loop_factory or asyncio.new_event_loop)()
    thread = threading.Thread(target=loop.run_forever, name="loop", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        assert not thread.is_alive(), "the loop did not stop"
        loop.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def eventually(condition: Callable[[], Any], what: str = "") -> Any:
    """The first true value of `condition`, looked at until it comes."""
    deadline = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, what or "it did not happen"
        time.sleep(0.005)
    return value


class Lines(logging.Handler):
    """The lines a logger writes, as text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))


def upgrade(peer: socket.socket, path: str = "/", *headers: str) -> None:
    """Makes a WebSocket of a blocking socket; leaves what follows the response unread."""
    peer.sendall(request(path, *headers))
    answer = head(peer)
    assert answer.startswith(b"HTTP/1.1 101 "), answer


def head(peer: socket.socket) -> bytes:
    """The head of an HTTP response, and not a byte more."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        more = peer.recv(1)
        assert more, f"the connection ended after {answer!r}"
        answer += more
    return answer


def masked(payload: bytes) -> bytes:
    """A whole binary message of a client."""
    return pack(BINARY, payload)


def close_code(peer: socket.socket) -> int:
    """The code of the Close frame that is all a peer still gets."""
    received = b""
    while len(received) < 4:
        more = peer.recv(4096)
        assert more, f"the connection ended after {received!r}"
        received += more
    assert received[0] == 0x80 | CLOSE, f"no Close frame: {received!r}"
    return int.from_bytes(received[2:4], "big")


def flood(peer: socket.socket, frame: bytes, quiet_s: float = 0.3) -> int:
    """Sends frames until the kernel takes no more for a while; the bytes of all that were begun.

    The rest of the last one is sent by a thread, when the reader goes on."""
    sent = 0
    peer.settimeout(quiet_s)
    while True:
        rest = frame * 100
        while rest:
            try:
                taken = peer.send(rest)
            except TimeoutError:
                missing = rest[: len(rest) % len(frame)]
                threading.Thread(target=finish, args=(peer, missing), daemon=True).start()
                return sent + len(missing)
            sent += taken
            rest = rest[taken:]


def finish(peer: socket.socket, missing: bytes) -> None:
    peer.settimeout(WAIT_S)
    peer.sendall(missing)
