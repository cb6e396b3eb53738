"""The connection table: columns indexed by descriptor, 60 bytes for each connection."""

from __future__ import annotations

from array import array
from ipaddress import IPv6Address
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any

from unlimitedws.wire.address import UNIX, Address

FREE = 0
HANDSHAKE = 1  #: the request is not complete
OPEN = 2
CLOSING = 3  #: our Close is out, theirs is awaited; messages are thrown away
LINGER = 4  #: nothing more to say: output leaves, input is thrown away until they end
STREAM = 5  #: its request is answered by a Stream
DEPARTING = 6  #: on its way to another engine: nothing happens to it

HELD = 1  #: a coroutine or thread is at work on it, or its Stream paused: no handler, no reading
STALLED = 2  #: waits for its endpoint's thread queue
OVER = 4  #: its output went over high water: no reading
READY = 8  #: in the ready queue
RATED = 512  #: sent more than its rate allows: no reading
FLOODING = 16384  #: sent too many Pings and Pongs: no reading until the clock hand comes by
WAITING = HELD | STALLED | OVER | READY | RATED  #: nothing of it is handled,
PAUSED = WAITING | FLOODING  #: or nothing more is read
PARTIAL = 16  #: has a reader of its own: in the middle of a frame or message
BLOCKED = 32  #: the kernel took not all of its output; epoll tells when it goes on
HALF_CLOSED = 64  #: the peer ended its side while reads were paused
BROKEN = 128  #: a write failed; epoll will report it
SHUT = 256  #: in LINGER: our side is shut
EXTRA = 1024  #: its input passes more than the reader: a preface, TLS, deflate, a rate, a meter
DEFLATE = 2048  #: permessage-deflate was agreed
ANSWERED = 4096  #: an HTTP request of it was answered; the next may come
RESUMED = 8192  #: it came from another engine

ADDRESS_BYTES = 18
"""An IPv6 address (IPv4 as ::ffff:a.b.c.d) and a port; all zero for a Unix socket, named or not."""

FIRST_ROWS = 64


class Table:
    """Grown by doubling to the highest descriptor seen, never to the limit (which may be 1e9)."""

    def __init__(self) -> None:
        self.phases = bytearray()
        self.flags = array("H")
        self.interest = array("H")  #: what epoll was asked for
        self.ids = array("Q")
        self.seen = array("d")  #: last sign of life
        self.since = array("d")  #: last message, or begin of the phase
        self.routes = array("I")  #: see Routes
        self.queued = array("Q")  #: bytes of output that wait
        self.addresses = bytearray()
        self.names: dict[int, Address] = {}  #: addresses that are no IP address: few have one
        self.used = 0  #: rows in use

    def __len__(self) -> int:
        return len(self.phases)

    @property
    def columns(self) -> tuple[array[Any], ...]:
        return (self.flags, self.interest, self.ids, self.seen, self.since, self.routes, self.queued)

    def reach(self, fd: int) -> None:
        """Makes sure that there is a row for `fd`."""
        rows = len(self.phases)
        if fd < rows:
            return
        more = max(FIRST_ROWS, rows, fd + 1 - rows)
        for column in self.columns:
            column.frombytes(bytes(more * column.itemsize))
        self.addresses.extend(bytes(more * ADDRESS_BYTES))
        self.phases.extend(bytes(more))

    def trim(self) -> bool:
        """Gives back the rows above the highest in use, when they are more than half, and says whether."""
        rows = max(FIRST_ROWS, len(self.phases.rstrip(b"\0")))
        if rows * 2 > len(self.phases):
            return False
        for column in self.columns:
            del column[rows:]
        del self.addresses[rows * ADDRESS_BYTES :]
        del self.phases[rows:]
        return True

    def clear(self, fd: int) -> None:
        """Frees a row."""
        self.phases[fd] = FREE
        self.flags[fd] = self.interest[fd] = self.ids[fd] = self.queued[fd] = 0
        self.names.pop(fd, None)
        self.used -= 1

    def set_address(self, fd: int, address: Any) -> None:
        """Keeps what accept(2) or a proxy said: (host, port, ...), or a name for a Unix socket."""
        self.names.pop(fd, None)
        packed = bytes(ADDRESS_BYTES)
        if isinstance(address, tuple):
            try:
                packed = pack_address(address[0], address[1])
            except OSError:  # a proxy may name a client by more than its address
                self.names[fd] = (str(address[0]), address[1])
        elif address and address != UNIX:
            # Linux's abstract names are bytes that begin with a zero; they are written with an @ in its place.
            self.names[fd] = address if isinstance(address, str) else "@" + address[1:].decode(errors="replace")
        self.addresses[fd * ADDRESS_BYTES : (fd + 1) * ADDRESS_BYTES] = packed

    def address(self, fd: int) -> Address:
        """(host, port), or the name of a Unix socket. An IPv4 peer of an IPv6 listener is shown as IPv4."""
        packed = bytes(self.addresses[fd * ADDRESS_BYTES : (fd + 1) * ADDRESS_BYTES])
        if not any(packed):
            return self.names.get(fd, UNIX)
        ipv4 = IPv6Address(packed[:16]).ipv4_mapped
        return str(ipv4) if ipv4 else inet_ntop(AF_INET6, packed[:16]), int.from_bytes(packed[16:], "big")


def pack_address(host: str, port: int) -> bytes:
    """Raises OSError for what is no IP address; a zone (%eth0) is left out."""
    host = host.partition("%")[0]
    ip = inet_pton(AF_INET6, host) if ":" in host else b"\0" * 10 + b"\xff\xff" + inet_pton(AF_INET, host)
    return ip + port.to_bytes(2, "big")
