"""One end of the socket between two workers: packets of SOCK_SEQPACKET, with descriptors.

One byte says what a packet is (see the package). What comes with it is a number behind that byte, or lies in a memfd, whose
size no packet limits."""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

log = logging.getLogger("unlimitedws.worker")

BATCH = 250
"""Connections in one packet. The kernel takes 253 descriptors (SCM_MAX_FD), one of which is the memfd."""

PACKET_BYTES = 32


class Luggage(NamedTuple):
    """What goes with a connection besides its row.

    state: pickled; b"": the app has none; None: it could not be pickled.  expires_at: unix time, None: never."""

    state: bytes | None = b""
    expires_at: float | None = None


class Publication(NamedTuple):
    """A broadcast to everybody, for the other side.

    batches: of the giver's: for those of so many batches."""

    message: Any
    text: bool | None
    batches: int = 0


class Link:
    """One end, on the loop. `heard(kind, payload, descriptors)` is called for each packet, and `lost()` once when the other
    end is gone."""

    def __init__(self, sock: socket.socket, heard: Callable[[bytes, Any, list[int]], None], lost: Callable[[], None]) -> None:
        self.sock, self.heard, self.lost = sock, heard, lost
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[tuple[bytes, int, list[int]]] = deque()
        self.is_broken = False
        sock.setblocking(False)
        self.loop.add_reader(sock.fileno(), self.readable)

    def send(self, kind: bytes, payload: Any = None, descriptors: Sequence[int] = ()) -> bool:
        """Sends a packet, or queues it where the socket is full; the descriptors have to stay open until it is answered.

        False: nothing can be sent any more; `lost` follows."""
        if self.sock.fileno() < 0 or self.is_broken:
            return False
        memory = -1
        if isinstance(payload, int):
            kind += b"%d" % payload
        elif payload is not None:
            try:
                memory = written(payload)
            except OSError as error:  # no descriptor is left for the memfd
                self.give_up(error)
                return False
        self.waiting.append((kind, memory, [*([memory] if memory >= 0 else []), *descriptors]))
        self.flush()
        return not self.is_broken

    def flush(self) -> None:
        while self.waiting:
            packet, memory, descriptors = self.waiting[0]
            try:
                socket.send_fds(self.sock, [packet], descriptors)
            except BlockingIOError:
                self.loop.add_writer(self.sock.fileno(), self.flush)
                return
            except OSError as error:
                self.give_up(error)
                return
            self.waiting.popleft()
            if memory >= 0:
                os.close(memory)
        self.loop.remove_writer(self.sock.fileno())

    def give_up(self, error: OSError) -> None:
        """Sends nothing any more. What the other end has said already is still heard: an acknowledgement may be among it."""
        if self.sock.fileno() < 0:
            return
        log.error("handover: the other worker cannot be reached: %s", error)
        self.is_broken = True
        self.forget_waiting()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # `readable` comes to the end

    def readable(self) -> None:
        room = socket.CMSG_SPACE((BATCH + 1) * array.array("i").itemsize)
        try:
            packet, ancillary, flags, _ = self.sock.recvmsg(PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            packet, ancillary, flags = b"", [], 0
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not packet or flags & socket.MSG_CTRUNC:
            # Truncated silently where this process has no descriptors left: the giver keeps the connections.
            self.end(descriptors)
            return
        try:
            payload = read(descriptors.pop(0)) if descriptors else int(packet[1:] or 0)
        except Exception as error:
            log.error("handover: what the other worker sent cannot be read: %r; is it of another release?", error)
            self.end(descriptors)
            return
        self.heard(packet[:1], payload, list(descriptors))

    def end(self, descriptors: Iterable[int]) -> None:
        for fd in descriptors:
            os.close(fd)
        self.close()
        self.lost()

    def close(self) -> None:
        if self.sock.fileno() < 0:
            return
        self.loop.remove_reader(self.sock.fileno())
        self.forget_waiting()
        self.sock.close()

    def forget_waiting(self) -> None:
        self.loop.remove_writer(self.sock.fileno())
        for _, memory, _ in self.waiting:
            if memory >= 0:
                os.close(memory)
        self.waiting.clear()


def written(payload: Any) -> int:
    """A memfd with a pickled object."""
    memory = os.memfd_create("unlimitedws-handover", os.MFD_CLOEXEC)
    try:
        with os.fdopen(memory, "wb", closefd=False) as file:
            pickle.dump(payload, file, pickle.HIGHEST_PROTOCOL)
    except BaseException:
        os.close(memory)
        raise
    return memory


def read(memory: int) -> Any:
    with os.fdopen(memory, "rb") as file:
        file.seek(0)
        return pickle.load(file)
