"""Whether the process of --pid is the server that is loaded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.test_listener import skip_without_ipv6
from unlimitedws.bench import listeners
from unlimitedws.bench.listeners import doubt
from unlimitedws.bench.target import parse

IDLE = "print(0, flush=True); input()"
LISTENING = """
import socket
family = socket.AF_INET6 if ":" in "{host}" else socket.AF_INET
at = socket.create_server(("{host}", {port}), family=family, reuse_port=True, dualstack_ipv6="{host}" == "::")
print(at.getsockname()[1], flush=True)
input()
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"


@contextmanager
def process(source: str) -> Iterator[tuple[int, int]]:
    """(pid, the port that it says) of a process that does this until the test is over."""
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        yield made.pid, int(made.stdout.readline())
        made.communicate(b"\n")


@pytest.mark.parametrize(
    ("host", "loaded"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "[::1]"),
        ("::", "[::1]"),
        ("::", "127.0.0.1"),
    ],
)
def test_a_process_that_listens_where_the_load_goes_is_believed(host: str, loaded: str) -> None:
    if ":" in host:
        skip_without_ipv6()
    with process(LISTENING.format(host=host, port=0)) as (pid, port), process(IDLE) as (other, _):
        targets = [parse(f"ws://{loaded}:{port}/")]
        assert doubt(pid, targets) == ""
        assert doubt(other, targets).startswith(f"process {other} (--pid) does not listen on port {port}")


def test_a_process_whose_child_listens_is_believed() -> None:
    with process(PARENT.format(child=LISTENING.format(host="127.0.0.1", port=0))) as (pid, port):
        assert doubt(pid, [parse(f"ws://127.0.0.1:{port}/")]) == ""


def test_one_of_several_that_share_a_port_is_doubted() -> None:
    at = partial(LISTENING.format, host="127.0.0.1")
    with process(at(port=0)) as (first, port), process(at(port=port)) as (second, _):
        for pid in (first, second):
            assert f"process {pid} (--pid) holds 1 of 2 sockets that listen on port {port}: is it a worker" in doubt(
                pid, [parse(f"ws://127.0.0.1:{port}/")]
            )


def test_a_process_that_has_started_the_load_as_well_is_doubted() -> None:
    with process(LISTENING.format(host="127.0.0.1", port=0)) as (_, port):
        assert "has started this program too" in doubt(os.getpid(), [parse(f"ws://127.0.0.1:{port}/")])


def test_a_port_that_nobody_listens_on_here_is_a_server_elsewhere() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        with process(IDLE) as (pid, _):
            assert doubt(pid, [parse(f"ws://127.0.0.1:{port}/")]).startswith(f"nobody on this machine listens on port {port}")


def test_nothing_is_said_of_what_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        targets = [parse(f"ws://127.0.0.1:{listener.getsockname()[1]}/")]
        with process(IDLE) as (pid, _):
            assert doubt(pid, targets)
            monkeypatch.setattr(listeners, "MOST_FILES", -1)  # to look at them all would cost kernel memory
            assert doubt(pid, targets) == ""
        assert doubt(pid, targets) == ""  # it has ended
