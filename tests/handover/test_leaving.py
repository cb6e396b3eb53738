"""How much the giver gives at once."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.handover.workers import crowd, hand_over, open_at, sending, two
from tests.peer import Peer
from tests.serving import WAIT_S, Served, eventually
from unlimitedws.handlers import Handlers
from unlimitedws.handover import leaving as module
from unlimitedws.handover.leaving import FIRST_BATCH, weight
from unlimitedws.handover.link import Link, Publication, read, written

LIMIT = 1000
STATE = 300  # three of them, pickled, fit


@pytest.fixture(autouse=True)
def _small_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", LIMIT)


def holding(sizes: Iterator[int]) -> Handlers:
    """Each connection has a state of so many bytes, says its size, and remembers whether it has moved."""
    handlers = Handlers()

    @handlers.on_connect
    def connect(conn: Any) -> None:
        if not conn.resumed:
            conn.state = bytes(next(sizes))

    handlers.on_message = lambda conn, message: conn.send(f"{len(conn.state)} {conn.resumed}")
    return handlers


def answers(peers: list[Peer]) -> list[str]:
    for peer in peers:
        peer.frames.clear()
        peer.text("?")
    eventually(lambda: [peer.read() for peer in peers] and all(peer.messages for peer in peers))
    assert all(len(peer.messages) == 1 and not peer.ended for peer in peers)
    return [str(peer.messages[0]) for peer in peers]


def noted(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What each connection of each packet weighs, packet by packet."""
    packets: list[list[int]] = []
    send = Link.send

    def noting(link: Link, kind: bytes, payload: Any = None, descriptors: Any = ()) -> bool:
        if kind == b"B":
            packets.append([weight(*row) for row in payload[1]])
        return send(link, kind, payload, descriptors)

    monkeypatch.setattr(Link, "send", noting)
    return packets


