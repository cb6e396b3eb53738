"""An app that counts the messages of each connection in its state, and what its clients learn of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from websockets.sync.client import ClientConnection

COUNTING = """
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_connect
def connect(conn):
    if not conn.resumed:
        conn.state = 0

@handlers.on_message
def count(conn, message):
    conn.state += 1
    conn.send(f"{conn.id} {conn.state}")
"""


class Counted(NamedTuple):
    """The id of a connection, and how many messages its state has seen."""

    id: int
    messages: int


def counted(clients: Sequence[ClientConnection]) -> list[Counted]:
    """What each client is told when it sends a message."""
    for client in clients:
        client.send("?")
    return [Counted(*map(int, str(client.recv(timeout=30)).split())) for client in clients]
