"""Stands where systemd would: a datagram socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator

WAIT_S = 30.0


class Manager:
    """Stands where systemd would. address: for NOTIFY_SOCKET."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.sock, self.address = sock, address
        self.heard: list[str] = []
        self.kept: dict[str, int] = {}

    def hear(self) -> str:
        """The next datagram; a descriptor with it is kept under its name."""
        packet, fds, _, _ = socket.recv_fds(self.sock, 4096, 8)
        said = packet.decode()
        if fds:
            (self.kept[said.partition("FDNAME=")[2]],) = fds
        self.heard.append(said)
        return said

    def hears(self, pattern: str) -> str:
        """The next datagram that matches; waits for it."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if re.search(pattern, said := self.hear()):
                return said
        raise AssertionError(f"{pattern!r} is not in {self.heard}")

    def has_heard(self) -> list[str]:
        """All that waits now."""
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.hear()
        self.sock.settimeout(WAIT_S)
        return self.heard


@contextlib.contextmanager
def managing(address: str) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        sock.settimeout(WAIT_S)
        manager = Manager(sock, address)
        try:
            yield manager
        finally:
            for fd in manager.kept.values():
                os.close(fd)
