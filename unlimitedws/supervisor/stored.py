"""Listeners that systemd keeps while the supervisor is away, in the file descriptor store of the unit.

A restart then refuses nobody: clients queue in the kernel until the next start, and those that are in the queues
when the supervisor dies are served too. Where FileDescriptorStoreMax= allows it, FDSTORE is in the environment
(since systemd 254; before, the unit sets it itself).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from socket import AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, SO_REUSEPORT, SOL_SOCKET, socket

from unlimitedws.activation import Activation, listening_socket
from unlimitedws.config import Config
from unlimitedws.errors import ActivationError
from unlimitedws.listener import Bindable, Listener, set_options
from unlimitedws.supervisor.notify import Notifier

log = logging.getLogger("unlimitedws.supervisor")

PREFIX = "unlimitedws-"
"""Names of the store: this and a number, in the order of listen(), by which the kernel counts a reuseport group."""


class StoredListener(Listener):
    """A listener that is systemd's too."""

    def stop_accepting(self) -> None:
        """Does nothing: clients queue for the next start."""


class Store:
    """What systemd has kept of the last start, and what it is to keep of this one.

    room: listeners that it takes at most; 0: there is no store."""

    def __init__(self, activation: Activation, notifier: Notifier, room: int) -> None:
        self.notifier, self.room = notifier, room if notifier.is_there else 0
        self.used = 0
        self.names: dict[int, str] = {}  # what systemd calls those that it keeps, by descriptor
        self.found: dict[str, socket] = {}
        self.next_number = 0
        for name, fd in sorted(activation.take_named(PREFIX).items(), key=lambda item: number_of(item[0])):
            self.next_number = number_of(name) + 1
            self.adopt(name, fd)

    @classmethod
    def of(cls, environ: Mapping[str, str], activation: Activation, notifier: Notifier) -> Store:
        """As systemd has set it up in the environment of this process."""
        room = environ.get("FDSTORE", "")
        return cls(activation, notifier, int(room) if room.isdecimal() else 0)

    def adopt(self, name: str, fd: int) -> None:
        try:
            self.found[name] = listening_socket(fd)
        except ActivationError as error:  # somebody else's, or shut down
            log.warning("what systemd kept as %s is of no use: %s", name, error)
            self.notifier.forget(name)

    def take(self, address: Bindable, config: Config) -> list[socket]:
        """The sockets that were kept of an address, as the settings are now."""
        names = [name for name, sock in self.found.items() if is_at(sock, address)]
        taken = [self.found.pop(name) for name in names]
        for name, sock in zip(names, taken, strict=True):
            self.names[sock.fileno()] = name
            set_options(sock, config)
            sock.listen(config.backlog)  # no new queue, but perhaps another length
        return taken

    def has_room(self, size: int, name: str) -> bool:
        """Whether so many listeners of an address can be kept: all or none, as they are one group."""
        if not self.room:
            return False
        if self.used + size > self.room:
            log.warning("systemd keeps %d descriptors at most: those of %s are not kept; raise FileDescriptorStoreMax", self.room, name)
            return False
        self.used += size
        return True

    def keep(self, sock: socket) -> None:
        """From now on it outlives this process."""
        name = self.names[sock.fileno()] = f"{PREFIX}{self.next_number}"
        self.notifier.store(name, sock.fileno())
        self.next_number += 1

    def forget(self, sock: socket) -> None:
        """It is about to be closed for good."""
        if (name := self.names.pop(sock.fileno(), None)) is not None:
            self.used -= 1
            self.notifier.forget(name)

    def close(self) -> None:
        """Gives up what nobody has taken: the settings have changed."""
        for name, sock in self.found.items():
            log.info("no longer listening on what systemd kept as %s", name)
            self.notifier.forget(name)
            sock.close()
        self.found.clear()


def number_of(name: str) -> int:
    number = re.search("[0-9]+$", name)
    return int(number[0]) if number else 0


def is_at(sock: socket, address: Bindable) -> bool:
    """Whether a socket is what we would make of an address ourselves."""
    if (sock.family, sock.getsockname()) != (address.family, address.sockaddr):
        return False
    if sock.family == AF_INET6 and bool(sock.getsockopt(IPPROTO_IPV6, IPV6_V6ONLY)) == address.dual:
        return False
    return bool(sock.getsockopt(SOL_SOCKET, SO_REUSEPORT))
