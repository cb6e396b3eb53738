"""Workers in this process, what moves between them, and who is connected."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from websockets.sync.client import ClientConnection

from tests.peer import Peer
from tests.peer import request as upgrade_request
from tests.serving import WAIT_S, Served, eventually, head, served
from unlimitedws.handlers import Handlers


def echoing(prefix: str = "") -> Handlers:
    handlers = Handlers()

    @handlers.on_message
    def echo(conn: Any, message: Any) -> None:
        conn.send(prefix + message if isinstance(message, str) else message)

    return handlers


@contextmanager
def two(old: Any, new: Any, engine_name: str, other_engine: str, **settings: Any) -> Iterator[tuple[Served, Served]]:
    # The new one around the old one: each counts at its end what is left open, and the old one may stop before that.
    with served(new, serial=1, engine=other_engine, **settings) as other, served(old, engine=engine_name, **settings) as one:
        yield one, other


def hand_over(old: Served, new: Served) -> bool:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    new.call(lambda: new.server.worker.take_over(theirs))
    done: bool = old.run(old.server.worker.hand_over(ours))
    return done


def received(theirs: socket.socket, kind: bytes = b"W", room: int = 250) -> list[int]:
    """What a taker played by the test is given first: the descriptors of the batch and its connections."""
    theirs.settimeout(WAIT_S)
    assert theirs.recv(16) == kind
    theirs.send(b"R%d" % room)
    packet, fds, _, _ = socket.recv_fds(theirs, 16, 300)
    assert packet == b"B"
    return fds


def begin(giver: Served, taker: Served, count: int | None = None, **options: Any) -> Any:
    """Begins to give; the future of how many have moved."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    taker.call(lambda: taker.server.worker.take_over(theirs))
    return asyncio.run_coroutine_threadsafe(giver.server.worker.give(ours, count, **options), giver.loop)


def give(giver: Served, taker: Served, count: int | None = None, **options: Any) -> int:
    moved: int = begin(giver, taker, count, **options).result(WAIT_S)
    return moved


def open_at(*there: Served) -> list[int]:
    return [each.counters["connections_open"] for each in there]


def answers(clients: list[ClientConnection], message: str = "x") -> list[str]:
    for client in clients:
        client.send(message)
    return [str(client.recv(timeout=WAIT_S)) for client in clients]


@contextmanager
def crowd(there: Served, size: int) -> Iterator[list[Peer]]:
    """Clients that only listen."""
    before = there.counters["connections_open"]
    with ExitStack() as stack:
        peers = []
        for _ in range(size):
            peer = stack.enter_context(there.socket())
            peer.sendall(upgrade_request())
            head(peer)
            raw = Peer(peer)
            raw.is_upgraded, raw.head = True, b"read"
            peers.append(raw)
        eventually(lambda: there.counters["connections_open"] == before + size)
        yield peers


class Repeated:
    """Calls `say(number)` on a server's loop, with 0, 1, 2 and so on, until `end`. count: how often it was called."""

    def __init__(self, there: Served, say: Callable[[int], object]) -> None:
        self.there, self.say, self.count, self.is_over = there, say, 0, False
        there.call(self.go_on)

    def go_on(self) -> None:
        if not self.is_over:
            self.once()
            self.there.loop.call_later(0.0005, self.go_on)

    def once(self) -> None:
        self.say(self.count)
        self.count += 1

    def end(self) -> None:
        self.is_over = True


def publishing(there: Served, name: str) -> Repeated:
    """Broadcasts its name with a number."""
    return Repeated(there, lambda number: there.server.worker.broadcast(f"{name} {number}"))


def sending(there: Served, connections: Iterable[Any]) -> Repeated:
    """Says a number to each of these connections."""
    return Repeated(there, lambda number: [connection.send(f"{number}") for connection in connections])
