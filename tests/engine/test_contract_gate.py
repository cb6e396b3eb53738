"""The gate: asked about every new connection, told of every end."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.engine.streams import Told
from tests.engine.test_contract_listen import CLIENT, PREFACE, preface
from tests.engine.tlspeer import Authority, dial_tls
from tests.peer import Peer, pack_close, request

Drive = Callable[..., Driver]


class Gate:
    """Lets in as many of each address as it is told to; `inside` counts them."""

    def __init__(self, each: int = 1000, refused: tuple[Any, ...] = ()) -> None:
        self.each = each
        self.refused = refused
        self.inside: Counter[Any] = Counter()
        self.entered = 0
        self.secures = True
        self.secured: list[Any] = []

    def key(self, address: Any) -> Any:
        return address if isinstance(address, str) else address[0]

    def enter(self, address: Any) -> bool:
        key = self.key(address)
        if key in self.refused or self.inside[key] >= self.each:
            return False
        self.inside[key] += 1
        self.entered += 1
        return True

    def secure(self, address: Any) -> bool:
        self.secured.append(address)
        return self.secures

    def leave(self, address: Any) -> None:
        key = self.key(address)
        assert self.inside[key] > 0, f"{address} leaves and never entered"
        self.inside[key] -= 1

    def move(self, old: Any, new: Any) -> bool:
        if self.key(new) in self.refused or self.inside[self.key(new)] >= self.each:
            return False
        self.leave(old)
        self.inside[self.key(new)] += 1
        return True

    @property
    def total(self) -> int:
        return self.inside.total()


def test_a_refused_connection_is_closed_at_once_and_counted(drive: Drive) -> None:
    gate = Gate(each=2)
    driver = drive(gate=gate)
    peers = [driver.connect() for _ in range(2)]
    surplus = driver.dial()
    driver.ended(surplus)
    assert surplus.head == b""
    driver.rest()
    assert (driver.count("connections_refused"), driver.count("closes_limit"), driver.count("handshake_failures")) == (1, 1, 0)
    assert gate.inside == {"127.0.0.1": 2}
    peers[0].close()
    driver.until(lambda: gate.total == 1)
    driver.connect()
    assert gate.total == 2


def ends() -> dict[str, Callable[[Driver, Peer], object]]:
    return {
        "before a request": lambda driver, peer: peer.close(),
        "refused": lambda driver, peer: peer.say(request("/nowhere")),
        "garbage": lambda driver, peer: peer.say(b"\0\0\0\0\r\n\r\n"),
        "a page": lambda driver, peer: peer.say(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"),
        "a stream": lambda driver, peer: peer.say(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"),
        "closed": lambda driver, peer: peer.say(request() + pack_close(1000)),
        "protocol error": lambda driver, peer: peer.say(request() + b"\xff\xff"),
        "reset": lambda driver, peer: (peer.say(request()), peer.reset()),
        "end of file": lambda driver, peer: (peer.say(request()), peer.end()),
    }


@pytest.mark.parametrize("how", ends())
def test_every_end_is_told_once(drive: Drive, how: str) -> None:
    gate = Gate()
    driver = drive(gate=gate)
    driver.front.pages[b"/page"] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    driver.front.streams[b"/stream"] = lambda: Told(begin=lambda pipe: pipe.close())
    peer = driver.dial()
    driver.until(lambda: gate.total == 1)
    ends()[how](driver, peer)
    driver.until(lambda: peer.fileno() < 0 or peer.ended)
    peer.close()
    driver.until(lambda: gate.total == 0)
    driver.rest()
    assert gate.entered == 1


def test_the_close_of_an_engine_is_told(drive: Drive) -> None:
    gate = Gate()
    driver = drive(gate=gate)
    driver.connect()
    driver.dial().say(b"GET")
    driver.until(lambda: gate.total == 2)
    driver.engine.close()
    assert gate.total == 0


def test_a_connection_is_counted_where_a_proxy_says_it_comes_from(drive: Drive) -> None:
    gate = Gate()
    driver = drive(gate=gate, guarded=True)
    driver.front.more["remote_address"] = ("203.0.113.7", 1)
    peers = [driver.connect() for _ in range(2)]
    assert +gate.inside == {"203.0.113.7": 2}
    assert gate.entered == 2, "a proxied connection does not enter twice"
    for peer in peers:
        peer.close()
    driver.until(lambda: gate.total == 0)


def test_a_connection_refused_where_it_comes_from_is_cut(drive: Drive) -> None:
    gate = Gate(refused=("203.0.113.7",))
    driver = drive(gate=gate, guarded=True)
    driver.front.more["remote_address"] = ("203.0.113.7", 1)
    peer = driver.dial()
    peer.say(request())
    driver.ended(peer)
    assert peer.head == b""
    assert gate.total == 0
    assert (driver.count("closes_limit"), driver.count("handshake_failures"), driver.count("handshakes_pending")) == (1, 1, 0)
    assert driver.calls == []


def test_the_peers_of_a_unix_socket_enter_by_its_name(drive: Drive, tmp_path: Path) -> None:
    gate = Gate()
    driver = drive(gate=gate)
    driver.listen(socket.AF_UNIX, str(tmp_path / "socket"))
    driver.connect()
    assert gate.inside == {"unix": 1}


def test_a_tls_handshake_begins_only_when_the_gate_allows_it(drive: Drive) -> None:
    gate, authority = Gate(), Authority()
    driver = drive(gate=gate)
    context = authority.server()
    driver.listen(tls=lambda: context)
    peer = dial_tls(driver, authority.client()).shake(driver)
    assert gate.secured == [peer.socket.getsockname()], "asked once"
    gate.secures = False
    refused = driver.dial()
    driver.rest()
    assert len(gate.secured) == 1, "nobody is asked about one that says nothing"
    refused.say(b"\x16\x03\x01")
    driver.ended(refused)
    assert (driver.count("closes_shed"), driver.count("handshakes_pending"), gate.total) == (1, 1, 1)


def test_behind_a_proxy_tls_is_asked_for_by_the_clients_address(drive: Drive) -> None:
    gate, authority = Gate(), Authority()
    driver = drive(gate=gate)
    context = authority.server()
    driver.front.prefaces = preface
    driver.listen(tls=lambda: context, proxied=True)
    peer = driver.dial()
    peer.say(PREFACE + b"\x16\x03\x01")
    driver.until(lambda: gate.secured)
    assert gate.secured == [CLIENT]
