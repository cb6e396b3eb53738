"""Processes that die in the middle of a handover, at the same place each time: a hook of the app kills its own."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.peer import Peer, pack, request
from tests.serving import head
from tests.supervisor.conftest import Run
from tests.supervisor.running import ECHO, Running, launcher, until
from tests.supervisor.test_rebalance import rebalancing
from unlimitedws.handover.leaving import FIRST_BATCH
from unlimitedws.handover.link import BATCH

TWO_BATCHES = FIRST_BATCH + BATCH

DYING = (
    ECHO
    + """
import os, signal
calls = 0

def live_or_die(hook):
    global calls
    calls += 1
    if calls == 100 and os.path.exists(f"kill in {hook}"):
        os.unlink(f"kill in {hook}")
        os.kill(os.getpid(), signal.SIGKILL)

@handlers.on_handover
def handover(conn):
    live_or_die("on_handover")

@handlers.on_resume
def resume(conn, state):
    live_or_die("on_resume")
"""
)


@contextmanager
def crowd(server: Running, size: int) -> Iterator[list[Peer]]:
    """Upgraded clients."""
    with ExitStack() as stack:
        peers = []
        for _ in range(size):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            sock.sendall(request())
            head(sock)
            peers.append(Peer(sock))
            peers[-1].is_upgraded, peers[-1].head = True, b"read"
        until(lambda: server.stats["total"]["connections_open"] == size)
        yield peers


def alive(peers: list[Peer], message: bytes) -> list[Peer]:
    """Those who get an echo; the others are cut, and none gets anything else."""
    for peer in peers:
        if not peer.ended:
            try:
                peer.say(pack(2, message))
            except OSError:
                peer.ended = "reset"
    until(lambda: [peer.read() for peer in peers if not peer.ended] and all(peer.ended or peer.messages for peer in peers))
    there = [peer for peer in peers if not peer.ended]
    assert all(peer.messages == [message] for peer in there)
    for peer in there:
        peer.frames.clear()
    return there


@pytest.mark.parametrize("hook", ["on_handover", "on_resume"])
def test_who_dies_in_a_reload_takes_with_it_whom_it_has(run: Run, engine_name: str, hook: str) -> None:
    """The second batch: the giver dies before it has given it, the taker when it has acknowledged it."""
    server = run(source=DYING, workers=1, engine=engine_name, restart_backoff_s=0).ready()
    with crowd(server, 600) as peers:
        assert len(alive(peers, b"before")) == 600
        (before,) = server.workers()
        (server.folder / f"kill in {hook}").touch()
        server.signal(signal.SIGHUP)
        server.says("was killed by SIGKILL")
        server.successors(before, workers=1)
        left = {"on_handover": FIRST_BATCH, "on_resume": 600 - TWO_BATCHES}[hook]
        until(lambda: [(worker["state"], worker["connections_open"]) for worker in server.stats["workers"]] == [("ready", left)])
        assert len(alive(peers, b"after")) == left
        assert server.stats["total"]["closes"]["drain"] == 0


WAITING = (
    DYING.replace("        os.unlink", '        open("start hangs", "w").close()\n        os.unlink')
    + """
import asyncio

@handlers.on_start
async def start(worker):
    while os.path.exists("start hangs"):
        await asyncio.sleep(0.02)
"""
)
OVERDUE = """
# Its time is over as soon as its successor has died.
from unlimitedws.supervisor.fleet import Fleet

go_on_advising = Fleet.go_on_advising

async def look(fleet):
    while not (forsaken := [child for child in fleet.children.values() if child.is_forsaken]):
        await fleet.stopping.pause(0.02)
    fleet.succession.overdue(forsaken[0])

async def advise_and_look(fleet):
    fleet.tasks.start(look(fleet))
    await go_on_advising(fleet)

Fleet.go_on_advising = advise_and_look
"""


def test_whose_successor_died_keeps_its_connections_until_there_is_another(run: Run, engine_name: str) -> None:
    server = run(source=WAITING, script=OVERDUE + launcher(engine=engine_name)).ready()
    with crowd(server, 600) as peers:
        assert len(alive(peers, b"before")) == 600
        (before,) = server.workers()
        (server.folder / "kill in on_resume").touch()
        server.signal(signal.SIGHUP)
        server.says(f"worker {before} of slot 0 keeps its connections until a successor is there")
        left = 600 - TWO_BATCHES
        assert len(alive(peers, b"between")) == left
        (server.folder / "start hangs").unlink()
        until(lambda: [(worker["state"], worker["connections_open"]) for worker in server.stats["workers"]] == [("ready", left)])
        assert len(alive(peers, b"after")) == left
        assert server.stats["total"]["closes"]["drain"] == 0


@pytest.mark.parametrize("hook", ["on_handover", "on_resume"])
def test_who_dies_in_a_gift_takes_with_it_whom_it_has(run: Run, engine_name: str, hook: str) -> None:
    server = run(source=DYING, script=rebalancing(workers=2, engine=engine_name, restart_backoff_s=0)).ready()
    victim = server.workers()[0]
    with crowd(server, 1600) as all_peers:
        os.kill(victim, signal.SIGKILL)
        server.successors(victim, workers=2)
        peers = alive(all_peers, b"before")
        held = len(peers)
        assert held >= 620  # half of them move, in more than one batch
        (server.folder / f"kill in {hook}").touch()
        server.signal(signal.SIGUSR1)
        until(lambda: server.log.count("was killed by SIGKILL") == 2)
        until(lambda: len(server.workers()) == 2)
        there = alive(peers, b"after")
        moved = held // 2
        if hook == "on_handover":  # the giver had nobody but those who had moved
            assert len(there) == FIRST_BATCH
        else:  # the taker had two batches, or one and the rest
            assert len(there) == held - min(TWO_BATCHES, moved)
