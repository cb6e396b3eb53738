"""Listeners of slots: one port, options that connections inherit, and a port that is taken."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.errors import ListenError
from unlimitedws.listener import TCP_NOTSENT_LOWAT
from unlimitedws.supervisor.listeners import close_all, listen_for_admin, listen_for_slots, name_of, stop_accepting


def accept_all(listener: socket.socket) -> list[str]:
    """The addresses of all clients in a listener's queue, which are closed."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, address = listener.accept()
            connection.close()
            found.append(str(address))
    return found


@contextlib.contextmanager
def listening(slots: int = 2, **settings: Any) -> Iterator[list[socket.socket]]:
    listeners = listen_for_slots(Config(**{"port": 0, **settings}), slots)
    try:
        yield listeners
    finally:
        close_all(listeners)


def accept_one(listeners: Sequence[socket.socket]) -> socket.socket:
    while True:
        for listener in listeners:
            with contextlib.suppress(BlockingIOError):
                return listener.accept()[0]


def test_all_slots_listen_on_the_same_free_port() -> None:
    with listening(slots=4) as listeners:
        assert len({listener.getsockname() for listener in listeners}) == 1
        assert listeners[0].getsockname()[1] != 0
        assert not any(listener.getblocking() for listener in listeners)


def test_connections_inherit_the_options_of_their_listener() -> None:
    with (
        listening(slots=2, sndbuf_bytes=65536, notsent_lowat_bytes=16384) as listeners,
        socket.create_connection(listeners[0].getsockname()),
        accept_one(listeners) as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 65536  # socket(7): the kernel doubles it
        assert accepted.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 16384


def test_new_connections_are_spread_over_the_slots() -> None:
    with listening(slots=2) as listeners, contextlib.ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(socket.create_connection(listeners[0].getsockname()))
        queued = [len(accept_all(listener)) for listener in listeners]
    assert sum(queued) == 64
    assert min(queued) > 0


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ListenError, match=r"choose another --port"):
        listen_for_slots(Config(port=other.getsockname()[1]), 2)


def test_a_port_shared_by_another_server_of_this_user_is_refused() -> None:
    with listening() as first, pytest.raises(ListenError, match="Address already in use"):
        listen_for_slots(Config(port=first[0].getsockname()[1]), 2)


def test_an_address_of_nobody_names_the_flag() -> None:
    with pytest.raises(ListenError, match="check --host"):
        listen_for_slots(Config(host="192.0.2.1", port=0), 1)


def test_a_host_name_is_resolved() -> None:
    with listening(host="localhost") as listeners:
        assert listeners[0].getsockname()[0] in ("127.0.0.1", "::1")


def test_ipv6_is_listened_on() -> None:
    try:
        listeners = listen_for_slots(Config(host="::1", port=0), 2)
    except ListenError:
        pytest.skip("this machine has no IPv6")
    assert name_of(listeners[0]).startswith("[::1]:")
    socket.create_connection(listeners[0].getsockname()[:2]).close()
    close_all(listeners)


def test_after_stop_accepting_clients_are_refused_though_a_duplicate_is_open() -> None:
    with listening() as listeners:
        duplicates = [listener.dup() for listener in listeners]
        stop_accepting(listeners)
        stop_accepting(listeners)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listeners[0].getsockname())
        close_all(duplicates)


def test_the_admin_endpoint_can_be_switched_off() -> None:
    assert listen_for_admin(Config(admin_port=-1)) is None


def test_an_admin_port_in_use_names_the_admin_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ListenError, match="--admin-port"):
        listen_for_admin(Config(admin_port=other.getsockname()[1]))


def test_an_admin_host_that_cannot_be_listened_on_names_the_admin_flag() -> None:
    with pytest.raises(ListenError, match="--admin-host"):
        listen_for_admin(Config(admin_host="192.0.2.1", admin_port=0))
