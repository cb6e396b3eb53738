"""Connections that leave an engine for another: nothing lost, nothing twice, nobody told of an end."""

from __future__ import annotations

import os
import pickle
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.conftest import ENGINES
from tests.engine.driver import Driver
from tests.engine.test_contract_deflate import OFFER, Deflated
from tests.peer import BINARY, CONTINUATION, PING, PONG, TEXT, Peer, pack, pack_close, request
from unlimitedws.engine.said import say_again
from unlimitedws.wire.closing import Cause, Close
from unlimitedws.wire.deflate import Policy

Drive = Callable[..., Driver]

KIB = 1024
AT_ONCE = 50  # peers that move together, where each by itself would be waited for
SMALL: dict[str, Any] = {"sndbuf_bytes": 4 * KIB, "low_water_bytes": 8 * KIB, "high_water_bytes": 32 * KIB, "queue_bytes": 4096 * KIB}


@pytest.fixture(params=ENGINES, ids=lambda name: f"to {name}")
def pair(request: pytest.FixtureRequest, drive: Drive) -> Callable[..., tuple[Driver, Driver]]:
    """Two engines: the one under test, and one of each kind that its connections move to."""

    def make(**given: Any) -> tuple[Driver, Driver]:
        return drive(**given), drive(engine=request.param, **given)

    return make


def move(source: Driver, target: Driver, *, endpoint: int = 0, at_most: int = 1000) -> list[int]:
    """Moves what can move, through pickles as between processes; the descriptors it has there."""
    leaving = source.engine.depart(at_most)
    fds = [os.dup(fd) for fd, _, _ in leaving]
    for fd, (_, moved, _) in zip(fds, leaving, strict=True):
        target.engine.adopt(fd, pickle.loads(pickle.dumps(moved)), endpoint)
    assert source.engine.departed([fd for fd, _, _ in leaving]) == {}
    target.peers += source.peers
    source.peers = []
    return fds


def echo(connection: Any, message: Any) -> None:
    connection.send(message)


def test_an_idle_connection_goes_on_elsewhere(pair: Any) -> None:
    source, target = pair()
    peer = source.connect("/d%C3%A9j%C3%A0")
    before = source.only
    facts = (before.id, before.path, before.subprotocol, before.remote_address)
    assert not before.resumed
    move(source, target)
    assert not before.is_open
    assert (before.id, before.path, before.subprotocol, before.remote_address) == facts
    assert not before.send("lost")
    assert (source.count("connections_open"), target.count("connections_open")) == (0, 1)
    after = target.only
    assert (after.id, after.path, after.subprotocol, after.remote_address) == facts
    assert after.resumed
    after.send("found")
    peer.text("hello")
    target.until(lambda: peer.messages == ["found"] and target.named("on_message") == ["hello"])
    peer.say(pack_close(1000))
    target.until(lambda: peer.ended)
    assert target.named("on_close") == [Close(1000, "", Cause.PEER_CLOSED, True)]
    assert source.named("on_close") == []
    assert target.count("connections_opened") == 0  # it was opened there


def test_input_may_be_cut_anywhere(pair: Any) -> None:
    source, target = pair(on_message=echo)
    stream = (
        pack(TEXT, "déj".encode(), fin=False) + pack(PING, b"between") + pack(CONTINUATION, "à vu".encode(), key=os.urandom(4))
        + pack(BINARY, b"x" * 300) + pack(TEXT, b"end")
    )  # fmt: skip
    for first in range(0, len(stream), AT_ONCE):
        peers = {cut: source.connect() for cut in range(first, min(first + AT_ONCE, len(stream)))}
        for cut, peer in peers.items():
            peer.say(stream[:cut])
        source.rest()
        move(source, target)
        for cut, peer in peers.items():
            peer.say(stream[cut:])
        target.until(lambda peers=peers: all(len(peer.messages) == 3 for peer in peers.values()))
        for cut, peer in peers.items():
            assert peer.messages == ["déjà vu", b"x" * 300, "end"], f"cut at {cut}"
            assert [frame.payload for frame in peer.frames if frame.opcode == PONG] == [b"between"], f"cut at {cut}"
            peer.close()
        target.until(lambda: not target.count("connections_open"))


