"""What a server without connections takes, by process, and what a crowd that came and left leaves behind.

    python -m tests.bench.empty --workers 8 56            (or: make bench-empty)
    python -m tests.bench.empty --workers 2 --crowd 15000

Figures are MB of 10^6 bytes. Shared pages count in equal parts (PSS); those of libraries are shared with other Python
programs of the machine too, so run it where there are none.
"""

from __future__ import annotations

import argparse
import resource
import socket
import statistics
import tempfile
import time
from pathlib import Path

from tests.bench.processes import of
from tests.peer import BINARY, pack, request
from tests.supervisor.running import Running

SETTLE_S = 6.0
"""The supervisor's first rounds take memory once."""
AFTER_S = 30.0
ECHO = b"\x82\x05hello"
AT_ONCE = 200

COLUMNS = ("workers", "when", "processes", "all", "supervisor", "template", "a worker", "of which its own")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 56], help="servers to measure, by their number of workers")
    parser.add_argument("--crowd", type=int, default=0, help="connections that come, echo once, are measured and leave")
    options = parser.parse_args()
    print(row(*COLUMNS), row(*("---" for _ in COLUMNS)), sep="\n")
    for workers in options.workers:
        measure(workers, options.crowd)


def measure(workers: int, crowd: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Running(Path(folder), workers=workers).ready()
        try:
            report(server, "empty")
            if crowd:
                peers = join(server.port, crowd)
                report(server, f"{crowd} connected")
                for peer in peers:
                    peer.close()
                time.sleep(AFTER_S)
                report(server, "all have left")
            server.stop()
        finally:
            server.destroy()


def report(server: Running, when: str) -> None:
    time.sleep(SETTLE_S)
    template, workers = server.template(), server.workers()
    pss = {pid: memory(pid, "Pss") for pid in (server.pid, template, *workers)}
    own = statistics.median(memory(pid, "Private_Dirty") for pid in workers)
    each = statistics.median(pss[pid] for pid in workers)
    figures = (sum(pss.values()), pss[server.pid], pss[template], each, own)
    print(row(len(workers), when, len(pss), *(f"{figure / 1e6:.1f}" for figure in figures)), flush=True)


def memory(pid: int, kind: str) -> int:
    """Bytes of one kind, as the kernel sums them up for a process."""
    return next(int(line.split()[1]) * 1024 for line in of(pid, "smaps_rollup").splitlines() if line.startswith(f"{kind}:"))


def join(port: int, count: int) -> list[socket.socket]:
    """So many connections, each of which has echoed a message."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    peers: list[socket.socket] = []
    while len(peers) < count:
        fresh = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(min(AT_ONCE, count - len(peers)))]
        for peer in fresh:
            peer.sendall(request() + pack(BINARY, b"hello"))
        for peer in fresh:
            received = b""
            while ECHO not in received:
                chunk = peer.recv(4096)
                if not chunk:
                    raise SystemExit(f"the server ended a connection after {received[:200]!r}")
                received += chunk
        peers += fresh
    return peers


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
