"""Handlers: which are called, when, and with what."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import BINARY, TEXT, Peer, pack, pack_close, request
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]


def echo(connection: Any, message: str | bytes) -> None:
    connection.send(message)


def test_on_connect_then_messages_in_order_then_on_close_once(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.text("one")
    peer.say(pack(BINARY, b"two") + pack(TEXT, b"three") + pack_close(1000, "bye"))
    driver.ended(peer)
    id = 7 << 40 | 1
    assert driver.calls == [
        ("on_connect", id, None),
        ("on_message", id, "one"),
        ("on_message", id, b"two"),
        ("on_message", id, "three"),
        ("on_close", id, Close(1000, "bye", Cause.PEER_CLOSED, True)),
    ]


def test_no_handler_is_called_for_a_connection_that_did_not_finish_its_handshake(drive: Drive) -> None:
    driver = drive()
    for say in (b"GET / HTTP/1.1\r\n", b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"):
        peer = driver.dial()
        peer.say(say)
        peer.end()
        driver.ended(peer)
    assert driver.calls == []
    assert driver.count("handshake_failures") == 2
    assert driver.count("connections_accepted") == 2


def test_missing_handlers_do_nothing(drive: Drive) -> None:
    driver = drive({"on_connect": None, "on_message": None, "on_close": None, "on_drain": None})
    peer = driver.connect()
    peer.text("nobody hears")
    peer.say(pack_close(1000))
    driver.ended(peer)
    assert peer.closed_with == (1000, "")
    assert driver.count("messages_in") == 1


def test_messages_are_echoed_as_the_type_they_came(drive: Drive) -> None:
    driver = drive(on_message=echo)
    peer = driver.connect()
    for message in ("", "déjà vu", b"", b"\x00\xff" * 100, "x" * 125, "x" * 126, b"x" * 65535, b"y" * 65536):
        peer.frames.clear()
        peer.say(pack(TEXT, message.encode()) if isinstance(message, str) else pack(BINARY, message))
        driver.until(lambda: peer.messages)
        assert peer.messages == [message]


def test_each_endpoint_has_its_own_handlers(drive: Drive) -> None:
    driver = drive(
        {"on_message": lambda connection, message: connection.send("first " + message)},
        {"on_message": lambda connection, message: connection.send("second " + message)},
    )
    for path, answer in (("/", "first hello"), ("/other", "second hello")):
        peer = driver.connect(path)
        peer.text("hello")
        driver.until(lambda peer=peer: peer.messages)
        assert peer.messages == [answer]


def test_what_on_connect_sends_follows_the_handshake_in_the_same_segment(drive: Drive) -> None:
    driver = drive(on_connect=lambda connection: connection.send("welcome"))
    peer = driver.dial()
    peer.say(request())
    driver.until(lambda: driver.count("connections_open"), reading=False)
    driver.until(lambda: peer.read(4096))
    assert peer.messages == ["welcome"]


def test_ids_count_from_one_below_the_serial(drive: Drive) -> None:
    driver = drive()
    for _ in range(3):
        driver.connect()
    assert [id for _, id, _ in driver.calls] == [7 << 40 | count for count in (1, 2, 3)]


def test_a_held_object_is_the_object_of_every_call(drive: Drive) -> None:
    held: list[Any] = []
    driver = drive(
        on_connect=held.append, on_message=lambda connection, message: held.append(connection), on_close=lambda c, close: held.append(c)
    )
    peer = driver.connect()
    peer.text("a")
    peer.text("b")
    driver.until(lambda: len(held) == 3)
    held.append(driver.only)
    peer.say(pack_close(1000))
    driver.until(lambda: len(held) == 5)
    assert all(connection is held[0] for connection in held)


def test_an_object_first_kept_by_on_message_stays_the_same(drive: Drive) -> None:
    held: list[Any] = []
    driver = drive(on_message=lambda connection, message: held.append(connection), on_connect=None)
    peer = driver.connect()
    peer.text("a")
    driver.until(lambda: held)
    peer.text("b")
    driver.until(lambda: len(held) == 2)
    assert held[0] is held[1] is driver.only


def test_inside_a_handler_connections_gives_the_object_in_hand(drive: Drive) -> None:
    same: list[bool] = []
    driver = drive(on_message=lambda connection, message: same.append(driver.engine.connections()[0] is connection))
    driver.connect().text("a")
    assert driver.until(lambda: same) == [True]


def test_no_object_is_kept_for_an_idle_connection(drive: Drive) -> None:
    seen: list[Any] = []
    driver = drive(
        on_connect=lambda connection: seen.append(weakref.ref(connection)),
        on_message=lambda connection, message: seen.append(weakref.ref(connection)),
    )
    driver.connect().text("a")
    driver.until(lambda: len(seen) == 2)
    gc.collect()
    assert [reference() for reference in seen] == [None, None]


def test_state_keeps_the_object_until_the_close(drive: Drive) -> None:
    seen: list[Any] = []

    def count(connection: Any, message: str) -> None:
        connection.state = (connection.state or 0) + 1
        seen.append((connection.state, weakref.ref(connection)))

    driver = drive(on_message=count, on_close=lambda connection, close: seen.append((connection.state, weakref.ref(connection))))
    peer = driver.connect()
    for _ in range(2):
        peer.text("a")
    driver.until(lambda: len(seen) == 2)
    gc.collect()
    assert [state for state, _ in seen] == [1, 2]
    assert seen[0][1]() is seen[1][1]() is not None
    peer.say(pack_close(1000))
    driver.until(lambda: len(seen) == 3)
    assert seen[2][0] == 2
    driver.rest()
    gc.collect()
    assert seen[0][1]() is None


def test_state_set_to_none_lets_the_object_go(drive: Drive) -> None:
    driver = drive()
    driver.connect()
    connection = driver.only
    connection.state = {"a": 1}
    connection.state = None
    reference = weakref.ref(connection)
    del connection
    gc.collect()
    assert reference() is None


def test_attributes_of_an_open_connection(drive: Drive) -> None:
    driver = drive()
    driver.front.subprotocols = ("chat", "echo")
    peer = driver.connect("/d%C3%A9j%C3%A0?query=1", "Sec-WebSocket-Protocol: echo, chat")
    connection = driver.only
    assert connection.path == "/déjà"
    assert connection.subprotocol == "chat"
    assert b"Sec-WebSocket-Protocol: chat\r\n" in peer.head
    assert connection.remote_address == peer.socket.getsockname()
    assert connection.is_open
    assert connection.queued_bytes == 0
    assert connection.state is None


def test_attributes_stay_valid_after_the_close(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect("/other")
    connection = driver.only
    connection.state = "mine"
    address = peer.socket.getsockname()
    peer.say(pack_close(1000))
    driver.ended(peer)
    driver.connect()  # the descriptor may serve another one now
    assert (connection.id, connection.path, connection.subprotocol) == (7 << 40 | 1, "/other", None)
    assert (connection.remote_address, connection.state) == (address, "mine")
    assert not connection.is_open
    assert connection.queued_bytes == 0
    assert connection.send("too late") is False
    connection.close()
    connection.abort()
    connection.ping()


def test_remote_address_of_ipv6(drive: Drive) -> None:
    driver = drive()
    try:
        driver.listen(socket.AF_INET6, ("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 on its loopback interface")
    peer = driver.connect()
    assert driver.only.remote_address == ("::1", peer.socket.getsockname()[1])


def test_remote_address_of_a_unix_socket_without_a_name_is_unix(drive: Drive, tmp_path: Path) -> None:
    driver = drive()
    driver.listen(socket.AF_UNIX, str(tmp_path / "socket"))
    driver.connect()
    assert driver.only.remote_address == "unix"


@pytest.mark.parametrize("hook", ["on_connect", "on_message"])
def test_a_handler_that_raises_is_reported_and_closes_with_1011(drive: Drive, hook: str) -> None:
    error = RuntimeError("a bug of the app")

    def fail(*arguments: Any) -> None:
        raise error

    driver = drive(**{hook: fail})
    peer = driver.dial()
    peer.say(request() + pack(TEXT, b"a") + pack(TEXT, b"b"))
    driver.ended(peer)
    assert peer.closed_with == (1011, "")
    assert driver.named("on_close") == [Close(1011, "", Cause.HANDLER_ERROR, False)]
    assert [(name, raised) for _, name, raised in driver.front.failed] == [(hook, error)]
    assert (driver.count("handler_errors"), driver.count("closes_handler_error")) == (1, 1)
    driver.connect()  # the worker lives


def test_what_a_failing_handler_sent_before_still_arrives(drive: Drive) -> None:
    def send_and_fail(connection: Any, message: str) -> None:
        connection.send("before")
        raise ValueError

    driver = drive(on_message=send_and_fail)
    peer = driver.connect()
    peer.text("a")
    driver.ended(peer)
    assert peer.messages == ["before"]
    assert peer.closed_with == (1011, "")


def test_an_on_close_that_raises_is_reported_and_harms_nobody(drive: Drive) -> None:
    def fail(connection: Any, close: Close) -> None:
        raise RuntimeError

    driver = drive(on_close=fail)
    peer = driver.connect()
    peer.say(pack_close(1000))
    driver.ended(peer)
    assert [name for _, name, _ in driver.front.failed] == ["on_close"]
    assert driver.count("handler_errors") == 1
    assert driver.count("closes_handler_error") == 0


def test_a_system_exit_in_a_handler_does_not_get_out(drive: Drive) -> None:
    def leave(connection: Any, message: str) -> None:
        raise SystemExit(1)

    driver = drive(on_message=leave)
    peer = driver.connect()
    peer.text("a")
    driver.ended(peer)
    assert peer.closed_with == (1011, "")


def test_fail_from_outside_is_as_if_the_handler_had_raised_inside(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    error = KeyError("in a coroutine")
    driver.engine.fail(driver.only, "on_message", error)
    driver.ended(peer)
    assert peer.closed_with == (1011, "")
    assert [(name, raised) for _, name, raised in driver.front.failed] == [("on_message", error)]
    assert driver.named("on_close") == [Close(1011, "", Cause.HANDLER_ERROR, False)]


def test_fail_of_a_closed_connection_is_reported_and_counted_only(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    peer.say(pack_close(1000))
    driver.ended(peer)
    driver.engine.fail(connection, "on_message", KeyError())
    driver.rest()
    assert len(driver.front.failed) == driver.count("handler_errors") == 1
    assert len(driver.named("on_close")) == 1


def test_a_chatty_peer_does_not_starve_another(drive: Drive) -> None:
    order: list[str] = []
    driver = drive(on_message=lambda connection, message: order.append(message))
    chatty, quiet = driver.connect(), driver.connect()
    chatty.say(pack(TEXT, b"c") * 2000)
    quiet.text("q")
    driver.until(lambda: len(order) == 2001)
    assert order.index("q") <= 512


def test_run_returns_while_a_peer_goes_on_talking(drive: Drive) -> None:
    driver = drive(on_message=lambda connection, message: talk.say(pack(TEXT, b"more")))
    talk: Peer = driver.connect()
    talk.text("first")
    driver.until(lambda: driver.count("messages_in") >= 100)
    driver.engine.run()
    assert driver.count("messages_in") < 100_000


def test_counters_of_an_echo(drive: Drive) -> None:
    driver = drive(on_message=echo)
    peer = driver.connect()
    said = driver.count("bytes_in")
    assert said == len(request())
    assert driver.count("bytes_out") == len(peer.head)
    peer.text("hello")
    driver.until(lambda: peer.messages)
    driver.rest()
    assert driver.count("bytes_in") == said + 11
    assert driver.count("bytes_out") == len(peer.head) + 7
    for name, value in {
        "connections_open": 1, "connections_accepted": 1, "connections_opened": 1, "handshakes_pending": 0, "messages_in": 1,
        "messages_out": 1, "queued_bytes": 0, "handler_errors": 0, "connections_refused": 0, "handshake_failures": 0,
    }.items():  # fmt: skip
        assert driver.count(name) == value, name
