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


def test_a_server_holds_what_was_said_to_the_last_descriptor(server: Running, engine_name: str) -> None:
    assert server.echoes()
    until(lambda: server.stats["total"]["connections_open"] == 0)
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
        until(lambda: server.stats["total"]["connections_open"] == full)
        assert [worker["connections_open"] for worker in server.stats["workers"]] == [LIMIT - each for each in own]
