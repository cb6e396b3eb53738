"""The first connection of a run: what is wrong is said before a thousand connections say it."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress

from unlimitedws.bench.answer import FAULTS, judged
from unlimitedws.bench.target import Target, Words
from unlimitedws.errors import BenchError

PATIENCE_S = 2.0
RETRY_S = 0.05
MOST_HEAD = 16 * 1024
ALERT = b"\x15\x03"  # as a TLS record begins that refuses what was said to it (RFC 8446, section 5.1)
END = b"\r\n\r\n"
BYE = b"\x88\x82\0\0\0\0\x03\xe8"  # Close 1000, under a key of zeros


def scout(target: Target, words: Words, timeout_s: float, context: ssl.SSLContext | None = None) -> None:
    """One handshake, closed again. context: for a wss:// one. Raises BenchError unless there is a WebSocket server that lets us in."""
    try:
        with patiently_connected(target, timeout_s, context) as peer:
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
    except ssl.SSLCertVerificationError as error:
        raise BenchError(
            f"{target.url}: its certificate is not trusted: {error.verify_message}; --cafile names its authority, --insecure takes any"
        ) from None
    except ssl.SSLError as error:
        raise BenchError(f"{target.url}: no TLS: {error.reason or error}; is it a ws:// address?") from None
    except OSError as error:
        raise BenchError(f"{target.url}: {error.strerror or error}; does the server run, and listen on that address?") from None
    if verdict > 0:
        line = head.partition(b"\r\n")[0].decode("latin-1")
        raise BenchError(f"{target.url}: the handshake was refused: {line}; check the path, --header and --subprotocol")
    if head == END or head.startswith(ALERT):  # so servers of TLS treat those who do not speak it
        other = "ws" if context else "wss"
        raise BenchError(f"{target.url}: it ended the connection without an answer; is it a {other}:// address?")
    raise BenchError(f"{target.url}: no WebSocket server: {FAULTS[verdict]}")


def patiently_connected(target: Target, timeout_s: float, context: ssl.SSLContext | None) -> socket.socket:
    """A connection; tried again for a moment where nobody listens yet, as on the line after `unlimitedws serve app:handlers &`."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return connected(target, timeout_s, context)
        except ConnectionRefusedError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_S)


def connected(target: Target, timeout_s: float, context: ssl.SSLContext | None) -> socket.socket:
    """A connection, with TLS where there is a context for it. Raises OSError, of which ssl.SSLError is one."""
    peer = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        peer.settimeout(timeout_s)
        peer.connect(target.address)
        return context.wrap_socket(peer, server_hostname=target.name) if context else peer
    except BaseException:
        peer.close()
        raise


def response(peer: socket.socket) -> bytes:
    """The head of an HTTP response; as much as came where it is none."""
    head = b""
    while END not in head and len(head) <= MOST_HEAD:
        more = peer.recv(4096)
        if not more:
            break
        head += more
        if not head.startswith(b"HTTP/1."[: len(head)]):
            break
    return head.partition(END)[0] + END
