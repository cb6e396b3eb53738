"""Two workers, and the live connections between them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.handover.workers import echoing, hand_over, publishing, received, two
from tests.peer import Peer
from tests.peer import request as upgrade_request
from tests.serving import WAIT_S, eventually, head, masked, served, upgrade
from unlimitedws.engine.moved import Moved
from unlimitedws.errors import AppInvalid
from unlimitedws.functions import blocking
from unlimitedws.handlers import Handlers
from unlimitedws.handover.leaving import FIRST_BATCH
from unlimitedws.handover.link import BATCH, Luggage, written
from unlimitedws.wire.closing import SERVICE_RESTART


def test_a_client_notices_nothing(engine_name: str, other_engine: str) -> None:
    with two(echoing("old "), echoing("new "), engine_name, other_engine) as (old, new), old.clients(3) as clients:
        for client in clients:
            client.send("hello")
            assert client.recv(timeout=WAIT_S) == "old hello"
        assert hand_over(old, new)
        for client in clients:
            client.send("hello")
            assert client.recv(timeout=WAIT_S) == "new hello"
        eventually(lambda: (old.counters["connections_open"], new.counters["connections_open"]) == (0, 3))


def test_the_state_comes_along_and_on_connect_knows_that_nobody_is_new(engine_name: str, other_engine: str) -> None:
    def remembering() -> Handlers:
        handlers = Handlers()

        @handlers.on_connect
        def connect(conn: Any) -> None:
            if not conn.resumed:
                conn.state = {"name": "somebody", "count": 0}

        @handlers.on_message
        def count(conn: Any, message: Any) -> None:
            conn.state["count"] += 1
            conn.send(f"{conn.state['name']} {conn.state['count']} {conn.resumed}")

        return handlers

    with two(remembering(), remembering(), engine_name, other_engine) as (old, new), old.client() as client:
        client.send("")
        assert client.recv(timeout=WAIT_S) == "somebody 1 False"
        hand_over(old, new)
        client.send("")
        assert client.recv(timeout=WAIT_S) == "somebody 2 True"


@pytest.mark.parametrize("kind", ["plain", "async", "blocking"])
def test_what_on_handover_returns_arrives_in_on_resume_before_any_message(engine_name: str, other_engine: str, kind: str) -> None:
    old_app, new_app = Handlers(), Handlers()
    old_app.on_connect = lambda conn: setattr(conn, "state", object())  # which pickle does not take
    old_app.on_handover = lambda conn: b"from %d" % (conn.id & 0xFF)
    seen: list[Any] = []
    connects: list[Any] = []
    new_app.on_connect = connects.append

    def resume(conn: Any, state: Any) -> None:
        seen.append(state)

    async def resume_async(conn: Any, state: Any) -> None:
        await asyncio.sleep(0.05)
        seen.append(state)

    new_app.on_resume = {"plain": resume, "async": resume_async, "blocking": blocking(resume)}[kind]
    new_app.on_message = lambda conn, message: seen.append(message)
    with two(old_app, new_app, engine_name, other_engine) as (old, new), old.socket() as peer:
        upgrade(peer)
        eventually(lambda: old.counters["connections_open"])
        peer.sendall(masked(b"12345")[:7])
        eventually(lambda: old.counters["bytes_in"] > 7)
        hand_over(old, new)
        peer.sendall(masked(b"12345")[7:])
        eventually(lambda: len(seen) == 2)
        assert seen == [b"from 1", b"12345"]
        assert connects == []


def gone(client: Any) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=WAIT_S)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def test_a_state_that_cannot_be_pickled_closes_its_connection_alone(
    engine_name: str, other_engine: str, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    old_app = echoing()
    states = iter([lambda: None, "fine"])
    old_app.on_connect = lambda conn: setattr(conn, "state", next(states))
    with two(old_app, echoing("new "), engine_name, other_engine) as (old, new), old.client() as bad, old.client() as good:
        eventually(lambda: old.counters["connections_open"] == 2)
        hand_over(old, new)
        assert gone(bad) == (1012, "state was lost")
        good.send("x")
        assert good.recv(timeout=WAIT_S) == "new x"
        eventually(lambda: new.counters["closes_not_resumed"] == 1)
    assert "let on_handover return what the new process needs" in caplog.text


class Broken:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_a_state_that_the_new_code_cannot_restore_closes_with_1012(
    engine_name: str, other_engine: str, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    old_app = echoing()
    old_app.on_connect = lambda conn: setattr(conn, "state", Broken())
    with two(old_app, echoing(), engine_name, other_engine) as (old, new), old.client() as client:
        eventually(lambda: old.counters["connections_open"] == 1)
        hand_over(old, new)
        assert gone(client) == (1012, "state was lost")
    assert "does not fit the new code" in caplog.text


def test_a_path_that_is_no_more_closes_with_1012_and_calls_nobody(engine_name: str, other_engine: str) -> None:
    called: list[Any] = []
    new_app = Handlers()
    new_app.on_connect = new_app.on_message = new_app.on_close = lambda *args: called.append(args)
    with two({"/old": echoing()}, {"/new": new_app}, engine_name, other_engine) as (old, new), old.client("/old") as client:
        eventually(lambda: old.counters["connections_open"] == 1)
        hand_over(old, new)
        assert gone(client) == (1012, "state was lost")
        eventually(lambda: not new.counters["connections_open"])
    assert called == []


@pytest.mark.parametrize(("hook", "code"), [("on_handover", 1011), ("on_resume", 1011)])
def test_a_hook_that_raises_closes_its_connection(engine_name: str, other_engine: str, hook: str, code: int) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no")

    old_app, new_app = echoing(), echoing()
    setattr(old_app if hook == "on_handover" else new_app, hook, fail)
    with two(old_app, new_app, engine_name, other_engine) as (old, new), old.client() as client:
        eventually(lambda: old.counters["connections_open"] == 1)
        assert hand_over(old, new)
        assert gone(client)[0] == code
        eventually(lambda: old.counters["handler_errors"] + new.counters["handler_errors"] == 1)


def test_on_handover_cannot_be_async() -> None:
    handlers = Handlers()

    async def slow(conn: Any) -> None: ...

    with pytest.raises(AppInvalid, match="plain function"):
        handlers.on_handover = slow


def test_a_pending_handler_is_awaited(engine_name: str, other_engine: str) -> None:
    old_app = Handlers()

    @old_app.on_message
    async def work(conn: Any, message: Any) -> None:
        await asyncio.sleep(0.3)
        conn.send(f"done {message}")

    with two(old_app, echoing("new "), engine_name, other_engine) as (old, new), old.client() as client:
        client.send("1")
        client.send("2")
        eventually(lambda: old.counters["messages_in"])
        assert hand_over(old, new)
        client.send("3")
        answers = [client.recv(timeout=WAIT_S) for _ in range(3)]
        assert answers in (["done 1", "done 2", "new 3"], ["done 1", "new 2", "new 3"])


def test_who_is_pending_for_too_long_stays_and_is_drained(engine_name: str, other_engine: str) -> None:
    old_app = Handlers()

    @old_app.on_message
    async def work(conn: Any, message: Any) -> None:
        await asyncio.Event().wait()

    with (
        two(old_app, echoing(), engine_name, other_engine, handover_timeout_s=0.1, stop_timeout_s=1.0) as (old, new),
        old.client() as stuck,
        old.client() as free,
    ):
        stuck.send("1")
        eventually(lambda: old.counters["messages_in"])
        assert hand_over(old, new)
        assert old.counters["connections_open"] == 1
        old.run(old.server.stop(SERVICE_RESTART, "server is restarting"))
        assert gone(stuck)[0] == 1012
        free.send("x")
        assert free.recv(timeout=WAIT_S) == "x"


def test_an_expiry_comes_along(engine_name: str, other_engine: str) -> None:
    with two(echoing(), echoing(), engine_name, other_engine) as (old, new), old.client() as client:
        eventually(lambda: old.counters["connections_open"] == 1)
        worker = old.server.worker
        worker.expire_at(old.call(lambda: worker.connections)[0], time.time() + 1.5)
        hand_over(old, new)
        assert gone(client) == (1008, "expired")
        eventually(lambda: new.counters["closes_expired"] == 1)


def test_a_successor_that_dies_before_it_acknowledged_costs_nobody_anything(engine_name: str, other_engine: str) -> None:
    with two(echoing("old "), echoing("new "), engine_name, other_engine) as (old, new), old.client() as client:
        client.send("1")
        assert client.recv(timeout=WAIT_S) == "old 1"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handing = asyncio.run_coroutine_threadsafe(old.server.worker.hand_over(ours), old.loop)
        fds = received(theirs)
        for fd in fds:
            socket.close(fd)
        theirs.close()
        assert handing.result(WAIT_S) is False
        client.send("2")
        assert client.recv(timeout=WAIT_S) == "old 2"
        assert hand_over(old, new)  # the next one
        client.send("3")
        assert client.recv(timeout=WAIT_S) == "new 3"


def test_who_acknowledged_and_died_had_them(engine_name: str, other_engine: str) -> None:
    with two(echoing(), echoing(), engine_name, other_engine) as (old, _), old.client() as client:
        eventually(lambda: old.counters["connections_open"] == 1)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handing = asyncio.run_coroutine_threadsafe(old.server.worker.hand_over(ours), old.loop)
        fds = received(theirs)
        theirs.send(b"A0")
        theirs.close()
        for fd in fds:
            socket.close(fd)
        handing.result(WAIT_S)
        eventually(lambda: old.counters["connections_open"] == 0)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=WAIT_S)


def test_a_batch_that_cannot_be_read_stays_with_its_giver(
    engine_name: str, other_engine: str, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    with two(echoing(), echoing(), engine_name, other_engine) as (_, new):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(WAIT_S)
        new.call(lambda: new.server.worker.take_over(theirs))
        with ours, ours.dup() as connection:
            memory = os.memfd_create("rubbish")
            socket.send_fds(ours, [b"B"], [memory, connection.fileno()])
            socket.close(memory)
            assert ours.recv(16) == b""  # no acknowledgement, but the end
    assert "is it of another release?" in caplog.text


def test_what_on_handover_publishes_reaches_its_own_connection(engine_name: str, other_engine: str) -> None:
    old_app = echoing()
    with two(old_app, echoing(), engine_name, other_engine) as (old, new), old.client() as client:
        eventually(lambda: old.counters["connections_open"] == 1)
        old.server.worker.broadcast("before")
        assert client.recv(timeout=WAIT_S) == "before"
        old_app.on_handover = lambda conn: old.server.worker.broadcast("moving") and None
        assert hand_over(old, new)
        assert client.recv(timeout=WAIT_S) == "moving"
        client.send("after")
        assert client.recv(timeout=WAIT_S) == "after"


def test_a_stop_in_the_middle_waits_for_the_batch_on_its_way(engine_name: str, other_engine: str) -> None:
    with two(echoing(), echoing(), engine_name, other_engine) as (old, new), ExitStack() as stack:
        peers = [Peer(stack.enter_context(old.socket())) for _ in range(300)]
        for peer in peers:
            peer.say(upgrade_request())
        eventually(lambda: old.counters["connections_open"] == 300)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        new.call(lambda: new.server.worker.take_over(theirs))

        async def both() -> None:
            handing = asyncio.ensure_future(old.server.worker.hand_over(ours))
            while not old.server.worker._engine.departing:
                await asyncio.sleep(0)
            await asyncio.gather(handing, old.server.worker.stop())

        old.run(both())
        moved = new.counters["connections_open"]
        eventually(lambda: [peer.read() for peer in peers] and sum(peer.ended is not None for peer in peers) == 300 - moved)
        assert moved in (FIRST_BATCH, FIRST_BATCH + BATCH, 300)


def test_broadcasts_of_both_sides_reach_everybody_once(engine_name: str, other_engine: str) -> None:
    with two(Handlers(), Handlers(), engine_name, other_engine) as (old, new), ExitStack() as stack:
        peers = [stack.enter_context(old.socket()) for _ in range(600)]
        for peer in peers:
            peer.sendall(upgrade_request())
            head(peer)
        eventually(lambda: old.counters["connections_open"] == 600)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        new.call(lambda: new.server.worker.take_over(theirs))
        said = {"old": publishing(old, "old"), "new": publishing(new, "new")}
        assert old.run(old.server.worker.hand_over(ours))
        for each in said.values():
            each.end()
            each.there.call(each.once)
        expected = sorted(f"{name} {number}" for name, each in said.items() for number in range(each.count))
        for peer in peers:
            raw = Peer(peer)
            raw.is_upgraded, raw.head = True, b"read"
            eventually(lambda raw=raw: raw.read() is None or len(raw.messages) >= len(expected))
            assert sorted(map(str, raw.messages)) == expected


def test_who_lost_the_giver_lets_go_of_what_it_gave(engine_name: str) -> None:
    """The giver goes on with a batch that nobody could acknowledge any more; so must its copies here be closed."""
    with served(echoing(), engine=engine_name) as new:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client, connection = socket.socketpair()
        with ours, client, connection:
            memory = written((0, [(Moved(1, "/"), Luggage())]))
            socket.send_fds(ours, [b"B"], [memory, connection.fileno()])
            socket.close(memory)
        new.call(lambda: new.server.worker.take_over(theirs))
        eventually(lambda: all(each.ended.done() for each in new.server.worker._arriving))
        assert new.counters["connections_open"] == 0


def test_what_was_published_is_not_kept_for_ever(engine_name: str, other_engine: str) -> None:
    with two(Handlers(), Handlers(), engine_name, other_engine) as (old, new), old.client() as client:
        eventually(lambda: old.counters["connections_open"] == 1)
        assert hand_over(old, new)
        (arriving,) = new.server.worker._arriving
        eventually(lambda: arriving.is_complete)
        for number in range(10):
            new.server.worker.broadcast(f"{number}")
        assert [client.recv(timeout=WAIT_S) for _ in range(10)] == [f"{number}" for number in range(10)]
        assert arriving.publications == []


def test_a_link_that_dies_afterwards_harms_nobody(engine_name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with served(echoing(), engine=engine_name) as new:
        for _ in itertools.repeat(None, 3):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            new.call(lambda theirs=theirs: new.server.worker.take_over(theirs))
            ours.close()
        with new.client() as client:
            client.send("x")
            assert client.recv(timeout=WAIT_S) == "x"
            new.server.worker.broadcast("news")
            assert client.recv(timeout=WAIT_S) == "news"
    assert caplog.text == ""
