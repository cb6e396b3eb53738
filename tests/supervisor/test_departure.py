"""From SIGTERM to the end: readiness, the queues, the last words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import threading
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.peer import request
from tests.supervisor.conftest import Run
from tests.supervisor.running import Running, until
from unlimitedws.config import Config
from unlimitedws.supervisor import departure as module
from unlimitedws.supervisor.descriptors import raise_limit
from unlimitedws.supervisor.listeners import Listeners, has_waiting, listen_for_slots
from unlimitedws.supervisor.stopping import Stopping


def health(server: Running) -> int:
    """Status of the health route on the main port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health", timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_during_the_delay_nobody_is_ready_and_everybody_is_served(run: Run, engine_name: str) -> None:
    server = run(workers=2, drain_delay_s=300, health_path="/health", engine=engine_name).ready()
    client = server.connect()
    assert (health(server), server.get("/readyz")[0]) == (200, 200)
    server.signal(signal.SIGTERM)
    server.says("not ready any more, and accepting for another 300 s")
    assert server.get("/readyz")[0] == 503
    assert not server.stats["ready"]
    until(lambda: {health(server) for _ in range(8)} == {503})
    assert server.echoes()
    client.send("still there?")
    assert client.recv(timeout=30) == "still there?"
    server.signal(signal.SIGTERM)
    server.says("SIGTERM again: stopping at once")
    assert server.ends() == 0


def test_after_the_delay_it_stops_as_ever(run: Run) -> None:
    server = run(drain_delay_s=0.2).ready()
    client = server.connect()
    server.signal(signal.SIGTERM)
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "server is stopping, retry in 1 s")
    assert server.ends() == 0
    assert "killing" not in server.log


def test_a_worker_that_dies_during_the_delay_is_replaced_by_one_that_is_not_ready_either(run: Run) -> None:
    server = run(workers=1, drain_delay_s=300, health_path="/health").ready()
    server.signal(signal.SIGTERM)
    server.says("not ready any more")
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    server.successors(victim, workers=1)
    until(lambda: health(server) == 503)
    assert server.echoes()
    server.signal(signal.SIGTERM)
    assert server.ends() == 0


def test_a_sigterm_to_the_whole_group_ends_the_delay_as_nobody_is_left_to_accept(run: Run) -> None:
    server = run(workers=2, drain_delay_s=300).ready()
    client = server.connect()
    os.killpg(server.pid, signal.SIGTERM)
    with pytest.raises(ConnectionClosed):
        client.recv(timeout=30)
    assert server.ends() == 0
    assert "starting another" not in server.log


def test_clients_that_wait_in_the_queue_are_served_before_the_listener_closes(run: Run, engine_name: str) -> None:
    """Each of them gets a WebSocket and a polite end; none is reset. (64 are accepted in one turn.)"""
    server = run(workers=1, engine=engine_name).ready()
    pids = server.workers()
    port = server.port
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        queued = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(400)]
        for client in queued:
            client.sendall(request())
        server.signal(signal.SIGTERM)
        server.says("SIGTERM: stopping")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for client in queued:
            assert everything(client).startswith(b"HTTP/1.1 101")
    assert server.ends() == 0


def test_a_stop_in_a_storm_of_clients_resets_none_of_them(run: Run) -> None:
    server = run(workers=2).ready()
    port, ends = server.port, []

    def come_again_and_again() -> None:
        served = 0
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                    client.sendall(request())
                    served += client.recv(4096).startswith(b"HTTP/1.1 101")
        ends.append(served)  # and not a ConnectionResetError, which would end the thread before

    threads = [threading.Thread(target=come_again_and_again) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: server.stats["total"]["connections_opened"] > 100)
    server.signal(signal.SIGTERM)
    assert server.ends() == 0
    for thread in threads:
        thread.join()
    assert len(ends) == len(threads)
    assert sum(ends) > 100


def everything(client: socket.socket) -> bytes:
    """All that a client is sent, until the Close frame; it is answered then."""
    said = b""
    while b"\r\n\r\n" not in said or not said.partition(b"\r\n\r\n")[2]:
        part = client.recv(65536)
        assert part, said
        said += part
    return said


def test_progress_is_told_while_clients_are_left(run: Run) -> None:
    server = run(stop_timeout_s=300, close_timeout_s=300).ready()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as mute:
        mute.sendall(request())
        assert mute.recv(4096).startswith(b"HTTP/1.1 101")
        server.signal(signal.SIGTERM)
        server.says(r"stopping: 1 of 1 connection left, cut in \d+ s at the latest", timeout_s=30)
        server.signal(signal.SIGTERM)
        assert server.ends() == 0


NEVER_DONE = """
import asyncio
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_message
async def work(conn, message):
    conn.send("begun")
    await asyncio.Event().wait()
"""


def test_clients_that_a_reload_cannot_move_are_asked_back_with_1012(run: Run, engine_name: str) -> None:
    server = run(source=NEVER_DONE, workers=1, engine=engine_name, handover_timeout_s=0.1, stop_timeout_s=2).ready()
    client = server.connect()
    client.send("?")
    assert client.recv(timeout=30) == "begun"
    server.signal(signal.SIGHUP)
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "server is restarting, retry in 1 s")


def test_a_crowd_is_asked_back_over_several_seconds(run: Run, engine_name: str) -> None:
    """1001 clients: the window is two seconds, and every batch goes over both."""
    raise_limit()  # of this process, which has a descriptor for each of them
    server = run(workers=1, engine=engine_name, drain_batch=100, ping_interval_s=0).ready()
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(1001):
            clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)))
            clients[-1].sendall(request())
        for client in clients:
            assert client.recv(4096).startswith(b"HTTP/1.1 101")
        until(lambda: server.stats["total"]["connections_open"] == 1001)
        server.signal(signal.SIGTERM)
        said = [client.recv(4096) for client in clients]
    hints = [re.search(rb"retry in (\d+) s", each) for each in said]
    seconds = [int(hint[1]) if hint else 0 for hint in hints]
    assert abs(seconds.count(1) - seconds.count(2)) <= 100
    assert set(seconds) == {1, 2}
    assert server.ends() == 0


# ---- the wait for the queues


def waited(listeners: Listeners, *, is_served: bool) -> int:
    """How often the departure looks again, at most 1000 times."""
    pauses = 0

    async def main() -> None:
        async def pause(seconds: float) -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 1000:
                stopping.set()

        stopping = Stopping()
        stopping.pause = pause  # type: ignore[method-assign]
        fleet: Any = SimpleNamespace(listeners=listeners, is_served=is_served, stopping=stopping, loop=SimpleNamespace(time=lambda: 0.0))
        await module.empty_queues(fleet)

    asyncio.run(main())
    return pauses


def test_it_waits_while_somebody_is_in_a_queue_and_somebody_accepts() -> None:
    listeners = listen_for_slots(Config(port=0), 2)
    try:
        with socket.create_connection(listeners.all[0].sock.getsockname()):
            until(lambda: has_waiting(listeners.ending))
            assert waited(listeners, is_served=True) == 1000
            assert waited(listeners, is_served=False) == 1
            for listener in listeners.all:
                with contextlib.suppress(BlockingIOError):
                    listener.sock.accept()[0].close()
            assert waited(listeners, is_served=True) == 1
    finally:
        listeners.close()
