"""The arithmetic against a real server: it holds what was said, and no more than its descriptors allow."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.peer import request
from tests.supervisor.running import Running, until
from unlimitedws import cost

LIMIT, WORKERS = 160, 2
LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
from app import handlers
from unlimitedws import Supervisor
Supervisor(handlers, port=0, admin_port=0, workers={WORKERS}, engine="ENGINE").run()
"""


@pytest.fixture
def server(tmp_path: Path, engine_name: str) -> Iterator[Running]:
    running = Running(tmp_path, script=LIMITED.replace("ENGINE", engine_name))
    try:
        yield running.ready()
        running.stop()
    finally:
        running.destroy()


def said(engine_name: str) -> int:
    """What the doctor says of such a server."""
    code = "import sys; from unlimitedws.cli import main; sys.exit(main())"
    command = f"ulimit -n {LIMIT} && exec {sys.executable} -c '{code}' doctor --json --workers {WORKERS} --engine {engine_name}"
    document = json.loads(subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True).stdout)
    assert document["limited_by"] == "descriptors"
    return int(document["connections"])


def open_in(server: Running) -> list[int]:
    """Connections of each worker."""
    return [worker["connections_open"] for worker in server.stats["workers"]]


def connected(pids: list[int]) -> bool:
    """Whether any of these processes has a TCP connection, at whatever end of its life."""
    return any(each.status != psutil.CONN_LISTEN for pid in pids for each in psutil.Process(pid).net_connections("tcp"))


def test_a_server_holds_what_was_said_to_the_last_descriptor(server: Running, engine_name: str) -> None:
    assert server.echoes()
    until(lambda: not connected(server.workers()))  # it is open no longer a while before its descriptor is given back
    own = [len(os.listdir(f"/proc/{pid}/fd")) for pid in server.workers()]
    assert max(own) <= cost.WORKER_DESCRIPTORS, "an empty worker has more descriptors than the doctor takes off"
    supervisor = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    reckoned = cost.SUPERVISOR_DESCRIPTORS + WORKERS * (cost.SLOT_DESCRIPTORS + 1)
    assert supervisor <= reckoned, "a supervisor has more descriptors than the doctor takes off"
    full = sum(LIMIT - each for each in own)
    assert said(engine_name) == WORKERS * (LIMIT - cost.WORKER_DESCRIPTORS) <= full
    with contextlib.ExitStack() as stack:
        for _ in range(full + 200):  # the kernel spreads them by chance, and whoever meets a full worker waits in its queue
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            peer.sendall(request("/"))
        held = [LIMIT - each for each in own]
        until(lambda: open_in(server) == held, but=lambda: f"open: {open_in(server)}, and not {held}")
