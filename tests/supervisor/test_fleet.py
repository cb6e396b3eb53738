"""Workers and templates that die: what clients and the operator see of it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.supervisor.conftest import Run
from tests.supervisor.running import Running, is_alive, until

# ---- death


def test_a_killed_worker_is_replaced_within_a_second(run: Run, engine_name: str) -> None:
    assert any(
        replaced_after_s(run(workers=2, engine=engine_name).ready()) <= 1.0 for _ in range(5)
    )  # in one try: this machine may be busy


def replaced_after_s(server: Running) -> float:
    """How long a killed worker was missing."""
    victim, neighbour = server.workers()
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    assert neighbour in server.successors(victim, workers=2)
    took_s = time.monotonic() - began
    server.says(rf"worker {victim} of slot 0 was killed by SIGKILL; restarting in 0.1 s")
    assert [slot["restarts"] for slot in server.stats["slots"]] == [1, 0]
    assert all(server.echoes() for _ in range(6))
    return took_s


def test_clients_of_other_workers_notice_nothing(run: Run) -> None:
    server = run(workers=2).ready()
    clients = [server.connect() for _ in range(20)]
    os.kill(server.workers()[0], signal.SIGKILL)
    alive = 0
    for client in clients:
        try:
            client.send("still there?")
            alive += client.recv(timeout=30) == "still there?"
        except (ConnectionClosed, OSError):
            pass
    opened = {worker["slot"]: worker["connections_open"] for worker in server.stats["workers"]}
    assert alive == opened.get(1)
    assert 0 < alive < 20


def test_under_load_the_clients_of_other_workers_lose_no_message(run: Run, engine_name: str) -> None:
    server = run(workers=2, engine=engine_name).ready()
    victim = server.workers()[0]
    clients = [server.connect() for _ in range(16)]
    talks = [Talk(client) for client in clients]
    until(lambda: all(talk.answers > 20 for talk in talks))
    os.kill(victim, signal.SIGKILL)
    until(lambda: any(talk.ended for talk in talks))
    server.successors(victim, workers=2)
    after = [talk.answers for talk in talks]
    until(lambda: all(talk.ended or talk.answers > before + 20 for talk, before in zip(talks, after, strict=True)))
    survivors = [talk for talk in talks if talk.finish()]
    opened = {worker["slot"]: worker["connections_open"] for worker in server.stats["workers"]}
    assert 0 < len(survivors) == opened[1] < len(talks)
    assert all(talk.wrong == 0 for talk in talks)


class Talk:
    """A client that sends numbered messages as fast as they are answered, in a thread of its own."""

    def __init__(self, client: ClientConnection) -> None:
        self.client, self.answers, self.wrong = client, 0, 0
        self.ended, self._stop = False, False
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def _talk(self) -> None:
        try:
            while not self._stop:
                self.client.send(f"message {self.answers}")
                self.wrong += self.client.recv(timeout=30) != f"message {self.answers}"
                self.answers += 1
        except (ConnectionClosed, OSError):
            self.ended = True

    def finish(self) -> bool:
        """Stops; whether the connection is still there."""
        self._stop = True
        self._thread.join()
        return not self.ended


def test_clients_in_the_queue_of_a_dead_worker_are_served_by_its_successor(run: Run) -> None:
    server = run(workers=1).ready()
    victim = server.workers()[0]
    os.kill(victim, signal.SIGSTOP)  # it accepts nothing more; the kernel queues for it
    request = (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    queued = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(50)]
    for client in queued:
        client.sendall(request)
    os.kill(victim, signal.SIGKILL)
    for client in queued:
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        client.close()


def test_what_a_dead_worker_has_counted_is_not_lost_and_what_it_held_is(run: Run) -> None:
    server = run(workers=1).ready()
    client = server.connect()
    for _ in range(7):
        client.send("count me")
        client.recv(timeout=30)
    before = server.stats["total"]
    assert (before["messages_in"], before["connections_open"]) == (7, 1)
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    server.successors(victim, workers=1)
    stats = server.stats
    assert (stats["total"]["messages_in"], stats["total"]["connections_open"]) == (7, 0)
    assert (stats["slots"][0]["messages_in"], stats["slots"][0]["restarts"]) == (7, 1)
    assert stats["workers"][0]["messages_in"] == 0
    assert server.echoes()
    assert server.stats["total"]["messages_in"] == 8


def test_a_worker_that_somebody_told_to_stop_is_replaced_while_it_drains(run: Run) -> None:
    server = run(workers=1, close_timeout_s=60).ready()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as mute:
        mute.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert mute.recv(4096).startswith(b"HTTP/1.1 101")
        quitter = server.workers()[0]
        os.kill(quitter, signal.SIGTERM)
        server.says(rf"worker {quitter} of slot 0 was told to stop, not by us")
        assert server.echoes()
        # A worker accepts a moment before the supervisor hears of it.
        until(
            lambda: (
                sorted((worker["state"], worker["pid"] == quitter) for worker in server.stats["workers"])
                == [("draining", True), ("ready", False)]
            )
        )
    until(lambda: not is_alive(quitter))
