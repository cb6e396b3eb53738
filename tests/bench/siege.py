"""2,000 requests that never end, and one client that sends Pings as fast as they are taken and reads every answer.

python -m tests.bench.siege PORT       prints "held" when it stands, and goes on until it is killed
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time

from tests.peer import PING, pack, request

SLOW = 2_000
PINGS = pack(PING, b"?") * 1000
EVERY_S = 4.0  # a byte of each slow request: as seldom as a patient attacker would


def main() -> None:
    port = int(sys.argv[1])
    # The honest load shares this core. It must find the CPU whenever it wants it, or its latencies would be those of its own
    # wait for the siege; the server is on another core, and gets all that is left of this one as Pings.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    slow = [begun(port) for _ in range(SLOW)]
    flood = socket.create_connection(("127.0.0.1", port))
    flood.sendall(request())
    flood.setblocking(False)
    print("held", flush=True)
    besiege(slow, flood)


def begun(port: int) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port))
    peer.sendall(b"GET / HTTP/1.1\r\nX: ")
    return peer


def besiege(slow: list[socket.socket], flood: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(flood, selectors.EVENT_READ | selectors.EVENT_WRITE)
        hand, began = 0, time.monotonic()
        while True:
            for _, what in selector.select(0.01):
                if what & selectors.EVENT_READ:
                    flood.recv(1 << 18)
                if what & selectors.EVENT_WRITE:
                    flood.send(PINGS)
            while hand < (time.monotonic() - began) / EVERY_S * SLOW:
                slow[hand % SLOW].send(b"x")
                hand += 1


if __name__ == "__main__":
    main()
