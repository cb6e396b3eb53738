"""Listening sockets, made alike for the supervisor's slots and for a `Server`.

What is set on a listener its accepted sockets inherit on Linux, so that no connection pays a system call for it.
"""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

from unlimitedws.config import Config
from unlimitedws.errors import ListenError

TCP_NOTSENT_LOWAT = 25  # <linux/tcp.h>; the socket module of Python 3.11 does not name it


class Address(NamedTuple):
    """A resolved address: what `socket.socket` and `bind` want."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


def resolve(host: str, port: int) -> Address:
    """The first address of `host`. Asks the resolver, so it may block; raises ListenError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:  # gaierror is one
        raise ListenError(host, port, error) from None
    except (UnicodeError, ValueError) as error:  # a label over 63 characters, a NUL
        raise ListenError(host, port, OSError(errno.EINVAL, str(error))) from None
    family, _, _, _, sockaddr = found[0]
    return Address(family, sockaddr)  # type: ignore[arg-type]  # only AF_INET and AF_INET6 answer to a port


def listen(host: str, port: int, *, config: Config, reuse_port: bool = False) -> socket.socket:
    """A non-blocking listening socket on the first address of `host`; port 0 takes any free one.

    reuse_port: others of this user may listen on the same port (the slots of one supervisor).
    Raises ListenError. The socket is the caller's to close."""
    return listen_at(resolve(host, port), host, port, config=config, reuse_port=reuse_port)


def listen_at(address: Address, host: str, port: int, *, config: Config, reuse_port: bool = False) -> socket.socket:
    """Like `listen`, for an address resolved before; `host` and `port` are named in the error."""
    try:
        listener = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:  # no IPv6 in this kernel, no descriptor left
        raise ListenError(host, port, error) from None
    try:
        prepare(listener, config, reuse_port=reuse_port)
        listener.bind(address.sockaddr)
        listener.listen(config.backlog)
    except OSError as error:
        listener.close()
        raise ListenError(host, port, error) from None
    return listener


def prepare(listener: socket.socket, config: Config, *, reuse_port: bool) -> None:
    """Sets the options of a listener before it is bound: only then are all of them inherited."""
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if listener.family == socket.AF_INET6:  # one meaning whatever net.ipv6.bindv6only says
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if config.sndbuf_bytes:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.sndbuf_bytes)
    if config.notsent_lowat_bytes:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, config.notsent_lowat_bytes)
