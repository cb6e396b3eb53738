"""The listening sockets: one for each worker slot, all on the same address, bound before any fork.

A listener belongs to its slot and not to the process in it. The supervisor holds it for life, so that
clients which the kernel has queued when a worker dies are served by its successor instead of being reset.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from unlimitedws.config import Config
from unlimitedws.errors import ListenError
from unlimitedws.listener import Address, listen_at, prepare, resolve


def listen_for_slots(config: Config, slots: int) -> list[socket.socket]:
    """One SO_REUSEPORT listener for each slot; with port 0 all on the same free port.

    May block in the resolver. Raises ListenError, also where another server of this user has the port."""
    address = resolve(config.host, config.port)
    if config.port:
        probe(address, config)
    listeners: list[socket.socket] = []
    try:
        for _ in range(slots):
            listeners.append(listen_at(address, config.host, config.port, config=config, reuse_port=True))
            address = address_of(listeners[0])
    except ListenError:
        close_all(listeners)
        raise
    return listeners


def probe(address: Address, config: Config) -> None:
    """Raises ListenError where somebody listens on the address already.

    Bound without SO_REUSEPORT: with it the kernel lets every process of one user share a port, and two
    servers started by mistake would each get half of the clients."""
    try:
        with socket.socket(address.family, socket.SOCK_STREAM) as sock:
            prepare(sock, config, reuse_port=False)
            sock.bind(address.sockaddr)
    except OSError as error:
        raise ListenError(config.host, config.port, error) from None


def listen_for_admin(config: Config) -> socket.socket | None:
    """The admin endpoint's listener; None where it is switched off. Raises ListenError, which names its flags."""
    if config.admin_port < 0:
        return None
    try:
        address = resolve(config.admin_host, config.admin_port)
        return listen_at(address, config.admin_host, config.admin_port, config=config)
    except ListenError as error:
        raise ListenError(error.host, error.port, error.error, flags="--admin-") from None


def address_of(listener: socket.socket) -> Address:
    """Where it listens, with the port that the kernel chose."""
    return Address(listener.family, listener.getsockname())


def stop_accepting(listeners: Sequence[socket.socket]) -> None:
    """Ends listening for every process that holds one: from now on, clients are refused at once.

    Closing would not: workers hold duplicates, and the kernel would go on queueing clients for them."""
    for listener in listeners:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # it was shut down before
                raise


def close_all(listeners: Sequence[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def name_of(listener: socket.socket) -> str:
    """HOST:PORT as a URL wants it: an IPv6 address in brackets."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
