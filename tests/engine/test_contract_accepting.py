"""Accepting: batches, the limit, running out of descriptors, several listeners."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import open_descriptors
from tests.engine.driver import Driver
from tests.peer import Peer, request

Drive = Callable[..., Driver]


def test_many_connections_at_once_are_all_accepted(drive: Drive) -> None:
    driver = drive()
    peers = [driver.dial() for _ in range(200)]
    for peer in peers:
        peer.say(request())
    driver.until(lambda: all(peer.is_upgraded for peer in peers))
    assert driver.count("connections_open") == driver.count("connections_accepted") == 200


def test_several_listeners_are_served(drive: Drive) -> None:
    driver = drive()
    addresses = [driver.listen() for _ in range(3)]
    for address in addresses:
        peer = Peer(socket.create_connection(address))
        driver.peers.append(peer)
        peer.say(request())
        driver.until(lambda peer=peer: peer.is_upgraded)


def test_after_stop_listening_nothing_is_accepted_and_the_listener_stays_open(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    driver.engine.stop_listening()
    waiting = driver.dial()
    waiting.say(request())
    driver.rest()
    assert not waiting.is_upgraded
    assert driver.listeners[0].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    peer.text("still served")
    driver.until(lambda: driver.named("on_message"))
    driver.engine.listen(driver.listeners[0].fileno())
    driver.until(lambda: waiting.is_upgraded)


def test_one_listener_of_several_can_be_given_up(drive: Drive) -> None:
    driver = drive()
    driver.listen()
    other = driver.listen()
    peer = driver.connect()
    driver.engine.unlisten(driver.listeners[0].fileno())
    driver.engine.unlisten(driver.listeners[0].fileno())  # it is not listened to any more
    waiting = driver.dial()
    waiting.say(request())
    served = Peer(socket.create_connection(other))
    driver.peers.append(served)
    served.say(request())
    driver.until(lambda: served.is_upgraded)
    driver.rest()
    assert not waiting.is_upgraded
    assert driver.listeners[0].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    peer.text("still served")
    driver.until(lambda: driver.named("on_message"))
    driver.engine.listen(driver.listeners[0].fileno())
    driver.until(lambda: waiting.is_upgraded)


def test_a_listener_that_was_shut_down_is_given_up_by_itself(drive: Drive) -> None:
    driver = drive()
    driver.listen()
    driver.rest()
    driver.listeners[0].shutdown(socket.SHUT_RDWR)
    driver.rest()
    driver.engine.unlisten(driver.listeners[0].fileno())
    driver.rest()


def test_connections_over_the_limit_are_closed_at_once(drive: Drive) -> None:
    driver = drive(max_connections=3)
    peers = [driver.connect() for _ in range(3)]
    surplus = driver.dial()
    driver.ended(surplus)
    assert surplus.head == b""
    driver.rest()
    assert (driver.count("connections_refused"), driver.count("closes_limit"), driver.count("connections_open")) == (1, 1, 3)
    peers[0].close()
    driver.until(lambda: driver.count("connections_open") == 2)
    driver.connect()


@pytest.fixture
def use_up() -> Iterator[Callable[[], Callable[[], None]]]:
    """Takes every descriptor of this process that is free, and gives what gives them back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    gaps: list[socket.socket] = []

    def give_back() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        while gaps:
            gaps.pop().close()

    def take() -> Callable[[], None]:
        highest = max(int(entry.split()[0]) for entry in open_descriptors())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        try:
            while True:
                gaps.append(socket.socket())
        except OSError:
            return give_back

    yield take
    give_back()


def test_running_out_of_descriptors_pauses_accepting_with_one_line(drive: Drive, use_up: Callable[[], Callable[[], None]]) -> None:
    driver = drive()
    first = driver.connect()
    waiting = [driver.dial() for _ in range(5)]
    for peer in waiting:
        peer.say(request())
    give_back = use_up()
    for _ in range(20):
        driver.turn()
    assert len(driver.front.pauses) == 1
    assert driver.count("accept_pauses") == 1
    assert not any(peer.is_upgraded for peer in waiting)
    first.text("still served")
    driver.until(lambda: driver.named("on_message") == ["still served"])
    first.close()  # its descriptors, ours and the client's, go to those who wait
    driver.until(lambda: sum(peer.is_upgraded for peer in waiting) == 2)
    assert len(driver.front.pauses) == 1
    give_back()
    driver.until(lambda: all(peer.is_upgraded for peer in waiting), ticking=True)  # a second later, by itself
    assert len(driver.front.pauses) == 1


def test_a_connection_inherited_by_a_forked_child_still_ends(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    duplicates: list[Any] = [socket.socket(fileno=fd) for fd in duplicated_connections()]
    try:
        connection.abort()
        driver.ended(peer)
    finally:
        for duplicate in duplicates:
            duplicate.close()


def duplicated_connections() -> list[int]:
    """Duplicates of every socket of this process, as a fork makes them."""
    return [os.dup(int(entry.split()[0])) for entry in open_descriptors() if "socket:" in entry]