def test_a_large_message_may_be_half_there(pair: Any) -> None:
    source, target = pair(on_message=echo)
    message = "für 🎈 " * 20_000
    frame = pack(TEXT, message.encode(), key=os.urandom(4))
    for cut in (len(frame) // 2, len(frame) // 2 + 1, len(frame) // 2 + 2, len(frame) - 1):
        peer = source.connect()
        peer.say(frame[:cut])
        source.rest()
        move(source, target)
        peer.say(frame[cut:])
        target.until(lambda peer=peer: peer.messages == [message])
        peer.close()
        target.until(lambda: not target.count("connections_open"))


def test_what_waits_to_be_written_comes_along_and_the_drain_is_told_there(pair: Any) -> None:
    source, target = pair(**SMALL)
    peer = source.connect(receive_bytes=4 * KIB)
    connection = source.only
    sent = [f"{number}".encode() * 400 for number in range(200)]
    assert [connection.send(message) for message in sent][-1] is False
    source.turn()
    assert source.count("queued_bytes") > 0
    move(source, target)
    assert (source.count("queued_bytes"), target.count("queued_bytes") > 0) == (0, True)
    target.only.send("behind it")
    target.until(lambda: len(peer.messages) == 201)
    assert peer.messages == [*sent, "behind it"]
    target.until(lambda: target.named("on_drain") == [None])
    assert source.named("on_drain") == []


def test_one_whose_drain_is_due_when_it_departs_hears_of_it_first(pair: Any) -> None:
    """A coroutine may begin with it, which would stay behind."""
    drained: list[Any] = []

    def drain(connection: Any) -> None:
        source.engine.hold(connection)
        drained.append(connection)

    source, _ = pair(on_drain=drain, **SMALL)
    peer = source.connect(receive_bytes=4 * KIB)
    connection = source.only
    while connection.send(b"x" * 4 * KIB):
        pass
    deadline = time.monotonic() + 10
    while not drained:
        assert time.monotonic() < deadline
        peer.read()
        leaving = source.engine.depart(1)  # one engine offers the kernel what waits, and the other waits to be told of room
        assert leaving == [] or not drained
        source.engine.stay([fd for fd, _, _ in leaving])
        source.turn()
    assert source.engine.depart(1) == []
    assert source.engine.held() == 1
    source.engine.release(connection)
    source.until(lambda: not source.count("queued_bytes"))


def test_messages_that_wait_for_their_turn_come_along_in_order(pair: Any) -> None:
    source, target = pair()
    peer = source.connect()
    peer.say(b"".join(pack(TEXT, f"{number}".encode()) for number in range(600)))
    source.until(lambda: source.count("messages_in") > 0)
    at_the_source = source.named("on_message")
    move(source, target)
    target.until(lambda: len(at_the_source) + len(target.named("on_message")) == 600)
    assert at_the_source + target.named("on_message") == [f"{number}" for number in range(600)]


def test_a_held_connection_waits_until_it_is_released(pair: Any) -> None:
    source, target = pair()
    peer = source.connect()
    connection = source.only
    source.engine.hold(connection)
    peer.text("waits")
    source.rest()
    assert source.engine.held() == 1
    assert move(source, target) == []
    target.peers, source.peers = [], target.peers
    source.engine.release(connection)
    source.until(lambda: source.named("on_message") == ["waits"])
    assert source.engine.held() == 0
    assert len(move(source, target)) == 1


def test_half_a_request_comes_along(pair: Any) -> None:
    source, target = pair()
    peer = source.dial()
    head = request("/other")
    peer.say(head[:40])
    source.until(lambda: source.count("bytes_in") == 40)
    move(source, target)
    assert (source.count("handshakes_pending"), target.count("handshakes_pending")) == (0, 1)
    peer.say(head[40:] + pack(TEXT, b"first"))
    target.until(lambda: target.named("on_message") == ["first"])
    assert peer.is_upgraded
    assert not target.only.resumed


def test_who_is_not_taken_goes_on_as_if_nothing_had_been(pair: Any) -> None:
    source, _ = pair(on_message=echo)
    peer, half = source.connect(), source.connect()
    half.say(pack(TEXT, b"half")[:8])
    source.rest()
    leaving = source.engine.depart(1000)
    assert len(leaving) == 2
    peer.text("meanwhile")
    source.rest()
    source.engine.stay([fd for fd, _, _ in leaving])
    assert len(source.engine.connections()) == 2
    half.say(pack(TEXT, b"half")[8:])
    source.until(lambda: (peer.messages, half.messages) == (["meanwhile"], ["half"]))


def said_on_the_way(source: Driver) -> tuple[int, Any, Any]:
    """One connection on its way, to which the app says this and that."""
    ((fd, moved, connection),) = source.engine.depart(1, objects=True)
    assert connection.is_open
    assert source.engine.connections() == [connection] == source.engine.page(0, 10)[0]
    assert source.engine.find(connection.id) is connection
    assert connection.send("one")
    assert source.engine.broadcast(bytearray(b"two")) == 1
    assert source.engine.broadcast("nobody", departing=False) == 0
    assert source.engine.broadcast("three", [connection]) == 1
    assert connection.send(memoryview(b"four"), text=True)
    connection.ping(b"five")
    with pytest.raises(TypeError):
        connection.send(6)
    return fd, moved, connection


def test_what_is_said_on_the_way_is_said_there(pair: Any) -> None:
    source, target = pair()
    peer = source.connect()
    fd, moved, connection = said_on_the_way(source)
    there = os.dup(fd)
    target.engine.adopt(there, moved, 0)
    ((id, said),) = source.engine.departed([fd]).items()
    assert id == connection.id
    assert not connection.is_open
    assert not connection.send("too late")
    target.peers, source.peers = source.peers, []
    say_again(target.engine, target.engine.connection_at(there), pickle.loads(pickle.dumps(said)))
    target.until(lambda: len(peer.messages) == 4 and PING in [frame.opcode for frame in peer.frames])
    assert peer.messages == ["one", b"two", "three", "four"]


def test_what_is_said_on_the_way_to_one_that_stays_is_said_here(pair: Any) -> None:
    source, _ = pair()
    peer = source.connect()
    fd, _, _ = said_on_the_way(source)
    source.rest()
    assert peer.messages == []
    source.engine.stay([fd])
    source.until(lambda: len(peer.messages) == 4 and PING in [frame.opcode for frame in peer.frames])
    assert peer.messages == ["one", b"two", "three", "four"]
    source.only.send("more")
    source.until(lambda: peer.messages[-1] == "more")


@pytest.mark.parametrize("what", ["close", "abort", "expire"])
def test_an_end_on_the_way_is_kept_until_it_has_arrived(pair: Any, what: str) -> None:
    source, target = pair()
    peer = source.connect()
    ((fd, moved, connection),) = source.engine.depart(1, objects=True)
    if what == "expire":
        source.engine.expire(connection)
    elif what == "abort":
        connection.abort()
    else:
        connection.close(4000, "enough")
    there = os.dup(fd)
    target.engine.adopt(there, moved, 0)
    ((_, said),) = source.engine.departed([fd]).items()
    target.peers, source.peers = source.peers, []
    say_again(target.engine, target.engine.connection_at(there), said)
    if what == "abort":
        assert target.ended(peer) in ("eof", "reset")
    else:
        target.until(lambda: peer.closed_with == {"close": (4000, "enough"), "expire": (1008, "expired")}[what])


def test_another_thread_may_send_to_one_on_its_way(pair: Any) -> None:
    source, _ = pair()
    peer = source.connect()
    ((fd, _, connection),) = source.engine.depart(1, objects=True)
    thread = threading.Thread(target=connection.send, args=("from afar",))
    thread.start()
    thread.join()
    source.rest()
    source.engine.stay([fd])
    source.until(lambda: peer.messages == ["from afar"])


def test_a_descriptor_without_an_open_connection_has_no_object(pair: Any) -> None:
    source, _ = pair()
    peer = source.connect()
    ((fd, _, _),) = source.engine.depart(1)
    source.engine.stay([fd])
    assert source.engine.connection_at(fd) is source.only
    peer.close()
    source.until(lambda: source.named("on_close"))
    assert source.engine.connection_at(fd) is None
    half = source.dial()
    half.say(b"GET")
    source.until(lambda: source.count("handshakes_pending"))
    assert source.engine.connection_at(fd) is None


def test_what_departs_in_the_end_of_the_engine_is_ended_with_it(pair: Any) -> None:
    source, _ = pair()
    peer = source.connect()
    source.engine.depart(1)
    source.engine.close()
    assert source.named("on_close") == [Close(1006, "", Cause.DRAIN, False)]
    peer.socket.settimeout(10)
    peer.read()
    assert peer.ended in ("eof", "reset")


def test_batches_reach_everybody_once(pair: Any) -> None:
    source, target = pair(on_message=echo)
    for _ in range(7):
        source.connect()
    peers = list(source.peers)
    sizes = []
    while fds := move(source, target, at_most=3):
        sizes.append(len(fds))
        source.peers = [peer for peer in peers if peer not in target.peers]
    assert sizes == [3, 3, 1]
    for number, peer in enumerate(peers):
        peer.text(f"{number}")
    target.until(lambda: [peer.messages for peer in peers] == [[f"{number}"] for number in range(7)])


def test_a_heartbeat_that_was_asked_for_there_is_judged_here(pair: Any) -> None:
    source, target = pair(ping_interval_s=0.2, ping_timeout_s=0.5)
    peer = source.connect()
    source.until(lambda: any(frame.opcode == PING for frame in peer.frames), ticking=True)
    ((fd, moved, _),) = source.engine.depart(1)
    assert moved.pinged_s is not None
    source.engine.stay([fd])
    move(source, target)
    target.until(lambda: target.named("on_close"), ticking=True)
    assert target.named("on_close") == [Close(1006, "", Cause.HEARTBEAT_LOST, False)]


def test_a_quiet_connection_keeps_its_clocks(pair: Any) -> None:
    source, target = pair(idle_timeout_s=600.0)
    source.connect()
    ((fd, moved, _),) = source.engine.depart(1)
    aged = moved._replace(active_s=599.9)
    there = os.dup(fd)
    target.engine.adopt(there, aged, 0)
    source.engine.departed([fd])
    target.peers, source.peers = source.peers, []
    target.until(lambda: target.peers[0].closed_with == (1000, "idle"), ticking=True)


def test_state_stays_with_the_old_object_and_is_not_kept_alive(pair: Any) -> None:
    source, target = pair()
    source.connect()
    source.only.state = "here"
    ((fd, _moved, connection),) = source.engine.depart(1)
    assert connection.state == "here"
    source.engine.stay([fd])
    move(source, target)
    assert target.only.state is None


def test_objects_are_made_where_they_are_asked_for(pair: Any) -> None:
    source, _ = pair()
    source.connect()
    ((fd, _, connection),) = source.engine.depart(1)
    assert connection is None
    source.engine.stay([fd])
    ((fd, moved, connection),) = source.engine.depart(1, objects=True)
    assert connection.id == moved.id
    source.engine.stay([fd])


def test_one_whose_state_was_lost_is_told_to_come_again(pair: Any) -> None:
    source, target = pair()
    peer = source.connect()
    (fd,) = move(source, target)
    target.engine.part_with(target.engine.connection_at(fd))
    target.until(lambda: peer.closed_with == (1012, "state was lost"))
    peer.say(pack_close(1012))
    target.until(lambda: peer.ended)
    assert target.count("closes_not_resumed") == 1


def test_compression_without_takeover_comes_along_in_the_middle_of_a_message(pair: Any) -> None:
    source, target = pair(on_message=echo, deflate_threshold_bytes=64, guarded=True)
    source.front.deflate = target.front.deflate = Policy()
    peer = source.connect("/", OFFER)
    client = Deflated(peer)
    message = b"again and " * 100
    payload = client.compress(message)
    stream = pack(BINARY, payload[:5], rsv=4, fin=False) + pack(CONTINUATION, payload[5:])
    peer.say(stream[:14])
    source.rest()
    move(source, target)
    peer.say(stream[14:])
    target.until(client.read)
    assert client.frames == [(True, message)]


def test_context_takeover_stays(pair: Any) -> None:
    source, target = pair(guarded=True)
    source.front.deflate = Policy(takeover=True)
    source.connect("/", OFFER)
    assert source.only.is_open
    assert move(source, target) == []
    source.peers = target.peers
    assert source.engine.held() == 0


def test_tls_stays(pair: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("server.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    source, target = pair()
    source.listen(tls=lambda: context)
    source.dial()
    source.until(lambda: source.count("connections_accepted") == 1)
    assert move(source, target) == []
    source.peers, target.peers = target.peers, []


def test_the_gate_counts_them_where_they_are(pair: Any) -> None:
    class Counting:
        def __init__(self) -> None:
            self.held: list[Any] = []

        def enter(self, address: Any) -> bool:
            self.held.append(address)
            return True

        def leave(self, address: Any) -> None:
            self.held.remove(address)

        def take_over(self, address: Any) -> None:
            self.held.append(address)

    gate = Counting()
    source, target = pair(gate=gate)
    source.connect()
    (held,) = gate.held
    move(source, target)
    assert gate.held == [held]


def test_the_access_log_counts_on(pair: Any) -> None:
    source, target = pair(access_log=True, on_message=echo)
    peer = source.connect()
    peer.text("12345")
    source.until(lambda: peer.messages)
    move(source, target)
    peer.text("12345")
    target.until(lambda: len(peer.messages) == 2)
    peer.say(pack_close(1000))
    target.until(lambda: target.front.ends)
    ((_, _, bytes_in, bytes_out, _),) = target.front.ends
    assert (bytes_in, bytes_out) == (11 + 11 + 8, 7 + 7 + 4)
    assert source.front.ends == []


def test_who_was_too_fast_still_has_to_wait(pair: Any) -> None:
    source, target = pair(messages_per_s=20, rate_burst_s=0.5)
    peer = source.connect()
    peer.say(b"".join(pack(TEXT, f"{number}".encode()) for number in range(30)))
    source.until(lambda: len(source.named("on_message")) >= 10)
    source.rest()
    at_the_source = source.named("on_message")
    move(source, target)
    target.rest()
    assert len(at_the_source) + len(target.named("on_message")) < 30
    target.until(lambda: len(at_the_source) + len(target.named("on_message")) == 30, ticking=True)
    assert at_the_source + target.named("on_message") == [f"{number}" for number in range(30)]


def test_a_peer_that_leaves_on_the_way_is_noticed(pair: Any) -> None:
    source, target = pair()
    peer: Peer = source.connect()
    leaving = source.engine.depart(1)
    peer.reset()
    ((fd, moved, _),) = leaving
    target.engine.adopt(os.dup(fd), moved, 0)
    source.engine.departed([fd])
    source.peers = []
    target.until(lambda: target.named("on_close"))
    assert target.named("on_close")[0].cause == Cause.PEER_RESET
