"""What a connection costs: the memory of all processes of a real server, between two crowds."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.peer import BINARY, pack, request
from tests.supervisor.conftest import Run
from tests.supervisor.running import ECHO, Running, marked, until

CROWDS = (1_000, 6_000, 11_000)
STEADY = 6
"""Samples in which nothing moved: longer than the supervisor's rounds."""

MOST_BYTES = {"native": 64, "portable": 600}
"""For one idle connection after one echo, over all processes: the project's promise."""


HOOKED = (
    ECHO
    + """
handlers.on_upgrade = lambda request: None if request.cookies.get("session") is None else 1 / 0
"""
)
DOORS: dict[str, tuple[str, dict[str, Any]]] = {
    "in the open": (ECHO, {}),
    "behind every check": (HOOKED, {
        "deflate": True, "handshakes_per_s": 1e6, "handshakes_per_s_per_address": 1e6, "max_connections_total": 10**6,
        "max_connections_per_address": 10**6, "max_handshakes_pending": 10**6, "shed_memory": 1.0, "shed_stall": 1.0,
        "trusted_proxies": "192.0.2.1", "forwarded_header": "forwarded", "health_path": "/health", "static_dir": "/",
    }),
}  # fmt: skip


@pytest.mark.skipif("UNLIMITEDWS_TEST_SANITIZED" in os.environ, reason="a sanitizer's own memory is what would be measured")
@pytest.mark.parametrize(("app", "settings"), DOORS.values(), ids=DOORS)
def test_an_idle_connection_costs_almost_nothing_and_a_crowd_that_left_nothing(
    run: Run, engine_name: str, app: str, settings: dict[str, Any]
) -> None:
    # These clients answer no Ping, and must stay however long the test takes.
    server = run(workers=1, engine=engine_name, ping_timeout_s=600, source=app, **settings).ready()
    crowd: list[socket.socket] = []
    held = []
    for count in CROWDS:
        crowd += join(server, count - len(crowd))
        held.append(settled(server))
    assert server.stats["total"]["connections_open"] == CROWDS[-1]
    # What a busy machine makes a process do once (a larger queue of the loop, say) disturbs one of the two slopes;
    # what a connection costs is in both.
    slopes = [(held[i + 1] - held[i]) / (CROWDS[i + 1] - CROWDS[i]) for i in range(2)]
    assert min(slopes) <= MOST_BYTES[engine_name]
    for peer in crowd:
        peer.close()
    until(lambda: server.stats["total"]["connections_open"] == 0)
    assert until(lambda: anonymous(server) <= held[0] * 1.05 + 2e6)


def join(server: Running, count: int) -> list[socket.socket]:
    """So many more connections, each of which has echoed one message and rests."""
    crowd = []
    for _ in range(count):
        peer = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        peer.sendall(request() + pack(BINARY, b"x" * 1000))
        crowd.append(peer)
    echo = b"\x82\x7e" + (1000).to_bytes(2, "big") + b"x" * 1000
    for peer in crowd:
        received = b""
        while echo not in received:  # a Ping may follow it
            chunk = peer.recv(4096)
            assert chunk, f"the server ended a connection after {received[:300]!r}"
            received += chunk
    return crowd


def settled(server: Running) -> int:
    """The memory once it has stopped moving: what the supervisor does for the first time in its first seconds (looking
    at its workers, at the machine's memory) takes some that is no connection's."""
    seen: list[int] = []

    def steady() -> bool:
        time.sleep(0.4)
        seen.append(anonymous(server))
        return len(seen) >= STEADY and max(seen[-STEADY:]) - min(seen[-STEADY:]) <= 8192

    until(steady, timeout_s=60)
    return seen[-1]


def anonymous(server: Running) -> int:
    """Bytes of memory that no file backs, each shared page counted once: the sum of Pss_Anon."""
    total_kib = 0
    for pid in marked(server.mark):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                total_kib += int(line.split()[1])
    return total_kib * 1024
