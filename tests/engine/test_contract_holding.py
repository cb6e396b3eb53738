"""Hold and release, stall and unstall: what async and blocking handlers stand on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import PING, PONG, TEXT, Frame, pack, pack_close, request
from unlimitedws.engine.contract import MESSAGES_PER_TURN
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]


class Holder:
    """An on_message that holds its connection at each message, as a coroutine would."""

    def __init__(self, drive: Drive, **given: Any) -> None:
        self.messages: list[Any] = []
        self.held: list[Any] = []
        self.driver = drive(on_message=self.on_message, **given)

    def on_message(self, connection: Any, message: Any) -> None:
        self.messages.append(message)
        self.held.append(connection)
        self.driver.engine.hold(connection)

    def release(self) -> None:
        self.driver.engine.release(self.held.pop(0))


def test_a_held_connection_handles_nothing_until_its_release(drive: Drive) -> None:
    holder = Holder(drive)
    driver = holder.driver
    peer = driver.connect()
    peer.say(pack(TEXT, b"1") + pack(TEXT, b"2") + pack(TEXT, b"3") + pack(TEXT, b"half")[:7])
    driver.until(lambda: holder.messages == ["1"])
    driver.rest()
    peer.say(pack(TEXT, b"half")[7:] + pack(TEXT, b"5"))
    driver.rest()
    for count in range(1, 6):
        assert len(holder.messages) == count
        holder.release()
        driver.rest()
    assert holder.messages == ["1", "2", "3", "half", "5"]


def test_holds_nest(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    driver.engine.hold(connection)
    driver.engine.hold(connection)
    peer.text("a")
    driver.rest()
    driver.engine.release(connection)
    driver.rest()
    assert driver.named("on_message") == []
    driver.engine.release(connection)
    driver.until(lambda: driver.named("on_message") == ["a"])
    with pytest.raises(RuntimeError):
        driver.engine.release(connection)


def test_a_hold_in_on_connect_keeps_back_the_frames_that_came_with_the_request(drive: Drive) -> None:
    held: list[Any] = []

    def hold(connection: Any) -> None:
        held.append(connection)
        driver.engine.hold(connection)

    driver = drive(on_connect=hold)
    peer = driver.dial()
    peer.say(request() + pack(TEXT, b"1") + pack(TEXT, b"2"))
    driver.until(lambda: peer.is_upgraded)
    peer.text("3")
    driver.rest()
    assert driver.named("on_message") == []
    driver.engine.release(held[0])
    driver.until(lambda: driver.named("on_message") == ["1", "2", "3"])


def test_a_release_inside_another_connections_handler_is_fine(drive: Drive) -> None:
    held: list[Any] = []
    messages: list[str] = []

    def on_message(connection: Any, message: str) -> None:
        messages.append(message)
        if message == "hold":
            held.append(connection)
            driver.engine.hold(connection)
        elif message == "release":
            driver.engine.release(held.pop())
            messages.append("still inside")

    driver = drive(on_message=on_message)
    first, second = driver.connect(), driver.connect()
    first.say(pack(TEXT, b"hold") + pack(TEXT, b"after"))
    driver.until(lambda: held)
    second.text("release")
    driver.until(lambda: len(messages) == 4)
    assert messages == ["hold", "release", "still inside", "after"]


def test_a_release_inside_the_own_handler_goes_on_after_it(drive: Drive) -> None:
    order: list[str] = []

    def on_message(connection: Any, message: str) -> None:
        order.append(message)
        driver.engine.hold(connection)
        driver.engine.release(connection)
        order.append("end of " + message)

    driver = drive(on_message=on_message)
    peer = driver.connect()
    peer.say(pack(TEXT, b"1") + pack(TEXT, b"2"))
    driver.until(lambda: len(order) == 4)
    assert order == ["1", "end of 1", "2", "end of 2"]


def test_answers_of_a_held_connection_leave_before_the_answer_to_a_close_behind_it(drive: Drive) -> None:
    holder = Holder(drive)
    driver = holder.driver
    peer = driver.connect()
    peer.say(pack(TEXT, b"question") + pack_close(1000))
    driver.until(lambda: holder.held)
    driver.rest()
    assert holder.held[0].send("answer") is True
    holder.release()
    driver.ended(peer)
    assert peer.messages == ["answer"]
    assert peer.closed_with == (1000, "")


def test_on_close_of_a_held_connection_follows_the_release(drive: Drive) -> None:
    holder = Holder(drive)
    driver = holder.driver
    peer = driver.connect()
    peer.text("a")
    driver.until(lambda: holder.held)
    peer.reset()
    driver.until(lambda: not holder.held[0].is_open)
    driver.rest()
    assert driver.named("on_close") == []
    assert holder.held[0].send("anybody") is False
    holder.release()
    driver.until(lambda: driver.named("on_close") == [Close(1006, "", Cause.PEER_RESET, False)])


def test_an_end_behind_kept_messages_comes_after_them(drive: Drive) -> None:
    holder = Holder(drive)
    driver = holder.driver
    peer = driver.connect()
    peer.say(pack(TEXT, b"1") + pack(TEXT, b"2"))
    peer.end()
    driver.until(lambda: holder.messages == ["1"])
    driver.rest()
    holder.release()
    driver.until(lambda: holder.messages == ["1", "2"])
    driver.rest()
    holder.release()
    driver.until(lambda: driver.named("on_close") == [Close(1006, "", Cause.PEER_EOF, False)])


def test_fail_of_a_held_connection_gives_on_close_after_the_release(drive: Drive) -> None:
    holder = Holder(drive)
    driver = holder.driver
    peer = driver.connect()
    peer.say(pack(TEXT, b"1") + pack(TEXT, b"2"))
    driver.until(lambda: holder.held)
    driver.engine.fail(holder.held[0], "on_message", ValueError())
    driver.until(lambda: peer.closed_with == (1011, ""))
    assert driver.named("on_close") == []
    holder.release()
    driver.until(lambda: driver.named("on_close") == [Close(1011, "", Cause.HANDLER_ERROR, False)])
    assert holder.messages == ["1"]


def test_a_held_connection_may_be_closed_and_its_waiting_messages_are_thrown_away(drive: Drive) -> None:
    holder = Holder(drive)
    driver = holder.driver
    peer = driver.connect()
    peer.say(pack(TEXT, b"1") + pack(TEXT, b"2") + pack(TEXT, b"3"))
    driver.until(lambda: holder.held)
    holder.held[0].close(4000, "")
    driver.until(lambda: peer.closed_with)
    peer.say(pack(TEXT, b"4") + pack_close(4000))
    driver.ended(peer)
    assert driver.named("on_close") == []
    holder.release()
    driver.until(lambda: driver.named("on_close") == [Close(4000, "", Cause.APP_CLOSED, True)])
    assert holder.messages == ["1"]


def test_their_close_behind_waiting_messages_is_found_after_our_close(drive: Drive) -> None:
    holder = Holder(drive)
    driver = holder.driver
    peer = driver.connect()
    peer.say(pack(TEXT, b"1") + pack(TEXT, b"2") + pack_close(1001))
    driver.until(lambda: holder.held)
    holder.held[0].close(4000, "")
    driver.ended(peer)
    holder.release()
    driver.until(lambda: driver.named("on_close") == [Close(4000, "", Cause.APP_CLOSED, True)])


def test_a_flood_at_a_held_connection_stays_in_the_kernel(drive: Drive) -> None:
    holder = Holder(drive)
    driver = holder.driver
    peer = driver.connect()
    peer.text("first")
    driver.until(lambda: holder.held)
    said = 0
    chunk = pack(TEXT, b"x" * 1000) * 64
    while True:
        try:
            sent = peer.socket.send(chunk)
        except BlockingIOError:
            break
        said += sent
        driver.turn()
        if sent < len(chunk):
            break
    assert said > 200_000
    assert driver.count("bytes_in") < 200_000


def test_on_drain_is_called_even_while_held(drive: Drive) -> None:
    drained: list[Any] = []
    driver = drive(on_drain=drained.append, sndbuf_bytes=4096, low_water_bytes=8192, high_water_bytes=32768)
    driver.connect(receive_bytes=4096)
    connection = driver.only
    driver.engine.hold(connection)
    while connection.send(b"x" * 1000):
        pass
    driver.until(lambda: drained)
    driver.engine.release(connection)


def test_a_stalled_endpoint_takes_no_messages_and_others_do(drive: Drive) -> None:
    first: list[str] = []
    second: list[str] = []
    driver = drive(
        {"on_message": lambda connection, message: first.append(message)},
        {"on_message": lambda connection, message: second.append(message)},
    )
    stalled, free = driver.connect("/"), driver.connect("/other")
    driver.engine.stall(0)
    stalled.say(pack(TEXT, b"waits") + pack(PING, b"waits too"))
    free.text("goes")
    driver.until(lambda: second == ["goes"])
    driver.rest()
    assert first == []
    driver.engine.unstall(0)
    driver.until(lambda: first == ["waits"])
    driver.until(lambda: stalled.frames == [Frame(PONG, b"waits too")])


def test_a_stall_takes_effect_at_once_and_the_waiting_go_on_in_their_order(drive: Drive) -> None:
    taken: list[str] = []

    def on_message(connection: Any, message: str) -> None:
        taken.append(message)
        driver.engine.stall(0)

    driver = drive(on_message=on_message)
    peers = [driver.connect() for _ in range(3)]
    for number, peer in enumerate(peers):
        peer.say(pack(TEXT, b"%d first" % number) + pack(TEXT, b"%d second" % number))
        driver.rest()
    assert taken == ["0 first"]
    for count in range(2, 7):
        driver.engine.unstall(0)
        driver.until(lambda count=count: len(taken) == count)
        driver.rest()
        assert len(taken) == count
    assert [message for message in taken if message[0] == "1"] == ["1 first", "1 second"]
    assert sorted(taken[1:4]) == ["0 second", "1 first", "2 first"]
    assert taken[1:4].index("1 first") < taken[1:4].index("2 first")


def test_a_stalled_connection_that_leaves_is_forgotten(drive: Drive) -> None:
    driver = drive()
    peer, other = driver.connect(), driver.connect()
    driver.engine.stall(0)
    peer.text("never")
    driver.rest()
    peer.reset()
    driver.until(lambda: driver.named("on_close"))
    other.text("later")
    driver.rest()
    driver.engine.unstall(0)
    driver.until(lambda: driver.named("on_message") == ["later"])


def test_more_than_one_turns_messages_all_come(drive: Drive) -> None:
    count = MESSAGES_PER_TURN * 3 + 1
    driver = drive()
    peer = driver.connect()
    peer.say(b"".join(pack(TEXT, b"%d" % i) for i in range(count)))
    driver.until(lambda: len(driver.named("on_message")) == count)
    assert driver.named("on_message") == [str(i) for i in range(count)]