def test_no_packet_holds_more_than_its_bytes_but_of_one_connection_alone(
    engine_name: str, other_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    sizes = [0, 10, 2 * LIMIT, LIMIT - 100, 50, STATE, STATE, STATE, STATE, 3 * LIMIT, 3 * LIMIT, 0] * 5
    packets = noted(monkeypatch)
    with two(holding(iter(sizes)), holding(iter(())), engine_name, other_engine) as (old, new), crowd(old, len(sizes)) as peers:
        assert hand_over(old, new)
        assert open_at(old, new) == [0, len(sizes)]
        assert answers(peers) == [f"{size} True" for size in sizes]
    assert all(len(packet) == 1 or sum(packet) <= LIMIT for packet in packets)
    assert sum(map(len, packets)) == len(sizes)
    assert any(sum(packet) > LIMIT for packet in packets)
    assert any(len(packet) > 2 for packet in packets)


def test_what_is_unfinished_counts_too(engine_name: str, other_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = noted(monkeypatch)
    with two(holding(itertools.repeat(0)), holding(iter(())), engine_name, other_engine) as (old, new), crowd(old, 6) as peers:
        before = old.counters["bytes_in"]
        for peer in peers:
            peer.say(b"\x02\xfe\x01\x00\0\0\0\0" + bytes(0x100))  # the first part of a message
            peer.say(b"\x80\xfe\x01\x90\0\0\0\0" + bytes(STATE - 0x100))  # and a bit of the second
        eventually(lambda: old.counters["bytes_in"] == before + len(peers) * (16 + STATE))
        assert hand_over(old, new)
        assert open_at(old, new) == [0, 6]
        for peer in peers:
            peer.say(bytes(0x190 + 0x100 - STATE))
        eventually(lambda: [peer.read() for peer in peers] and all(peer.messages == ["0 True"] for peer in peers))
    assert [len(packet) for packet in packets] == [3, 3]
    assert all(3 * STATE < sum(packet) <= LIMIT for packet in packets)


def test_as_many_wait_together_as_fit_by_what_went_with_the_last(
    engine_name: str, other_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """At first it is not known, and where nothing goes with them all of them fit."""
    frozen: list[int] = []
    give = module.Leaving.give

    async def noting(leaving: module.Leaving, batch: list[Any]) -> None:
        frozen.append(len(batch))
        await give(leaving, batch)

    monkeypatch.setattr(module.Leaving, "give", noting)
    for size, batches in ((STATE, [FIRST_BATCH, 3, 2]), (0, [FIRST_BATCH, 5])):
        frozen.clear()
        with (
            two(holding(itertools.repeat(size)), holding(iter(())), engine_name, other_engine) as (old, new),
            crowd(old, FIRST_BATCH + 5),
        ):
            assert hand_over(old, new)
        assert frozen == batches


class Taker:
    """Played by the test: takes packets and says what it wants to."""

    def __init__(self, sock: socket.socket, kind: bytes, room: int) -> None:
        self.sock = sock
        sock.settimeout(WAIT_S)
        assert sock.recv(16) == kind
        sock.send(b"R%d" % room)

    def packet(self) -> tuple[int, list[bytes]]:
        """How much the next ones have heard, and their states; their descriptors are closed."""
        kind, fds, _, _ = socket.recv_fds(self.sock, 16, 300)
        assert kind == b"B"
        for fd in fds[1:]:
            os.close(fd)
        heard, rows = read(fds[0])
        return heard, [pickle.loads(luggage.state) if luggage.state else None for _, luggage in rows]

    def acknowledge(self, room: int) -> None:
        self.sock.send(b"A%d" % room)

    def publish(self, message: str) -> None:
        memory = written(Publication(message, None))
        socket.send_fds(self.sock, [b"P"], [memory])
        os.close(memory)


@contextmanager
def taking(giver: Served, *, whole: bool, room: int = 1000) -> Iterator[tuple[Taker, Any]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker = giver.server.worker
    giving = asyncio.run_coroutine_threadsafe(worker.hand_over(ours) if whole else worker.give(ours), giver.loop)
    with theirs:
        yield Taker(theirs, b"W" if whole else b"S", room), giving


def numbered() -> tuple[Handlers, list[Any]]:
    """Three of these states fit into a packet; whoever is told that one leaves or stays takes it off this list or puts it back."""
    handlers, present = Handlers(), []
    numbers = itertools.count()

    @handlers.on_connect
    def connect(conn: Any) -> None:
        conn.state = b"%0300d" % next(numbers)
        present.append(conn)

    handlers.on_handover = lambda conn: present.remove(conn) or conn.state
    handlers.on_resume = lambda conn, state: present.append(conn)
    handlers.on_message = lambda conn, message: conn.send(f"{int(conn.state)}")
    return handlers, present


def test_whose_packet_is_not_taken_goes_on_and_so_do_those_behind_it(engine_name: str) -> None:
    handlers, present = numbered()
    with two(handlers, Handlers(), engine_name, engine_name) as (old, _), crowd(old, 12) as peers:
        with taking(old, whole=True) as (taker, giving):
            assert [int(state) for state in taker.packet()[1]] == [0, 1, 2]
            taker.acknowledge(1000)
            assert [int(state) for state in taker.packet()[1]] == [3, 4, 5]
        assert giving.result(WAIT_S) is False
        assert answers(peers[3:]) == [f"{number}" for number in range(3, 12)]
        assert sorted(int(conn.state) for conn in present) == [*range(3, 12)]
        eventually(lambda: [peer.read() for peer in peers[:3]] and all(peer.ended for peer in peers[:3]))
        assert old.counters["handler_errors"] == 0


def test_publications_reach_those_who_wait_for_their_packet_once(engine_name: str) -> None:
    """The taker says its own to those that come, and here to none: so everybody who stays must have both of the giver."""
    handlers, _ = numbered()
    with two(handlers, Handlers(), engine_name, engine_name) as (old, _), crowd(old, 12) as peers:
        with taking(old, whole=True) as (taker, giving):
            assert len(taker.packet()[1]) == 3
            taker.publish("from the taker")
            old.server.worker.broadcast("from the giver")
            assert taker.sock.recv(16) == b"P"
            taker.acknowledge(1000)
            assert taker.sock.recv(16) == b"L"
            heard, states = taker.packet()
            assert (heard, [int(state) for state in states]) == (0, [3, 4, 5])  # so that a taker says it to these
        assert giving.result(WAIT_S) is False
        for peer in peers[3:]:
            eventually(lambda peer=peer: peer.read() is None or len(peer.messages) >= 2)
            assert sorted(map(str, peer.messages)) == ["from the giver", "from the taker"]


def test_what_has_no_room_any_more_stays(engine_name: str) -> None:
    handlers, present = numbered()
    with two(handlers, Handlers(), engine_name, engine_name) as (old, _), crowd(old, 12) as peers:
        with taking(old, whole=False) as (taker, giving):
            assert len(taker.packet()[1]) == 3
            taker.acknowledge(2)
            assert [int(state) for state in taker.packet()[1]] == [3, 4]
            taker.acknowledge(0)
            assert taker.sock.recv(16) == b"E"
            taker.sock.send(b"E")
            assert giving.result(WAIT_S) == 5
        assert answers(peers[5:]) == [f"{number}" for number in range(5, 12)]
        assert sorted(int(conn.state) for conn in present) == [*range(5, 12)]


def test_a_stop_gives_no_further_packet(engine_name: str) -> None:
    handlers, _ = numbered()
    with two(handlers, Handlers(), engine_name, engine_name) as (old, _), crowd(old, 12) as peers:
        with taking(old, whole=True) as (taker, giving):
            assert len(taker.packet()[1]) == 3
            stopping = asyncio.run_coroutine_threadsafe(old.server.stop(), old.loop)
            eventually(lambda: old.call(lambda: all(each.is_halted for each in old.server.worker._leaving)))
            taker.acknowledge(1000)
            assert taker.sock.recv(16) == b"E"
            assert giving.result(WAIT_S)
        stopping.result(WAIT_S)
        eventually(lambda: [peer.read() for peer in peers] and all(peer.ended for peer in peers))
        assert [[frame.opcode for frame in peer.frames] for peer in peers] == [[]] * 3 + [[8]] * 9


def test_messages_keep_their_order_over_many_packets(engine_name: str, other_engine: str) -> None:
    """From a task of the old worker that says a number to each of them again and again while they move."""
    with (
        two(holding(itertools.repeat(STATE)), holding(iter(())), engine_name, other_engine) as (old, new),
        crowd(old, 120) as peers,
    ):
        numbers = sending(old, old.server.worker.connections)
        assert hand_over(old, new)
        numbers.end()
        (arriving,) = new.server.worker._arriving
        eventually(lambda: arriving.is_complete)
        new.server.worker.broadcast("last")
        for peer in peers:
            eventually(lambda peer=peer: peer.read() is None or "last" in peer.messages)
            assert peer.messages[:-1] == [f"{number}" for number in range(len(peer.messages) - 1)]
            assert not peer.ended


def test_who_was_busy_when_its_turn_came_moves_though_nobody_is_left_after_it(engine_name: str) -> None:
    handlers, release = Handlers(), threading.Event()

    @handlers.on_message
    async def work(conn: Any, message: Any) -> None:
        while not release.is_set():
            await asyncio.sleep(0.01)
        conn.send("done")

    with two(handlers, Handlers(), engine_name, engine_name) as (old, _), crowd(old, FIRST_BATCH + 2) as peers:
        peers[0].text("?")
        eventually(lambda: old.counters["messages_in"] == 1)
        with taking(old, whole=True) as (taker, giving):
            assert len(taker.packet()[1]) == FIRST_BATCH
            release.set()
            eventually(lambda: peers[0].read() and peers[0].messages == ["done"])
            peers[-1].socket.close()
            eventually(lambda: old.counters["connections_open"] == FIRST_BATCH + 1)
            taker.acknowledge(1000)
            assert len(taker.packet()[1]) == 1
            taker.acknowledge(1000)
            assert taker.sock.recv(16) == b"E"
            assert giving.result(WAIT_S)
            assert old.counters["connections_open"] == 0
