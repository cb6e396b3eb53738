from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.errors import ListenError
from unlimitedws.listener import TCP_NOTSENT_LOWAT, listen


@contextmanager
def listening(host: str = "127.0.0.1", port: int = 0, *, reuse_port: bool = False, **settings: Any) -> Iterator[socket.socket]:
    with listen(host, port, config=Config(**settings), reuse_port=reuse_port) as listener:
        yield listener


@contextmanager
def accepted(listener: socket.socket) -> Iterator[socket.socket]:
    with socket.create_connection(listener.getsockname()[:2]):
        listener.settimeout(5)
        conn, _ = listener.accept()
        with conn:
            yield conn


def test_a_listener_never_blocks() -> None:
    with listening() as listener, pytest.raises(BlockingIOError):
        listener.accept()


def test_port_0_takes_a_free_port() -> None:
    with listening() as one, listening() as other:
        assert 0 < one.getsockname()[1] != other.getsockname()[1] > 0


def test_accepted_sockets_inherit_nodelay() -> None:
    with listening() as listener, accepted(listener) as conn:
        assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_accepted_sockets_inherit_the_buffer_settings() -> None:
    with listening(sndbuf_bytes=20_000, notsent_lowat_bytes=16_384) as listener, accepted(listener) as conn:
        assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 40_000  # the kernel doubles it: socket(7)
        assert conn.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 16_384


def test_ipv6_is_listened_on_alone() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        context = listening("::1")
        listener = context.__enter__()
    except ListenError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    with ExitStack() as stack:
        stack.push(context)
        assert listener.family == socket.AF_INET6
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_host_name_is_resolved() -> None:
    with listening("localhost") as listener:
        assert listener.getsockname()[0] in ("127.0.0.1", "::1")


def test_several_may_share_a_port_when_all_of_them_say_so() -> None:
    with listening(reuse_port=True) as one, listening(port=one.getsockname()[1], reuse_port=True) as other:
        assert one.getsockname() == other.getsockname()


def test_a_port_in_use_is_an_error_that_says_what_to_do() -> None:
    with listening() as one:
        port = one.getsockname()[1]
        with pytest.raises(ListenError, match=rf"cannot listen on 127.0.0.1 port {port}: .*choose another --port") as caught:
            listen("127.0.0.1", port, config=Config())
    assert caught.value.errno == errno.EADDRINUSE


def test_an_address_of_another_machine_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ListenError, match="check --host"):
        listen("192.0.2.1", 0, config=Config())  # TEST-NET-1 (RFC 5737)


@pytest.mark.parametrize("host", ["no such host", "a" * 70 + ".example", "nul\0"])
def test_a_host_that_is_no_name_is_an_error(host: str) -> None:
    with pytest.raises(ListenError, match="cannot listen on"):
        listen(host, 0, config=Config())


def test_a_failed_attempt_leaves_no_descriptor_open() -> None:
    # An unclosed socket would be a ResourceWarning, which is an error in these tests.
    with listening() as one, pytest.raises(ListenError):
        listen("127.0.0.1", one.getsockname()[1], config=Config())
