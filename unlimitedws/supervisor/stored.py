"""Listeners that outlive a supervisor: those that systemd keeps while it is away, and those of the one before an upgrade.

systemd keeps them in the file descriptor store of the unit. A restart then refuses nobody: clients queue in the kernel
until the next start, and those that are in the queues when the supervisor dies are served too. Where
FileDescriptorStoreMax= allows it, FDSTORE is in the environment (since systemd 254; before, the unit sets it itself).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from socket import AF_UNIX, SO_REUSEPORT, SOCK_STREAM, SOL_SOCKET, AddressFamily, socket

from unlimitedws.activation import Activation, listening_socket
from unlimitedws.config import Config
from unlimitedws.errors import ActivationError
from unlimitedws.listener import Bindable, Listener, set_options
from unlimitedws.place import host_port
from unlimitedws.socketfile import Identity, UnixListener, identity
from unlimitedws.supervisor.channel import Message
from unlimitedws.supervisor.notify import Notifier

log = logging.getLogger("unlimitedws.supervisor")

PREFIX = "unlimitedws-"
"""Names of the store: this and a number, in the order of listen(), by which the kernel counts a reuseport group."""


class StoredListener(Listener):
    """A listener that is systemd's too."""

    def stop_accepting(self) -> None:
        """Does nothing: clients queue for the next start."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A TCP listener of the start before.

    name: what systemd calls it; "": it has it not.  slot: whose it was; None: nobody remembers.
    any_port: whether the kernel chose its port."""

    fd: int
    address: Bindable
    name: str = ""
    slot: int | None = None
    any_port: bool = False

    def __str__(self) -> str:
        return f"what systemd kept as {self.name}" if self.name else host_port(*self.address.sockaddr[:2])

    @classmethod
    def unpack(cls, packed: Message) -> Kept:
        family, sockaddr, dual = packed["address"]
        return cls(**{**packed, "address": Bindable(AddressFamily(family), tuple(sockaddr), dual)})

    @property
    def port(self) -> int:
        return self.address.sockaddr[1]

    def is_at(self, wanted: Bindable) -> bool:
        """Whether it is what would be made of an address; port 0 is any port that the kernel chose."""
        return wanted == (self.address if wanted.sockaddr[1] or not self.any_port else self.address.at_port(0))


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A Unix listener of the supervisor before an upgrade. file: what `identity` says of the path while it is there."""

    fd: int
    path: str
    file: Identity

    @classmethod
    def of(cls, listener: UnixListener) -> KeptFile:
        return cls(listener.sock.fileno(), listener.path, listener.file)

    @classmethod
    def unpack(cls, packed: Message) -> KeptFile:
        device, number = packed["file"]
        return cls(packed["fd"], packed["path"], (device, number))

    def is_at(self, path: str) -> bool:
        """Whether it is what would be made of a path."""
        return self.path == os.path.abspath(path) and self.is_there

    @property
    def is_there(self) -> bool:
        """Whether clients that connect to the path still come here."""
        with contextlib.suppress(OSError):
            return identity(self.path) == self.file
        return False

    def end(self) -> None:
        """Closes it, and removes its file."""
        sock = socket(AF_UNIX, SOCK_STREAM, 0, self.fd)
        if self.is_there:
            UnixListener(sock, self.path).close()
        sock.close()


class Store:
    """What there is of the last start, and what systemd is to keep of this one.

    room: listeners that systemd takes at most; 0: there is no store.
    found: what nobody has taken yet.  ports: those of all that there was.  names: what systemd calls those that it keeps,
    by descriptor."""

    def __init__(self, activation: Activation, notifier: Notifier, room: int) -> None:
        self.notifier, self.room = notifier, room if notifier.is_there else 0
        self.used = 0
        self.found: list[Kept] = []
        self.files: list[KeptFile] = []
        self.names: dict[int, str] = {}
        self.next_number = 0
        for name, fd in sorted(activation.take_named(PREFIX).items(), key=lambda item: number_of(item[0])):
            self.next_number = number_of(name) + 1
            self.adopt(name, fd)
        self.ports = ports_of(self.found)

    @classmethod
    def of(cls, environ: Mapping[str, str], activation: Activation, notifier: Notifier) -> Store:
        """As systemd has set it up in the environment of this process."""
        room = environ.get("FDSTORE", "")
        return cls(activation, notifier, int(room) if room.isdecimal() else 0)

    def adopt(self, name: str, fd: int) -> None:
        try:
            sock = listening_socket(fd)
        except ActivationError as error:  # somebody else's, or shut down
            log.warning("what systemd kept as %s is of no use: %s", name, error)
            self.notifier.forget(name)
            return
        if sock.family == AF_UNIX or not sock.getsockopt(SOL_SOCKET, SO_REUSEPORT):
            self.notifier.forget(name)  # no second one could join it
            sock.close()
            return
        self.names[fd] = name
        self.found.append(Kept(fd, Bindable.of(sock), name))
        sock.detach()

    def inherit(self, found: Iterable[Kept], files: Iterable[KeptFile], next_number: int) -> None:
        """Has what the supervisor before an upgrade had, in the kernel's order."""
        self.found, self.files, self.next_number = list(found), list(files), next_number
        self.ports = ports_of(self.found)
        self.names = {kept.fd: kept.name for kept in self.found if kept.name}

    def take(self, address: Bindable, config: Config) -> list[tuple[socket, int | None]]:
        """The listeners that there are of an address, as the settings are now, each with its slot where that is known."""
        fitting = [kept for kept in self.found if kept.is_at(address)]
        taken = [kept for kept in fitting if kept.address == fitting[0].address]  # of port 0 there may be several groups
        self.found = [kept for kept in self.found if kept not in taken]
        socks = [socket(kept.address.family, SOCK_STREAM, 0, kept.fd) for kept in taken]
        for sock in socks:
            set_options(sock, config)
            sock.listen(config.backlog)  # no new queue, but perhaps another length
        return [(sock, kept.slot) for sock, kept in zip(socks, taken, strict=True)]

    def take_file(self, path: str) -> socket | None:
        """The Unix listener that there is of a path."""
        for kept in self.files:
            if kept.is_at(path):
                self.files.remove(kept)
                return socket(AF_UNIX, SOCK_STREAM, 0, kept.fd)
        return None

    def has_room(self, size: int, name: str) -> bool:
        """Whether so many listeners of an address can be kept: all or none, as they are one group."""
        if not self.room:
            return False
        if self.used + size > self.room:
            log.warning("systemd keeps %d descriptors at most: those of %s are not kept; raise FileDescriptorStoreMax", self.room, name)
            return False
        self.used += size
        return True

    def keep(self, socks: Sequence[socket]) -> None:
        """From now on they outlive this process."""
        for sock in socks:
            if sock.fileno() not in self.names:
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
        for kept in self.found:
            log.info("no longer listening on %s", kept)
            if kept.name:
                self.notifier.forget(kept.name)
                del self.names[kept.fd]
            socket(kept.address.family, SOCK_STREAM, 0, kept.fd).close()
        for file in self.files:
            log.info("no longer listening on unix:%s", file.path)
            file.end()
        self.found, self.files = [], []


def ports_of(found: Iterable[Kept]) -> frozenset[int]:
    return frozenset(kept.port for kept in found)


def number_of(name: str) -> int:
    number = re.search("[0-9]+$", name)
    return int(number[0]) if number else 0
