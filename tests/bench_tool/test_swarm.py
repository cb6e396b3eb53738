"""The loop over connections, in this process, against servers that say exactly the bytes they are told to."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.bench_tool.tool import LIMIT_S, frame, frames, raw_server, switching, upgraded
from tests.peer import BINARY, CLOSE, PING, PONG, TEXT
from tests.serving import eventually
from unlimitedws.bench.board import ROW_BYTES, Row
from unlimitedws.bench.crew import pattern
from unlimitedws.bench.swarm import PATTERN_EXTRA, PEER_BYTES, Swarm
from unlimitedws.bench.target import parse, words


@contextmanager
def swarm(url: str, size: int = 1, **given: Any) -> Iterator[tuple[Swarm, Row]]:
    """A swarm for this server, with the descriptors it has taken given back at the end."""
    target, row = parse(url), Row(bytearray(ROW_BYTES), 0)
    said = words(target)
    before = len(os.listdir("/proc/self/fd"))
    made = Swarm(
        row, size, **{
            "first_number": 0, "requests": said.requests, "accepts": said.accepts, "offered": b"", "targets": [target.packed],
            "sources": [], "pattern": pattern(PATTERN_EXTRA + 100), "message_bytes": 20, "opcode": TEXT,
            "pipeline": 1, "timeout_s": 60.0, **given,
        },
    )  # fmt: skip
    try:
        yield made, row
    finally:
        made.close()
        # The server's threads give theirs back when they notice.
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "descriptors were left")


def turn_until(swarm: Swarm, done: Callable[[], Any], what: str = "it did not happen") -> None:
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline, what
        swarm.turn(time.monotonic_ns() + 5_000_000)


def test_frames_are_masked_by_a_new_key_each_and_answers_are_taken() -> None:
    keys, payloads = [], []

    def echo(peer: socket.socket) -> None:
        upgraded(peer)
        for opcode, key, payload in frames(peer):
            keys.append(key)
            payloads.append(payload)
            peer.sendall(frame(opcode, payload))

    with raw_server(echo) as url, swarm(url) as (made, row):
        made.dial(0, 1, 1)
        turn_until(made, lambda: row.counters["up"])
        made.flood()
        turn_until(made, lambda: row.counters["answered"] >= 200)
    assert len(set(keys)) > 190
    assert len(set(payloads)) > 150
    assert row.counters["wrong_content"] == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_what_comes_in_pieces_is_put_together_wherever_it_is_cut(size: int) -> None:
    ready = threading.Event()

    def pieces(peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = peer.recv(4096)
        key = next(line.partition(b": ")[2] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
        answer = switching(key) + frame(TEXT, b"welcome") + frame(PING, b"p" * 125)
        for at in range(0, len(answer), size):
            peer.sendall(answer[at : at + size])
        messages = frames(peer)
        assert next(messages)[::2] == (PONG, b"p" * 125)
        ready.set()
        opcode, _, payload = next(messages)
        answer = frame(opcode, payload[:3], fin=False) + frame(PING, b"x") + frame(0, payload[3:])
        for at in range(0, len(answer), size):
            peer.sendall(answer[at : at + size])
        assert [opcode for opcode, _, _ in messages] == [PONG]  # up to their end: to leave what they say unread would reset them

    with raw_server(pieces) as url, swarm(url) as (made, row):
        made.dial(0, 1, 1)
        turn_until(made, ready.is_set)
        made.flood()
        turn_until(made, lambda: row.counters["answered"])
    counters = row.counters
    assert (counters["other"], counters["pings"], counters["wrong_content"], counters["protocol_errors"]) == (1, 2, 0, 0)


def test_pongs_answer_pings_that_ask_and_others_are_let_be() -> None:
    def ponging(peer: socket.socket) -> None:
        upgraded(peer)
        peer.sendall(frame(PONG, b"nobody asked"))
        for opcode, _, payload in frames(peer):
            assert opcode == PING
            peer.sendall(frame(PONG, payload))

    with raw_server(ponging) as url, swarm(url, opcode=PING) as (made, row):
        made.dial(0, 1, 1)
        turn_until(made, lambda: row.counters["up"])
        made.pace(0, time.monotonic_ns(), 1e6, 5, 1, 0)
        turn_until(made, lambda: row.counters["answered"] == 5)


def test_a_storm_that_halts_leaves_nobody_there() -> None:
    halted = threading.Event()

    def late(peer: socket.socket) -> None:
        upgraded(peer, halted)
        opcode, _, payload = next(frames(peer))
        peer.sendall(frame(opcode, payload))

    with raw_server(late) as url, swarm(url) as (made, row):
        made.dial(0, 1, 1, again=True, cycling=True)
        turn_until(made, lambda: row.counters["opening"])
        made.halt()
        halted.set()
        turn_until(made, lambda: row.counters["closed"])
    counters = row.counters
    assert (counters["opened"], counters["up"], counters["opening"], counters["closing"]) == (1, 0, 0, 0)


def test_an_open_loop_goes_on_where_the_kernel_takes_no_more() -> None:
    go = threading.Event()

    def late(peer: socket.socket) -> None:
        upgraded(peer)
        go.wait(LIMIT_S)
        for opcode, _, payload in frames(peer):
            peer.sendall(frame(opcode, payload))

    size = 1 << 20
    with raw_server(late) as url, swarm(url, message_bytes=size, pattern=b"x" * (size + PATTERN_EXTRA), opcode=BINARY) as (made, row):
        made.dial(0, 1, 1)
        turn_until(made, lambda: row.counters["up"])
        made.time(0, 1 << 62)
        made.pace(0, time.monotonic_ns(), 1e6, 24, 1, 0)
        turn_until(made, lambda: row.counters["due"] == 24)
        assert row.counters["asked"] < 24, "the kernel took everything"
        go.set()
        turn_until(made, lambda: row.counters["answered"] == 24)
    assert sum(number for _, number in row.histogram("latency")[2]) == 24


def test_a_close_that_was_said_before_the_connection_broke_is_read_all_the_same() -> None:
    gone = threading.Event()

    def refusing(peer: socket.socket) -> None:
        upgraded(peer)
        peer.sendall(frame(CLOSE, (1009).to_bytes(2, "big")))
        peer.shutdown(socket.SHUT_RDWR)  # the kernel answers what comes now with a reset
        gone.set()

    size = 8 << 20
    with raw_server(refusing) as url, swarm(url, message_bytes=size, pattern=b"x" * (size + PATTERN_EXTRA), opcode=BINARY) as (made, row):
        made.dial(0, 1, 1)
        turn_until(made, lambda: row.counters["opened"])
        assert gone.wait(LIMIT_S)
        made.flood()
        turn_until(made, lambda: row.counters["lost"] and not row.counters["closing"])
    assert row.closes == {1009: 1}


def test_an_open_loop_that_is_late_sends_together_what_has_become_due_for_one_connection() -> None:
    def counting(peer: socket.socket) -> None:
        upgraded(peer)
        for opcode, _, payload in frames(peer):
            peer.sendall(frame(opcode, payload))

    with raw_server(counting) as url, swarm(url, 2) as (made, row):
        made.dial(0, 2, 2)
        turn_until(made, lambda: row.counters["up"] == 2)
        made.time(0, 1 << 62)
        made.pace(0, time.monotonic_ns() - 2_000_000_000, 1000.0, 100, 1, 1)
        turn_until(made, lambda: row.counters["answered"] == 100)
        least, _, counts = row.histogram("late")
    assert sum(number for _, number in counts) == 2  # one for each connection
    assert least >= 1_900_000_000


def test_what_is_given_up_counts_with_the_time_that_it_was_waited_for() -> None:
    def silent(peer: socket.socket) -> None:
        upgraded(peer)
        for _ in frames(peer):
            continue

    with raw_server(silent) as url, swarm(url, 2) as (made, row):
        made.dial(0, 2, 2)
        turn_until(made, lambda: row.counters["up"] == 2)
        made.time(0, 1 << 62)
        start = time.monotonic_ns() - 3_000_000_000
        made.pace(0, start, 1.0, 10, 1, 1)
        turn_until(made, lambda: row.counters["asked"] == 10)
        made.give_up()
        assert row.counters["unanswered"] == 10
        least, _, counts = row.histogram("latency")
    assert sum(number for _, number in counts) == 10
    assert least >= 2_900_000_000


def test_those_who_are_refused_come_again_when_they_are_to() -> None:
    visits = []

    def second_time(peer: socket.socket) -> None:
        visits.append(1)
        if len(visits) > 3:
            upgraded(peer)
            peer.recv(1)
        else:
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    with raw_server(second_time) as url, swarm(url, 3) as (made, row):
        made.dial(0, 3, 3, again=True)
        turn_until(made, lambda: row.counters["up"] == 3)
    assert row.counters["failed"] == row.statuses[503] == 3


@pytest.mark.parametrize(("said", "hung_up", "not_websocket"), [(b"", 3, 0), (b"SSH-2.0-OpenSSH\r\n", 0, 3)])
def test_who_hangs_up_after_some_other_talk_is_no_websocket_server(said: bytes, hung_up: int, not_websocket: int) -> None:
    def other(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(said)
        peer.shutdown(socket.SHUT_WR)
        peer.recv(1)

    with raw_server(other) as url, swarm(url, 3) as (made, row):
        made.dial(0, 3, 3)
        turn_until(made, lambda: row.counters["failed"] == 3)
    assert (row.counters["hung_up"], row.counters["not_websocket"]) == (hung_up, not_websocket)


def test_an_answer_to_close_that_does_not_come_is_not_waited_for_for_ever() -> None:
    def stubborn(peer: socket.socket) -> None:
        upgraded(peer)
        for _ in frames(peer):
            continue

    with raw_server(stubborn) as url, swarm(url, timeout_s=0.2) as (made, row):
        made.dial(0, 1, 1)
        turn_until(made, lambda: row.counters["up"])
        made.leave()
        turn_until(made, lambda: not row.counters["closing"])
    assert (row.counters["timeouts"], row.counters["closed"]) == (1, 0)


def test_a_server_that_closes_first_gets_its_close_back() -> None:
    answers = []

    def closing(peer: socket.socket) -> None:
        upgraded(peer)
        peer.sendall(frame(CLOSE, b"\x0f\xa1bye"))
        answers.extend(frames(peer))

    with raw_server(closing) as url, swarm(url, timeout_s=0.3) as (made, row):
        made.dial(0, 1, 1)
        turn_until(made, lambda: row.counters["lost"] and not row.counters["closing"])
    assert row.closes == {4001: 1}
    assert [(opcode, payload) for opcode, _, payload in answers] == [(CLOSE, b"\x0f\xa1")]


def test_a_connection_takes_few_bytes() -> None:
    assert PEER_BYTES <= 112


@pytest.mark.parametrize(
    "given",
    [
        {"requests": []}, {"accepts": [b"short"] * 64}, {"targets": []}, {"targets": [b"x"]}, {"pipeline": 0}, {"special": 2},
        {"opcode": CLOSE}, {"pattern": b"short"}, {"opcode": PING, "message_bytes": 126}, {"broadcasts": True, "message_bytes": 5},
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_swarm_is_an_error(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."), swarm("ws://127.0.0.1:1/", **given):
        pass


@pytest.mark.parametrize(
    "order",
    [
        lambda made: made.dial(0, 2, 1),
        lambda made: made.dial(0, 1, 0),
        lambda made: made.pace(0, 0, 0.0, 1, 1, 1),
        lambda made: made.pace(5, 0, 1.0, 1, 1, 1),
        lambda made: made.publish(0, 0.0, 0, 1),
    ],
)
def test_an_order_that_cannot_be_is_an_error(order: Callable[[Swarm], None]) -> None:
    with swarm("ws://127.0.0.1:1/") as (made, _), pytest.raises(ValueError, match=r"."):
        order(made)
