from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.errors import ListenError
from unlimitedws.listener import TCP_NOTSENT_LOWAT, Listener, Listening, listen, tcp_listener, wanted
from unlimitedws.place import Tcp


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
    skip_without_ipv6()
    with listening("::") as listener, socket.create_connection(("::1", listener.getsockname()[1])):
        assert listener.family == socket.AF_INET6
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", listener.getsockname()[1]))


def test_a_star_is_both_families_on_one_socket() -> None:
    skip_without_ipv6()
    with listening("*") as listener:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, listener.getsockname()[1])):
                pass


def test_a_star_is_ipv4_where_the_kernel_has_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *arguments, **options)

    monkeypatch.setattr(socket, "socket", Socket)
    with listening("*") as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def skip_without_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")


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


@pytest.mark.parametrize("host", ["[::1]", "localhost:80", "http://localhost"])
def test_what_is_more_than_a_host_says_so(host: str) -> None:
    with pytest.raises(ListenError, match=r"--host is an address or a name that is known here, alone: without http://, a port or brackets"):
        listen(host, 0, config=Config())


def test_a_failed_attempt_leaves_no_descriptor_open() -> None:
    # An unclosed socket would be a ResourceWarning, which is an error in these tests.
    with listening() as one, pytest.raises(ListenError):
        listen("127.0.0.1", one.getsockname()[1], config=Config())


@pytest.mark.parametrize(
    ("settings", "tls", "proxied"),
    [
        ({}, [False], [False]),
        ({"certfile": "x"}, [True], [False]),
        ({"certfile": "x", "listen": "a:1,b:2?tls=no,c:3?tls"}, [True, False, True], [False] * 3),
        ({"trusted_proxies": "::1", "listen": "a:1?proxy,b:2"}, [False, False], [True, False]),
    ],
)
def test_with_a_certificate_tls_is_spoken_unless_a_place_says_no(settings: dict[str, str], tls: list[bool], proxied: list[bool]) -> None:
    config = Config(**settings)  # type: ignore[arg-type]
    with socket.socket() as sock:
        made = [tcp_listener(place, sock, config).listening() for place in wanted(config) if isinstance(place, Tcp)]
        assert [(each.tls, each.proxied) for each in made] == list(zip(tls, proxied, strict=True))


def test_without_the_setting_listen_it_is_host_and_port() -> None:
    assert wanted(Config(host="::1", port=7)) == [Tcp("::1", 7)]
    assert wanted(Config(host="::1", port=7, listen="*:8")) == [Tcp("*", 8)]


def test_a_worker_is_given_the_descriptor_and_what_is_spoken_there() -> None:
    with listening() as sock:
        listener = Listener(sock, proxied=True, tls=False)
        assert listener.listening() == Listening(sock.fileno(), proxied=True, tls=False)
        assert str(listener) == f"127.0.0.1:{listener.port}"


def test_after_stop_accepting_clients_are_refused_though_a_duplicate_is_open() -> None:
    with listening() as sock, sock.dup():
        listener = Listener(sock, proxied=False, tls=False)
        listener.stop_accepting()
        listener.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(sock.getsockname())
