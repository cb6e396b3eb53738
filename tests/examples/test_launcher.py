from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

from websockets.sync.client import connect

from tests.examples.conftest import Serve
from tests.examples.serving import ROOT

PROGRAM = "examples/launcher.py"


def test_it_greets_with_its_own_argument_and_echoes(run: Serve) -> None:
    serving = run(PROGRAM, "--port", "0", "--admin-port", "0", "--greeting", "Good evening")
    with connect(serving.url, proxy=None) as client:
        assert re.fullmatch(r"Good evening, you are connection \d+", str(client.recv(timeout=30)))
        client.send("hi")
        assert client.recv(timeout=30) == "hi"
    assert "with 2 workers" in serving.log


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = [sys.executable, PROGRAM, "--port", port, "--admin-port", "0"]
        done = subprocess.run(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"launcher: cannot listen on 127.0.0.1 port {port}: Address already in use")
    assert done.stderr.count("\n") == 1
