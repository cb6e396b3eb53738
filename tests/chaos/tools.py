"""What the runs have in common: a server, load, and what a server takes."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.tools import BUILD
from tests.peer import request
from tests.supervisor.running import ROOT, Running


@contextmanager
def server(**settings: Any) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder), hang_timeout_s=0, **settings)
        try:
            yield running.ready()
            running.stop()
        finally:
            running.destroy()


def load(running: Running, arguments: str) -> subprocess.Popen[str]:
    command = [str(BUILD / "wsload"), *shlex.split(arguments), "--port", str(running.port), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, complaint = process.communicate(timeout=900)
    if not output.strip():
        raise SystemExit(f"the load ended without a report: {complaint[-300:]}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


class Footprint:
    """What a server takes: descriptors of the supervisor, processes, PSS of all of them."""

    def __init__(self, running: Running) -> None:
        processes = running.stats["processes"]
        self.descriptors = len(os.listdir(f"/proc/{running.pid}/fd"))
        self.processes = len(processes)
        self.pss_mb = sum(process["memory"]["pss_bytes"] or 0 for process in processes) / 1e6

    def is_like(self, before: Footprint) -> bool:
        """Whether nothing has stayed. One descriptor more is who asks for the stats."""
        return (
            self.descriptors <= before.descriptors + 1 and self.processes == before.processes and self.pss_mb <= before.pss_mb * 1.05 + 5
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors of the supervisor, {self.processes} processes, {self.pss_mb:.1f} MB of PSS"


class Newcomers:
    """Clients that come one after the other, each with a handshake, for as long as it runs; several at a time."""

    def __init__(self, port: int, at_once: int = 4, pause_s: float = 0.0) -> None:
        self.port, self.going, self.pause_s = port, True, pause_s
        self.served = self.refused = self.dropped = 0
        self.longest_s = 0.0
        self.threads = [threading.Thread(target=self.come) for _ in range(at_once)]
        for thread in self.threads:
            thread.start()

    def come(self) -> None:
        while self.going:
            began = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
                    client.sendall(request())
                    answered = client.recv(1024).startswith(b"HTTP/1.1 101 ")
            except ConnectionRefusedError:
                self.refused += 1
                continue
            except OSError:
                answered = False
            self.served += answered
            self.dropped += not answered  # by the worker that was killed while it had them
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            time.sleep(self.pause_s)

    def end(self) -> None:
        self.going = False
        for thread in self.threads:
            thread.join()


class Talkers:
    """The clients of talkers.py."""

    def __init__(self, port: int, size: int, interval_s: float) -> None:
        self.size = size
        command = [sys.executable, "-m", "tests.chaos.talkers", str(port), str(size), str(interval_s)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seen: dict[str, int] = {}
        self.longest_s, self.first = 0.0, ""

    def look(self) -> dict[str, Any]:
        """What has happened since the last look."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        for name, count in told.items():
            if name not in ("up", "unanswered", "longest_s", "first"):
                self.seen[name] = self.seen.get(name, 0) + count
        self.longest_s, self.first = max(self.longest_s, told["longest_s"]), self.first or told["first"]
        return told

    def all_there(self, timeout_s: float = 60.0) -> None:
        """Returns when all are connected."""
        deadline = time.monotonic() + timeout_s
        while (told := self.look())["up"] < self.size:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {told['up']} of {self.size} clients came (back): {told}")
            time.sleep(0.05)

    def count(self, *names: str) -> int:
        return sum(self.seen.get(name, 0) for name in names)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
