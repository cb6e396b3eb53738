"""Listening sockets, made alike for the supervisor's slots and for a `Server`.

What is set on a listener its accepted sockets inherit on Linux, so that no connection pays a system call for it.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from unlimitedws.config import Config
from unlimitedws.errors import ListenError
from unlimitedws.place import Place, Tcp, host_port, places

TCP_NOTSENT_LOWAT = 25  # <linux/tcp.h>; the socket module of Python 3.11 does not name it

EVERYWHERE = "*"
"""The host that is all of IPv4 and IPv6."""


class Listening(NamedTuple):
    """A listener as a worker is given it: a descriptor, which stays its owner's, and what is spoken there."""

    fd: int
    proxied: bool = False
    tls: bool = False


class Listener:
    """A listening socket and what belongs to it. Its owner closes it.

    inode: what the socket is known by in every process that holds it.  is_tcp: whether it has a host and a port.
    any_port: whether the kernel chose the port."""

    is_tcp = True
    any_port = False

    def __init__(self, sock: socket.socket, *, proxied: bool, tls: bool) -> None:
        self.sock, self.proxied, self.tls = sock, proxied, tls
        self.inode = os.fstat(sock.fileno()).st_ino

    def __str__(self) -> str:
        return name_of(self.sock)

    @property
    def port(self) -> int:
        port: int = self.sock.getsockname()[1]
        return port

    def listening(self) -> Listening:
        """The same for a worker of this process."""
        return Listening(self.sock.fileno(), self.proxied, self.tls)

    def stop_accepting(self) -> None:
        """Ends listening for every process that holds the socket: from now on, clients are refused at once.

        Closing would not: workers hold duplicates, and the kernel would go on queueing clients for them."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # it was shut down before
                raise

    def close(self) -> None:
        self.sock.close()


def wanted(config: Config) -> list[Place]:
    """Where a server with these settings listens."""
    return places(config.listen) or [Tcp(config.host, config.port)]


class Bindable(NamedTuple):
    """A resolved address: what `socket.socket` and `bind` want. dual: IPv4 as well as IPv6."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]
    dual: bool = False

    @classmethod
    def of(cls, listener: socket.socket) -> Bindable:
        """What a TCP listener is bound to."""
        is_dual = listener.family == socket.AF_INET6 and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return cls(listener.family, listener.getsockname(), is_dual)

    def at_port(self, port: int) -> Bindable:
        """The same address at another port."""
        host, _, *rest = self.sockaddr
        return self._replace(sockaddr=(host, port, *rest))  # type: ignore[arg-type]  # as many items as before


def resolve(host: str, port: int) -> Bindable:
    """The first address of `host`. Asks the resolver, so it may block; raises ListenError."""
    if host == EVERYWHERE:
        return everywhere(port)
    name = host.encode() if host.isascii() else host  # text would import the tables of IDNA (0.3 MB) for an address, too
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:  # gaierror is one
        raise ListenError(host, port, error) from None
    except (UnicodeError, ValueError) as error:  # a label over 63 characters, a NUL
        raise ListenError(host, port, OSError(errno.EINVAL, str(error))) from None
    family, _, _, _, sockaddr = found[0]
    return Bindable(family, sockaddr)  # type: ignore[arg-type]  # only AF_INET and AF_INET6 answer to a port


def everywhere(port: int) -> Bindable:
    """One socket for both families; IPv4 alone where the kernel has no IPv6."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise ListenError(EVERYWHERE, port, error) from None
        return Bindable(socket.AF_INET, ("0.0.0.0", port))
    return Bindable(socket.AF_INET6, ("::", port, 0, 0), dual=True)


def listen(host: str, port: int, *, config: Config, reuse_port: bool = False) -> socket.socket:
    """A non-blocking listening socket on the first address of `host`; port 0 takes any free one.

    reuse_port: others of this user may listen on the same port (the slots of one supervisor).
    Raises ListenError. The socket is the caller's to close."""
    return listen_at(resolve(host, port), host, port, config=config, reuse_port=reuse_port)


def listen_at(address: Bindable, host: str, port: int, *, config: Config, reuse_port: bool = False) -> socket.socket:
    """Like `listen`, for an address resolved before; `host` and `port` are named in the error."""
    listener = bound_at(address, host, port, config=config, reuse_port=reuse_port)
    try:
        listener.listen(config.backlog)
    except OSError as error:
        listener.close()
        raise ListenError(host, port, error) from None
    return listener


def bound_at(address: Bindable, host: str, port: int, *, config: Config, reuse_port: bool = False) -> socket.socket:
    """The same socket before it listens: nobody can connect to it, and the kernel gives it no connections of others."""
    try:
        listener = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:  # no IPv6 in this kernel, no descriptor left
        raise ListenError(host, port, error) from None
    try:
        prepare(listener, config, reuse_port=reuse_port, dual=address.dual)
        listener.bind(address.sockaddr)
    except OSError as error:
        listener.close()
        raise ListenError(host, port, error) from None
    return listener


def tcp_listener(place: Tcp, sock: socket.socket, config: Config, kind: type[Listener] = Listener) -> Listener:
    """The listener of a place, whose socket was made by `listen_at`."""
    listener = kind(sock, proxied=place.proxied, tls=bool(config.certfile) if place.tls is None else place.tls)
    listener.any_port = not place.port
    return listener


def prepare(listener: socket.socket, config: Config, *, reuse_port: bool, dual: bool = False) -> None:
    """Sets the options of a TCP listener before it is bound: only then are all of them inherited."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if listener.family == socket.AF_INET6:  # one meaning whatever net.ipv6.bindv6only says
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
    set_options(listener, config)


def set_options(listener: socket.socket, config: Config) -> None:
    """Sets what its connections inherit, and that it does not block. Connections of a Unix socket inherit nothing."""
    listener.setblocking(False)
    if listener.family == socket.AF_UNIX:
        return
    if config.sndbuf_bytes:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.sndbuf_bytes)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if config.notsent_lowat_bytes:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, config.notsent_lowat_bytes)


def name_of(listener: socket.socket) -> str:
    """HOST:PORT as a URL wants it."""
    return host_port(*listener.getsockname()[:2])
