"""Messages and descriptors between two ends."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from unlimitedws.supervisor.channel import Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    messages = [{"n": n, "text": "é" * 10 * n} for n in range(20)]
    assert all(one.send(message) for message in messages)
    assert [other.receive() for _ in messages] == [(message, []) for message in messages]


def test_descriptors_travel_with_their_message_and_are_not_inherited(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    readable, writable = os.pipe()
    assert one.send({"pipe": True}, [writable])
    received = other.receive()
    assert received is not None
    message, fds = received
    assert message == {"pipe": True}
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"through")
    assert os.read(readable, 10) == b"through"
    for fd in (readable, writable, *fds):
        os.close(fd)


def test_the_end_of_the_other_process_is_none(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send({"last": "words"})
    one.close()
    assert other.receive() == ({"last": "words"}, [])
    assert other.receive() is None
    assert not other.send({"anybody": "there"})


def test_nothing_to_read_does_not_block(ends: tuple[Channel, Channel]) -> None:
    one, _ = ends
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        one.receive()


def test_a_look_without_waiting_takes_what_is_there_and_does_not_block(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    other.send({"already": "there"})
    assert one.receive(wait=False) == ({"already": "there"}, [])
    with pytest.raises(BlockingIOError):
        one.receive(wait=False)


def test_an_end_can_be_adopted_from_its_descriptor(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    adopted = Channel.adopt(os.dup(other.fileno()))
    one.send({"to": "adopted"})
    assert adopted.receive() == ({"to": "adopted"}, [])
    adopted.close()


def test_an_end_that_nobody_empties_refuses_instead_of_blocking(ends: tuple[Channel, Channel]) -> None:
    one, _ = ends
    one.setblocking(False)
    sent = 0
    while one.send({"filler": "x" * 1000}):
        sent += 1
    assert sent > 10
