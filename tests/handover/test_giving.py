"""Some of a worker's connections move to another one, and both go on serving."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
from typing import Any

import pytest

from tests.handover.workers import answers, begin, crowd, echoing, give, open_at, publishing, received, sending, two
from tests.peer import request as upgrade_request
from tests.serving import WAIT_S, Served, eventually, head, served
from unlimitedws.handlers import Handlers
from unlimitedws.handover import leaving as module
from unlimitedws.worker import Worker


def test_some_move_and_both_go_on_serving(engine_name: str, other_engine: str) -> None:
    with two(echoing("old "), echoing("new "), engine_name, other_engine) as (old, new), old.clients(10) as clients:
        assert answers(clients) == ["old x"] * 10
        assert give(old, new, 4) == 4
        assert open_at(old, new) == [6, 4]
        assert sorted(answers(clients)) == ["new x"] * 4 + ["old x"] * 6
        with old.client() as another:
            assert answers([another]) == ["old x"]


def test_all_move_and_who_comes_later_is_served_here(engine_name: str, other_engine: str) -> None:
    with two(echoing("old "), echoing("new "), engine_name, other_engine) as (old, new), old.clients(5) as clients:
        eventually(lambda: old.counters["connections_open"] == 5)
        assert give(old, new) == 5
        assert answers(clients) == ["new x"] * 5
        with old.client() as another:
            assert answers([another]) == ["old x"]


def test_it_accepts_no_more_where_it_is_told_so(engine_name: str, other_engine: str) -> None:
    with two(echoing(), echoing(), engine_name, other_engine) as (old, new), old.clients(2), old.socket() as late:
        eventually(lambda: old.counters["connections_accepted"] == 3)
        assert give(old, new, accepting=False) == 3
        with old.socket():
            eventually(lambda: new.counters["connections_open"] == 2)
            late.sendall(upgrade_request())
            assert head(late).startswith(b"HTTP/1.1 101 ")
            assert old.counters["connections_accepted"] == 3


def test_several_give_to_one_which_gives_back(engine_name: str, other_engine: str) -> None:
    with (
        two(echoing("old "), echoing("new "), engine_name, other_engine) as (one, taker),
        served(echoing("other "), serial=2, engine=other_engine) as two_,
        one.clients(4) as ones,
        two_.clients(4) as twos,
    ):
        answers(ones + twos)
        both = [begin(one, taker, 3), begin(two_, taker, 3)]
        assert [each.result(WAIT_S) for each in both] == [3, 3]
        assert open_at(one, two_, taker) == [1, 1, 6]
        assert sorted(answers(ones + twos)) == ["new x"] * 6 + ["old x", "other x"]
        assert give(taker, one, 2) == 2
        assert give(taker, two_) == 4
        assert open_at(one, two_, taker) == [3, 5, 0]
        assert sorted(answers(ones + twos)) == ["old x"] * 3 + ["other x"] * 5


def test_what_has_no_room_stays(engine_name: str, other_engine: str) -> None:
    with (
        two(echoing(), echoing(), engine_name, other_engine, max_connections=5) as (old, new),
        old.clients(4) as clients,
        new.clients(3) as others,
    ):
        assert answers(clients + others) == ["x"] * 7
        assert give(old, new) == 2
        assert open_at(old, new) == [2, 5]
        assert give(old, new) == 0
        assert answers(clients + others) == ["x"] * 7


def test_some_descriptors_are_left_to_the_taker(engine_name: str, other_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlimitedws.worker.descriptors_left", lambda *, held, spare: max(0, 2 - held))
    with two(echoing(), echoing(), engine_name, other_engine) as (old, new), old.clients(4) as clients:
        assert answers(clients) == ["x"] * 4
        assert give(old, new) == 2
        assert answers(clients) == ["x"] * 4


def test_state_and_id_come_along_and_the_id_finds_it_at_one_worker(engine_name: str, other_engine: str) -> None:
    def app() -> Handlers:
        handlers = Handlers()
        handlers.on_connect = lambda conn: setattr(conn, "state", 0)
        handlers.on_handover = lambda conn: conn.state + 1
        handlers.on_resume = lambda conn, state: setattr(conn, "state", state)
        handlers.on_message = lambda conn, message: conn.send(f"{conn.id} {conn.state} {conn.resumed}")
        return handlers

    def found(there: Served, id: int) -> bool:
        return there.call(lambda: there.server.worker.find(id)) is not None

    with two(app(), app(), engine_name, other_engine) as (old, new), old.client() as client:
        (first,) = answers([client])
        id = int(first.split()[0])
        for moves, (giver, taker) in enumerate([(old, new), (new, old), (old, new)], start=1):
            assert give(giver, taker) == 1
            assert answers([client]) == [f"{id} {moves} True"]
            assert [found(giver, id), found(taker, id)] == [False, True]


def test_who_is_pending_is_waited_for_where_there_are_not_enough_others(engine_name: str, other_engine: str) -> None:
    old_app, release = Handlers(), threading.Event()

    @old_app.on_message
    async def work(conn: Any, message: Any) -> None:
        while not release.is_set():
            await asyncio.sleep(0.01)
        conn.send("done")

    with two(old_app, echoing("new "), engine_name, other_engine) as (old, new), old.client() as busy, old.client() as free:
        busy.send("1")
        eventually(lambda: old.counters["messages_in"])
        assert give(old, new, 1) == 1
        assert answers([free]) == ["new x"]
        giving = begin(old, new, 1)
        release.set()
        assert giving.result(WAIT_S) == 1
        busy.send("2")
        assert [busy.recv(timeout=WAIT_S) for _ in range(2)] == ["done", "new 2"]


def test_a_taker_that_dies_costs_nobody_anything_but_whom_it_had(engine_name: str, other_engine: str) -> None:
    with two(echoing(), echoing(), engine_name, other_engine) as (old, _), crowd(old, 260) as peers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        giving = asyncio.run_coroutine_threadsafe(old.server.worker.give(ours), old.loop)
        first = received(theirs, b"S", room=1000)
        theirs.send(b"A750")
        _, second, _, _ = socket.recv_fds(theirs, 16, 300)
        assert (len(first), len(second)) == (1 + module.FIRST_BATCH, 1 + 260 - module.FIRST_BATCH)
        theirs.close()
        for fd in first + second:
            os.close(fd)
        assert giving.result(WAIT_S) == module.FIRST_BATCH
        assert open_at(old) == [260 - module.FIRST_BATCH]
        eventually(lambda: [peer.read() for peer in peers] and sum(peer.ended is not None for peer in peers) == module.FIRST_BATCH)


@pytest.mark.parametrize("hook", ["on_resume", "on_connect"])
def test_the_app_gets_those_back_that_stay_after_all(engine_name: str, other_engine: str, hook: str) -> None:
    """It was told that they leave (on_handover), and perhaps has taken them off its lists."""
    app = echoing()
    room: list[Any] = []
    app.on_handover = lambda conn: room.remove(conn) or "state"

    def connect(conn: Any) -> None:
        assert (conn.resumed, conn.state) == ((True, "state") if room_was_left else (False, None))
        room.append(conn)

    def resume(conn: Any, state: Any) -> None:
        assert (conn.resumed, state) == (True, "state")
        room.append(conn)

    room_was_left = False
    app.on_connect = connect
    if hook == "on_resume":
        app.on_resume = resume
    with two(app, echoing(), engine_name, other_engine) as (old, _), old.clients(3) as clients:
        assert answers(clients) == ["x"] * 3
        room_was_left = True
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        giving = asyncio.run_coroutine_threadsafe(old.server.worker.give(ours), old.loop)
        fds = received(theirs, b"S")
        assert room == []
        theirs.close()
        for fd in fds:
            os.close(fd)
        assert giving.result(WAIT_S) == 0
        assert len(room) == 3
        assert answers(clients) == ["x"] * 3
        assert old.counters["handler_errors"] == 0


def test_a_state_that_cannot_be_passed_on_keeps_its_connection_here(
    engine_name: str, other_engine: str, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    app = echoing("old ")
    states = itertools.cycle([lambda: None, "fine"])
    app.on_connect = lambda conn: setattr(conn, "state", next(states)) if not conn.resumed else None
    gone: list[Any] = []
    app.on_handover = lambda conn: gone.append(conn) or conn.state
    back: list[Any] = []
    app.on_resume = lambda conn, state: back.append((conn, state))
    with two(app, echoing("new "), engine_name, other_engine) as (old, new), old.clients(6) as clients:
        eventually(lambda: open_at(old) == [6])
        assert give(old, new, 2) == 2
        assert give(old, new) == 1
        assert open_at(old, new) == [3, 3]
        assert sorted(answers(clients)) == ["new x"] * 3 + ["old x"] * 3
        assert {conn.id for conn, _ in back} == {conn.id for conn in gone if conn.is_open}
        assert all(callable(state) for _, state in back)
    assert "so it stays where it is; let on_handover return what the new process needs" in caplog.text


def test_a_taker_that_hangs_gives_back_what_it_did_not_take(
    engine_name: str, other_engine: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "ANSWER_S", 0.5)
    with two(echoing("old "), echoing("new "), engine_name, other_engine) as (old, new), old.clients(3) as clients:
        eventually(lambda: open_at(old) == [3])
        hanging = threading.Event()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        new.call(lambda: new.server.worker.take_over(theirs))
        worker: Worker = new.server.worker
        heard = worker._arriving[-1].link.heard

        def slow(kind: bytes, payload: Any, fds: list[int]) -> None:
            if kind == b"B":
                hanging.wait(WAIT_S)
            heard(kind, payload, fds)

        worker._arriving[-1].link.heard = slow
        assert asyncio.run_coroutine_threadsafe(old.server.worker.give(ours), old.loop).result(WAIT_S) == 0
        hanging.set()
        assert answers(clients) == ["old x"] * 3
        eventually(lambda: worker._arriving[-1].is_over)
        assert open_at(old, new) == [3, 0]
    assert "it has not answered" in caplog.text


def test_a_stop_while_the_taker_hangs_comes_to_its_end(engine_name: str, other_engine: str) -> None:
    with two(echoing(), echoing(), engine_name, other_engine, stop_timeout_s=0.2) as (old, _), old.clients(3) as clients:
        answers(clients)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        giving = asyncio.run_coroutine_threadsafe(old.server.worker.give(ours), old.loop)
        fds = received(theirs, b"S")
        old.run(old.server.stop())
        assert giving.result(WAIT_S) == 0
        theirs.close()
        for fd in fds:
            os.close(fd)


def test_two_that_give_to_each_other_come_to_an_end(engine_name: str, other_engine: str) -> None:
    with two(echoing(), echoing(), engine_name, other_engine) as (old, new), old.clients(3) as ones, new.clients(3) as others:
        answers(ones + others)
        crossing = [begin(old, new), begin(new, old)]
        moved = [each.result(WAIT_S) for each in crossing]
        assert set(moved) <= {0, 3, 6}
        assert sum(open_at(old, new)) == 6
        assert answers(ones + others) == ["x"] * 6


def test_a_handover_in_the_middle_goes_before_it(engine_name: str, other_engine: str) -> None:
    """What was given has moved; everything else goes to the successor, and what somebody would give now stays with him."""
    with (
        served(echoing("neighbour "), serial=2, engine=other_engine) as neighbour,
        two(echoing("old "), echoing("successor "), engine_name, other_engine) as (old, successor),
        crowd(old, 600),
    ):

        async def both() -> tuple[int, bool]:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            neighbour.loop.call_soon_threadsafe(neighbour.server.worker.take_over, theirs)
            giving = asyncio.ensure_future(old.server.worker.give(ours))
            while not old.server.worker._engine.departing:
                await asyncio.sleep(0)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            successor.loop.call_soon_threadsafe(successor.server.worker.take_over, theirs)
            handed_over = await old.server.worker.hand_over(ours)
            return await giving, handed_over

        moved, handed_over = old.run(both())
        assert handed_over
        assert moved == module.FIRST_BATCH
        assert open_at(old, neighbour, successor) == [0, moved, 600 - moved]
        assert give(neighbour, old) == 0
        assert open_at(neighbour) == [moved]


def test_a_broadcast_is_for_those_whom_the_worker_has_and_loses_nobody_on_the_way(engine_name: str, other_engine: str) -> None:
    with two(Handlers(), Handlers(), engine_name, other_engine) as (old, new), crowd(old, 600) as peers, crowd(new, 50) as others:
        said = {"old": publishing(old, "old"), "new": publishing(new, "new")}
        assert give(old, new, 300) == 300
        for each in said.values():
            each.end()
            each.there.call(each.once)
        last = {name: f"{name} {each.count - 1}" for name, each in said.items()}
        complete = {name: [f"{name} {number}" for number in range(each.count)] for name, each in said.items()}
        for peer in [*peers, *others]:
            eventually(lambda peer=peer: peer.read() is None or set(last.values()) & set(peer.messages))
        stayed = [peer for peer in peers if last["old"] in peer.messages]
        moved = [peer for peer in peers if last["new"] in peer.messages]
        assert (len(stayed), len(moved)) == (300, 300)
        assert all(peer.messages == complete["old"] for peer in stayed)
        assert all(peer.messages == complete["new"] for peer in others)
        for peer in moved:
            before = [message for message in peer.messages if str(message).startswith("old")]
            after = [message for message in peer.messages if str(message).startswith("new")]
            assert before == complete["old"][: len(before)]
            assert after == complete["new"][len(complete["new"]) - len(after) :]


def test_what_the_app_sends_to_clients_that_move_comes_in_order_and_once(engine_name: str, other_engine: str) -> None:
    """From a task of the old worker, and of the new one once it has them; `send` never gives False but to whom is gone."""
    old_app, new_app = Handlers(), Handlers()
    kept: list[Any] = []
    old_app.on_connect = kept.append
    resumed: list[Any] = []
    new_app.on_resume = lambda conn, state: resumed.append(conn)
    with two(old_app, new_app, engine_name, other_engine) as (old, new), crowd(old, 300) as peers:
        numbers = sending(old, kept)
        assert give(old, new, 270) == 270
        numbers.end()
        old.call(lambda: [connection.send("last") for connection in kept])
        for connection in resumed:
            new.call(lambda connection=connection: connection.send("last"))
        for peer in peers:
            eventually(lambda peer=peer: peer.read() is None or "last" in peer.messages)
            assert peer.messages[:-1] == [f"{number}" for number in range(len(peer.messages) - 1)]
        assert sum(len(peer.messages) == numbers.count + 1 for peer in peers) >= 30


def test_nothing_is_kept_of_a_gift(engine_name: str, other_engine: str) -> None:
    with two(echoing(), echoing(), engine_name, other_engine) as (old, new), old.clients(2) as clients:
        answers(clients)
        for giver, taker in [(old, new), (new, old)] * 3:
            assert give(giver, taker) == 2
            assert giver.server.worker._leaving == []
            eventually(lambda taker=taker: all(each.is_over for each in taker.server.worker._arriving))
        assert len(old.server.worker._arriving) + len(new.server.worker._arriving) <= 2
