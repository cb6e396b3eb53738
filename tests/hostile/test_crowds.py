"""Many at once, many in a row, and noise: what is left of them is nothing."""

from __future__ import annotations

import gc
import random
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.hostile.conftest import counted, ends, memory
from tests.hostile.table import NOBODY, row
from tests.peer import CONTINUATION, TEXT, Peer, pack, pack_close, request
from tests.serving import Served, descriptors, eventually, masked, upgrade

MIB = 1 << 20


@pytest.fixture
def open_files() -> Iterator[None]:
    """Whatever a test does to the limit of descriptors, it is what it was."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def come_and_go(there: Served, number: int) -> None:
    """One short visit, of one of the kinds there are."""
    with there.socket() as peer:
        match number % 8:
            case 0:  # without a word
                pass
            case 1:
                peer.sendall(request("/")[:-4])
            case 2:
                peer.sendall(b"rubbish\r\n\r\n")
            case 3:
                upgrade(peer)
                peer.sendall(masked(b"hello"))
                peer.recv(100)
            case 4:
                peer.sendall(b"GET /page HTTP/1.1\r\nHost: test\r\n\r\n")
                peer.recv(1000)
            case 5:
                peer.sendall(b"POST /form HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
            case 6:
                peer.sendall(request("/slow"))
            case _:
                upgrade(peer)
                peer.sendall(masked(b"x" * 100)[:50])
        Peer(peer).reset()  # leaves no TIME_WAIT behind, of which the test's own ports are not enough for


@row("20,000 connections that come and go in every way", "each ends once; no descriptor and no memory is left", NOBODY)
def test_churn_leaves_nothing(there: Served) -> None:
    for i in range(2000):
        come_and_go(there, i)
    settled(there)
    before, files = memory(), descriptors()
    for i in range(18_000):
        come_and_go(there, i)
    settled(there)
    assert there.counters["connections_accepted"] == 20_000
    assert descriptors() == files
    assert memory() - before < 4 * MIB


def settled(there: Served) -> None:
    eventually(lambda: ends(there) == there.counters["connections_accepted"], str(counted(there)))
    gauges = ("connections_open", "handshakes_pending", "queued_bytes", "buffers_held")
    eventually(lambda: not any(there.counters[gauge] for gauge in gauges), str(counted(there)))  # told at the end of a turn
    gc.collect()


@row(
    "More connections than descriptors",
    "they wait in the kernel's queue, at no cost; taken as soon as there is a free one",
    "accept_pauses",
)
def test_running_out_of_descriptors_burns_no_cpu(there: Served, open_files: None) -> None:
    waiting = [socket.socket() for _ in range(20)]
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(peer.fileno() for peer in waiting) + 1, hard))
        for peer in waiting:
            peer.settimeout(5)
            peer.connect(("127.0.0.1", there.port))
            peer.sendall(request("/"))
        eventually(lambda: there.counters["accept_pauses"])
        before = there.call(time.thread_time)
        time.sleep(1.0)  # the time over which the work is measured
        assert there.call(time.thread_time) - before < 0.5, "the loop spins while it has no descriptors"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for peer in waiting:
            assert peer.recv(13) == b"HTTP/1.1 101 "
    finally:
        for peer in waiting:
            peer.close()


# ---- noise

STATES = {
    "a new connection": b"",
    "inside a request": b"GET / HTTP/1.1\r\nHost: t",
    "inside a body": b"POST /form HTTP/1.1\r\nHost: test\r\nContent-Length: 4000\r\n\r\n",
    "inside a body in chunks": b"POST /form HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    "behind a request": b"GET /page HTTP/1.1\r\nHost: test\r\n\r\n",
    "while a hook decides": request("/soon"),
    "a WebSocket": b"101",
    "inside the head of a frame": b"101" + masked(b"x" * 1000)[:5],
    "inside a frame": b"101" + masked(b"x" * 1000)[:500],
    "inside a text message": b"101" + pack(TEXT, "é".encode()[:1], fin=False),
    "inside a long message": b"101" + pack(TEXT, b"x" * 70_000, fin=False) + pack(CONTINUATION, b"y", fin=False),
    "behind a Close": b"101" + pack_close(1000),
}


def noise(seeded: random.Random) -> bytes:
    """Random bytes, or frames whose heads are random and whose lengths are likely."""
    if seeded.random() < 0.5:
        return seeded.randbytes(seeded.randrange(1, 3000))
    frames = []
    for _ in range(seeded.randrange(1, 30)):
        payload = seeded.randbytes(seeded.choice((0, 1, 5, 125, 126, 300)))
        frames.append(
            pack(seeded.choice((0, 1, 2, 8, 9, 10, 3)), payload, fin=seeded.random() < 0.7, rsv=seeded.choice((0, 0, 0, 0, 4, 1)))
        )
    return b"".join(frames)


@contextmanager
def visitor(there: Served, said: bytes) -> Iterator[socket.socket]:
    with there.socket() as peer:
        if said.startswith(b"101"):
            upgrade(peer)
            said = said.removeprefix(b"101")
        peer.sendall(said)
        yield peer


@row("Random bytes at any point, whole or in pieces", "one of the answers of this page; each connection ends once, nothing is left", NOBODY)
def test_noise_ends_in_one_of_the_documented_ways(there: Served) -> None:
    seeded = random.Random(6455)
    for _ in range(200):
        for said in STATES.values():
            with visitor(there, said) as peer, suppress(OSError):  # it may be cut before we are through
                data = noise(seeded)
                at = seeded.randrange(len(data) + 1)
                peer.sendall(data[:at])
                peer.sendall(data[at:])
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass
    settled(there)
    assert there.counters["handler_errors"] == 0
