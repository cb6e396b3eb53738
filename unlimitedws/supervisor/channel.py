"""How the processes talk: JSON objects, each with descriptors, over a SOCK_SEQPACKET pair.

A packet arrives whole or not at all, so there is no framing and no partial state. The end of the stream
means that the other process is gone, however it went: nobody else may hold its end.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

MAX_BYTES = 128 * 1024
"""Largest packet; below the kernel's default send buffer (208 KiB)."""

pack = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # json.dumps would make an encoder for each message

MAX_FDS = 253
"""Descriptors in one packet: the kernel's limit (SCM_MAX_FD)."""


class Channel:
    """One end. The owner closes it; so does `close()` in a forked child that has no use for it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, blocking."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def adopt(cls, fd: int) -> Channel:
        """The end that came as a descriptor, which is this object's from now on."""
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd))

    def fileno(self) -> int:
        return self.sock.fileno()

    def setblocking(self, blocking: bool) -> None:
        self.sock.setblocking(blocking)

    def close(self) -> None:
        self.sock.close()

    def send(self, message: Message, fds: Sequence[int] = ()) -> bool:
        """Sends one message; whether the other end could take it. The descriptors stay the caller's too."""
        packet = pack(message).encode("utf-8", "backslashreplace")
        try:
            if fds:
                socket.send_fds(self.sock, [packet], list(fds))
            else:
                self.sock.send(packet)
        except OSError:
            # Gone (EPIPE), closed by us, or so stuck that its buffer is full: the caller learns the
            # rest from the end of the process, which is watched in any case.
            return False
        return True

    def receive(self, *, wait: bool = True) -> tuple[Message, list[int]] | None:
        """The next message with its descriptors, which are the caller's now; None: the other end is gone.

        Raises BlockingIOError where nothing is there, on a non-blocking end or without `wait`."""
        room = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
        try:
            packet, ancillary, flags, _ = self.sock.recvmsg(MAX_BYTES, room, socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT))
        except BlockingIOError:
            raise
        except OSError:
            return None
        fds = [fd for level, kind, data in ancillary for fd in descriptors_of(level, kind, data)]
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            raise RuntimeError("a packet between our processes was cut short; is RLIMIT_NOFILE exhausted?")
        return (json.loads(packet), fds) if packet else None


def descriptors_of(level: int, kind: int, data: bytes) -> list[int]:
    if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
        return []
    fds = array.array("i")
    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
