"""The first connection of a run: what is wrong is said before a thousand connections say it."""

from __future__ import annotations

import socket
from contextlib import suppress

from unlimitedws.bench.answer import FAULTS, judged
from unlimitedws.bench.target import Target, Words
from unlimitedws.errors import BenchError

MOST_HEAD = 16 * 1024
BYE = b"\x88\x82\0\0\0\0\x03\xe8"  # Close 1000, under a key of zeros


def scout(target: Target, words: Words, timeout_s: float) -> None:
    """One handshake, closed again. Raises BenchError unless there is a WebSocket server that lets us in."""
    try:
        with socket.socket(target.family, socket.SOCK_STREAM) as peer:
            peer.settimeout(timeout_s)
            peer.connect(target.address)
            peer.sendall(words.requests[0])
            head = response(peer)
            verdict = judged(head, words.accepts[0], words.offered)
            if verdict == 0:
                with suppress(OSError):  # how it says goodbye is not what is asked here
                    peer.sendall(BYE)
                    while peer.recv(4096):
                        continue
                return
    except TimeoutError:
        raise BenchError(f"{target.url}: no answer within {timeout_s:g} s (--timeout-s); is it a WebSocket server?") from None
    except OSError as error:
        raise BenchError(f"{target.url}: {error.strerror or error}; does the server run, and listen on that address?") from None
    if verdict > 0:
        line = head.partition(b"\r\n")[0].decode("latin-1")
        raise BenchError(f"{target.url}: the handshake was refused: {line}; check the path, --header and --subprotocol")
    raise BenchError(f"{target.url}: no WebSocket server: {FAULTS[verdict]}")


def response(peer: socket.socket) -> bytes:
    """The head of an HTTP response; as much as came where it is none."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) <= MOST_HEAD:
        more = peer.recv(4096)
        if not more:
            break
        head += more
        if not head.startswith(b"HTTP/1."[: len(head)]):
            break
    return head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
