"""Limits of the whole server, dealt out to workers that know nothing of each other; and what the server writes."""

from __future__ import annotations

import json
import os
import signal
import socket

from tests.peer import request
from tests.supervisor.conftest import Run
from tests.supervisor.running import Running, until


def knock(server: Running) -> socket.socket | None:
    """A WebSocket, or None where the server is full."""
    peer = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    try:
        peer.sendall(request("/"))
        if peer.recv(13) == b"HTTP/1.1 101 ":
            server.clients.callback(peer.close)
            return peer
    except ConnectionError:
        pass
    peer.close()
    return None


def total(server: Running) -> int:
    return int(server.stats["total"]["connections_counted"])


def test_all_workers_together_hold_no_more_than_the_total(run: Run, engine_name: str) -> None:
    server = run(workers=2, engine=engine_name, max_connections_total=10).ready()
    inside: list[socket.socket] = []

    def one_more() -> bool:
        if peer := knock(server):
            inside.append(peer)
        assert total(server) <= 10
        return len(inside) == 10

    until(one_more)
    assert [knock(server) for _ in range(10)] == [None] * 10
    assert total(server) == 10
    assert server.stats["total"]["closes"]["limit"] >= 10
    for _ in range(4):
        inside.pop().close()
    until(lambda: total(server) == 6)
    until(one_more)


def test_places_of_a_killed_worker_become_free_and_its_successor_keeps_the_total(run: Run) -> None:
    server = run(workers=2, max_connections_total=8).ready()
    until(lambda: knock(server) and total(server) == 8)
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    server.successors(victim, workers=2)
    until(lambda: knock(server) is not None)

    def full_again() -> bool:
        knock(server)
        assert total(server) <= 8
        return total(server) == 8

    until(full_again)


def test_every_worker_is_told_that_memory_is_short(run: Run, engine_name: str) -> None:
    server = run(workers=2, engine=engine_name, shed_memory=0.0001).ready()
    until(lambda: [worker["shedding"] for worker in server.stats["workers"]] == [1, 1])
    assert until(lambda: answer(server).startswith(b"HTTP/1.1 503 "))
    pressure = server.stats["pressure"]
    assert pressure["shedding"]
    assert 0.0001 < pressure["memory_used"] < 1
    server.says(r"memory is short: \d+% in use.*new handshakes get 503")


def answer(server: Running) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as peer:
        peer.sendall(request("/"))
        return peer.recv(1000)


def test_every_line_of_every_process_is_one_json_object(run: Run) -> None:
    server = run(workers=2, log_format="json", log_level="debug", access_log=True).ready()
    assert server.echoes()
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    server.successors(victim, workers=2)
    server.says('"cause": "peer_closed"')
    server.stop()
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert {"unlimitedws.supervisor", "unlimitedws.access"} <= {line["logger"] for line in lines}
    assert {"info", "error"} <= {line["level"] for line in lines}
    assert len({line["process"] for line in lines}) >= 2
