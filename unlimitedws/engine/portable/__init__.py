"""The portable engine: the contract in pure Python, on select.epoll and raw descriptors.

    engine.py       Engine: the turn of the loop, and what the floor above asks for; it stands on
    reading.py      from readiness to bytes, and what they go through; ends of streams; which stands on
    opening.py      how a connection begins: prefaces, requests, WebSockets, Streams; on
    handling.py     events to handlers, as long as the connection may go on; on
    ending.py       how connections are closed, failed and lost, and Streams parted from them; on
    core.py         the state of an engine
    table.py        one row of a few columns for each connection; routes.py: what rows share
    output.py       what waits for the kernel
    accepting.py    listeners, limits, running out of descriptors
    hand.py         the clock hand: deadlines, heartbeats, memory given back
    posting.py      calls from other threads
    tls.py          ciphertext to plaintext and back
    deflating.py    messages compressed and inflated; rates.py: token buckets; meters.py: bytes for the access log
    pipe.py         a connection as its Stream uses it
    connection.py   the object that handlers get; sockets.py: system calls on a bare descriptor

The design is that of the native engine, and so are its three rules: a row is freed by `Engine.end` alone;
sending never ends a connection; on_close and on_drain wait until no handler is on the stack.
An idle connection is its row: what a peer needs while something is unfinished lies in dicts keyed by its
descriptor, and leaves them when that is finished.
"""

from __future__ import annotations

from unlimitedws.engine.portable.connection import Connection
from unlimitedws.engine.portable.engine import Engine

__all__ = ["Connection", "Engine"]
