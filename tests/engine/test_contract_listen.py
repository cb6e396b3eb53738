"""Listeners of all kinds: Unix sockets, and those behind a proxy that says who comes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import TEXT, Peer, pack, request

Drive = Callable[..., Driver]

CLIENT = ("203.0.113.7", 4711)
PREFACE = b"PREFACE 203.0.113.7 4711\r\n"


def preface(data: bytes, address: Any) -> tuple[int, Any] | None:
    """A preface of our own making: a line that begins so; "-" for the address of the socket."""
    assert address[0] == "127.0.0.1"
    line, end, _ = data.partition(b"\r\n")
    if not line.startswith(b"PREFACE "[: len(line)]):
        raise ValueError("no preface")
    if not end:
        return None
    _, host, port = line.split(b" ")
    return len(line) + 2, None if host == b"-" else (host.decode(), int(port))


def proxied(drive: Drive, **given: Any) -> Driver:
    driver = drive(**given)
    driver.front.prefaces = preface
    driver.listen(proxied=True)
    return driver


def test_a_preface_stands_before_the_request_and_says_the_address(drive: Drive) -> None:
    driver = proxied(drive)
    peer = driver.dial()
    peer.say(PREFACE + request() + pack(TEXT, b"early"))
    driver.until(lambda: driver.named("on_message") == ["early"])
    assert driver.only.remote_address == CLIENT
    assert driver.front.pipes == [] or driver.front.pipes[0].remote_address == CLIENT
    assert peer.is_upgraded


@pytest.mark.parametrize("cut", range(1, len(PREFACE) + 4))
def test_a_preface_may_be_cut_anywhere(drive: Drive, cut: int) -> None:
    driver = proxied(drive)
    stream = PREFACE + request()
    peer = driver.dial()
    peer.say(stream[:cut])
    driver.rest()
    peer.say(stream[cut:])
    driver.until(lambda: peer.is_upgraded)
    assert driver.only.remote_address == CLIENT


def test_a_preface_byte_by_byte(drive: Drive) -> None:
    driver = proxied(drive)
    peer = driver.dial()
    for byte in PREFACE + request():
        peer.say(bytes((byte,)))
        driver.turn()
    driver.until(lambda: peer.is_upgraded)
    assert driver.only.remote_address == CLIENT


def test_a_preface_may_say_nothing_of_the_client(drive: Drive) -> None:
    driver = proxied(drive)
    peer = driver.dial()
    peer.say(b"PREFACE - 0\r\n" + request())
    driver.until(lambda: peer.is_upgraded)
    assert driver.only.remote_address == peer.socket.getsockname()


@pytest.mark.parametrize("said", [request(), b"\r\n", b"PREFACE " + b"x" * 70_000], ids=["none", "garbage", "endless"])
def test_what_is_no_preface_is_cut(drive: Drive, said: bytes) -> None:
    driver = proxied(drive)
    peer = driver.dial()
    peer.socket.setblocking(True)
    peer.say(said)
    peer.socket.setblocking(False)
    driver.ended(peer)
    assert peer.head == b""
    assert (driver.count("handshake_failures"), driver.count("closes_handshake_refused")) == (1, 1)


def test_a_preface_has_the_deadline_of_the_handshake(drive: Drive) -> None:
    driver = proxied(drive, handshake_timeout_s=0.1)
    peer = driver.dial()
    peer.say(PREFACE[:-1])
    driver.until(lambda: driver.count("handshakes_pending"))
    driver.until(lambda: peer.ended, ticking=True)
    assert (driver.count("handshake_failures"), driver.count("closes_handshake_timeout")) == (1, 1)


def test_a_refusal_behind_a_preface_is_answered(drive: Drive) -> None:
    driver = proxied(drive)
    peer = driver.dial()
    peer.say(PREFACE + request("/nowhere"))
    driver.ended(peer)
    assert peer.status == 404


def test_only_proxied_listeners_have_a_preface(drive: Drive) -> None:
    driver = proxied(drive)
    address = driver.listen()
    peer = Peer(socket.create_connection(address))
    driver.peers.append(peer)
    peer.say(request())
    driver.until(lambda: peer.is_upgraded)


# ---- Unix sockets


def test_a_unix_socket_serves_as_any_other(drive: Drive, tmp_path: Path) -> None:
    driver = drive(on_message=lambda connection, message: connection.send(message))
    driver.listen(socket.AF_UNIX, str(tmp_path / "socket"))
    peers = [driver.connect() for _ in range(20)]
    for number, peer in enumerate(peers):
        peer.text(f"hello {number}")
    driver.until(lambda: all(peer.messages == [f"hello {number}"] for number, peer in enumerate(peers)))
    assert {connection.remote_address for connection in driver.engine.connections()} == {"unix"}
    peers[0].close()
    driver.until(lambda: driver.count("connections_open") == 19)


def test_a_unix_peer_with_a_name_of_its_own_is_known_by_it(drive: Drive, tmp_path: Path) -> None:
    driver = drive()
    address = driver.listen(socket.AF_UNIX, str(tmp_path / "socket"))
    end = socket.socket(socket.AF_UNIX)
    end.bind(str(tmp_path / "client"))
    end.connect(address)
    peer = Peer(end)
    driver.peers.append(peer)
    peer.say(request())
    driver.until(lambda: peer.is_upgraded)
    connection = driver.only
    assert connection.remote_address == str(tmp_path / "client")
    peer.close()
    driver.until(lambda: driver.named("on_close"))
    assert connection.remote_address == str(tmp_path / "client")
