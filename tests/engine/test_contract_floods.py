"""Floods of Pings and Pongs: read on only when the clock hand has come by, so that TCP makes the peer wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engine.driver import Driver
from tests.peer import PING, PONG, TEXT, Frame, Peer, pack, pack_close
from unlimitedws.engine.contract import CONTROLS_PER_S
from unlimitedws.wire.closing import Cause

Drive = Callable[..., Driver]

kinds = pytest.mark.parametrize("kind", [PING, PONG], ids=["pings", "pongs"])


def flooding(drive: Drive, kind: int = PING, **given: object) -> tuple[Driver, Peer]:
    """A client of whom the engine wants to hear no more for now."""
    driver = drive(**given)
    peer = driver.connect()
    peer.say(pack(kind, b"?") * (CONTROLS_PER_S + 1))
    driver.rest()
    return driver, peer


@kinds
def test_a_flood_is_not_read_until_the_clock_hand_comes_by(drive: Drive, kind: int) -> None:
    driver, peer = flooding(drive, kind)
    peer.say(pack(TEXT, b"later"))
    driver.rest()
    assert driver.named("on_message") == []
    driver.sweep()
    driver.until(lambda: driver.named("on_message") == ["later"])


@kinds
def test_as_many_as_allowed_are_no_flood(drive: Drive, kind: int) -> None:
    driver = drive()
    peer = driver.connect()
    for _ in range(3):
        peer.say(pack(kind, b"?") * CONTROLS_PER_S + pack(TEXT, b"and on"))
        driver.rest()
        driver.sweep()
    assert driver.named("on_message") == ["and on"] * 3


def test_what_was_read_with_a_flood_is_handled(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack(PING, b"?") * (2 * CONTROLS_PER_S) + pack(TEXT, b"in the same segment") + pack(PING, b"last"))
    driver.until(lambda: driver.named("on_message") and peer.frames and peer.frames[-1] == Frame(PONG, b"last"))
    driver.rest()
    assert driver.count("buffers_held") == 0  # nothing of it waits in memory


def test_a_flood_that_goes_on_is_read_in_portions(drive: Drive) -> None:
    driver, peer = flooding(drive)
    before = driver.count("bytes_in")
    for _ in range(3):
        peer.say(pack(PING, b"?") * (CONTROLS_PER_S + 1))
        driver.rest()
        assert driver.count("bytes_in") == before
        driver.sweep()
        driver.rest()
        assert driver.count("bytes_in") > before
        before = driver.count("bytes_in")


def test_others_are_served_meanwhile(drive: Drive) -> None:
    driver, _ = flooding(drive)
    other = driver.connect()
    other.say(pack(TEXT, b"served"))
    driver.until(lambda: driver.named("on_message") == ["served"])


def test_a_flooder_can_be_sent_to_and_closed(drive: Drive) -> None:
    driver, peer = flooding(drive)
    driver.only.send("still there")
    driver.until(lambda: "still there" in peer.messages)
    driver.only.close(1008, "enough")
    driver.until(lambda: peer.closed_with == (1008, "enough"))
    peer.say(pack_close(1008))
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_close")[0].clean


def test_a_flooder_that_leaves_is_noticed(drive: Drive) -> None:
    driver, peer = flooding(drive)
    peer.end()
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_close")[0].cause == Cause.PEER_EOF


def test_a_flooder_that_resets_is_noticed(drive: Drive) -> None:
    driver, peer = flooding(drive)
    peer.reset()
    driver.until(lambda: driver.named("on_close"), reading=False)
    assert driver.named("on_close")[0].cause == Cause.PEER_RESET


def test_a_flooder_that_was_held_is_not_read_when_it_is_released(drive: Drive) -> None:
    driver, peer = flooding(drive)
    connection = driver.only
    driver.engine.hold(connection)
    peer.say(pack(TEXT, b"later"))
    driver.rest()
    driver.engine.release(connection)
    driver.rest()
    assert driver.named("on_message") == []
    driver.sweep()
    driver.until(lambda: driver.named("on_message") == ["later"])


def test_a_flood_while_held_waits_for_the_release(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    driver.engine.hold(connection)
    peer.say(pack(PING, b"?") * (2 * CONTROLS_PER_S) + pack(TEXT, b"behind"))
    driver.rest()
    driver.sweep()
    assert driver.named("on_message") == []
    driver.engine.release(connection)
    driver.until(lambda: driver.named("on_message") == ["behind"])
