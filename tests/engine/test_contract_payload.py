"""A message is its handler's for as long as the handler keeps it, whatever comes after it in the same input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import BINARY, TEXT, Peer, pack

Drive = Callable[..., Driver]

BINARIES = [bytes((number,)) * 32 for number in range(8)]
TEXTS = [chr(ord("a") + number) * 32 for number in range(8)]


def pipelined(*messages: str | bytes) -> bytes:
    return b"".join(pack(TEXT, m.encode()) if isinstance(m, str) else pack(BINARY, m) for m in messages)


def deliver(drive: Drive, handler: Callable[[Any, Any], object], *messages: str | bytes) -> Peer:
    """Sends all messages in one segment to a handler that answers each with one message."""
    driver = drive(on_message=handler)
    peer = driver.connect()
    peer.say(pipelined(*messages))
    driver.until(lambda: len(peer.messages) == len(messages))
    return peer


@pytest.mark.parametrize("messages", [BINARIES, TEXTS])
def test_messages_that_a_handler_keeps_stay_as_they_were(drive: Drive, messages: list[Any]) -> None:
    kept: list[Any] = []

    def keep(connection: Any, message: Any) -> None:
        kept.append(message)
        connection.send("")

    deliver(drive, keep, *messages)
    assert kept == messages


@pytest.mark.parametrize("messages", [BINARIES, TEXTS])
def test_a_message_has_its_own_hash(drive: Drive, messages: list[Any]) -> None:
    numbers = {message: number for number, message in enumerate(messages)}
    deliver_back = deliver(drive, lambda connection, message: connection.send(str(numbers[message])), *messages)
    assert deliver_back.messages == [str(number) for number in range(len(messages))]


def test_a_view_of_a_message_keeps_its_bytes(drive: Drive) -> None:
    views: list[memoryview] = []

    def keep(connection: Any, message: bytes) -> None:
        views.append(memoryview(message)[4:8])
        connection.send("")

    deliver(drive, keep, *BINARIES)
    assert [bytes(view) for view in views] == [message[4:8] for message in BINARIES]


def test_interned_text_stays_what_it_is(drive: Drive) -> None:
    def intern(connection: Any, message: str) -> None:
        sys.intern(message)
        connection.send("")

    deliver(drive, intern, *TEXTS)
    assert [sys.intern("".join(list(text))) for text in TEXTS] == TEXTS


def test_text_of_all_kinds_may_follow_each_other(drive: Drive) -> None:
    mixed = ["a" * 9, "é" * 4 + "e", "b" * 9, "€" * 3, "c" * 9, "", "x", "y", "d" * 9]
    assert deliver(drive, lambda connection, message: connection.send(message), *mixed).messages == mixed


def test_messages_of_no_and_of_one_byte_are_left_alone(drive: Drive) -> None:
    short: list[str | bytes] = [b"", b"", b"a", b"b", b"a", "", "", "a", "b", "a"]
    assert deliver(drive, lambda connection, message: connection.send(message), *short).messages == short
    assert bytes([97]) == b"a"
    assert chr(98) == "b"
