"""Sockets that systemd listens on and passes to the process it starts: socket activation, sd_listen_fds(3).

They stay systemd's: it goes on listening when this server stops, and the clients that come meanwhile wait for its next
start. So they are never shut down, and what they are bound to is never removed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence

from unlimitedws.config import Config
from unlimitedws.errors import ActivationError
from unlimitedws.listener import Listener, name_of, set_options
from unlimitedws.place import UNIX_PREFIX, Systemd

FIRST_FD = 3  # SD_LISTEN_FDS_START in <systemd/sd-daemon.h>
MOST = 128
"""Sockets that we take: each worker gets their descriptors in one packet of at most 253."""
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ActivatedListener(Listener):
    """A listener that belongs to systemd."""

    def __init__(self, sock: socket.socket, place: Systemd, config: Config) -> None:
        self.is_tcp = sock.family != socket.AF_UNIX
        has_tls = (self.is_tcp and bool(config.certfile)) if place.tls is None else place.tls
        super().__init__(sock, proxied=place.proxied, tls=has_tls)

    def __str__(self) -> str:
        return name_of(self.sock) if self.is_tcp else UNIX_PREFIX + str(self.sock.getsockname())

    def stop_accepting(self) -> None:
        """Does nothing: clients queue for the next start."""


class Activation:
    """What systemd passed to this process: taken once, and each socket is used by one place.

    named: the names of all sockets by descriptor, also of those in use."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Takes the sockets over, and the variables out of `environ`: they are not meant for programs started from here."""
        pid, count, names = (environ.get(name, "") for name in VARIABLES)
        self.fds: dict[int, str] = {}
        self.named: dict[int, str] = {}
        if pid != str(os.getpid()) or not count.isdecimal():
            return
        for name in VARIABLES:
            environ.pop(name, None)
        named = names.split(":") if names else []
        for i in range(int(count)):
            self.fds[FIRST_FD + i] = named[i] if i < len(named) else "unknown"
        self.named = dict(self.fds)

    def listeners(self, place: Systemd, config: Config) -> list[ActivatedListener]:
        """The sockets of one place, in the order in which they were passed. Raises ActivationError."""
        chosen = [fd for fd, name in self.fds.items() if place.name in ("", name)]
        if not chosen:
            raise ActivationError(self.nothing_for(place))
        if len(chosen) > MOST:
            raise ActivationError(f"{len(chosen)} sockets are more than {MOST}")
        for fd in chosen:
            del self.fds[fd]
        return [ActivatedListener(sock, place, config) for sock in listening_sockets(chosen, config)]

    def take_named(self, prefix: str) -> dict[str, int]:
        """Descriptors whose names begin like this, by name: the caller's from now on, and of no place."""
        found = {name: fd for fd, name in self.fds.items() if name.startswith(prefix)}
        for fd in found.values():
            del self.fds[fd], self.named[fd]
        return found

    def pass_again(self, named: Mapping[int, str]) -> None:
        """As if systemd had passed these to the program that this process runs since an upgrade."""
        self.fds, self.named = dict(named), dict(named)

    def nothing_for(self, place: Systemd) -> str:
        if place.name and self.fds:
            return f"no socket is named {place.name}, but {', '.join(sorted(set(self.fds.values())))}; see FileDescriptorName="
        return "no socket; is this started by a .service with a .socket unit of the same name?"


@functools.cache
def passed() -> Activation:
    """What systemd passed to this process."""
    return Activation(os.environ)


def listening_sockets(fds: Sequence[int], config: Config) -> list[socket.socket]:
    """The sockets behind these descriptors, none where one of them is of no use. Raises ActivationError."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(listening_socket(fd)) for fd in fds]
        for sock in found:
            set_options(sock, config)
        stack.pop_all()
    return found


def listening_socket(fd: int) -> socket.socket:
    """The socket behind a descriptor. Raises ActivationError unless it listens for streams."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ActivationError(f"descriptor {fd} is no socket: {error.strerror}") from None
    wanted = sock.type == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if not wanted or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise ActivationError(f"descriptor {fd} does not listen; use ListenStream= and Accept=no in the .socket unit")
    sock.set_inheritable(False)
    return sock
