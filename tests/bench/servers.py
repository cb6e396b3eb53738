"""The servers: ours, the floor, the peers. Each is started afresh, pinned to a core, for one measure."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from tests.bench.tools import BUILD, HERE, NODE_MODULES, PYTHON, ROOT, install_node, install_python

LISTEN_S = 20.0


@dataclass(frozen=True)
class Server:
    """A line of the table. command: {port} and {mode} (echo, fan) are filled in.

    install gives the version, or raises Missing.  works: what it is measured by; all where empty."""

    name: str
    command: str
    install: Callable[[], str] = lambda: ""
    works: frozenset[str] = frozenset()
    environment: dict[str, str] = field(default_factory=dict)

    def fill(self, text: str, port: int, mode: str) -> str:
        app = "tests.bench.broadcast:handlers" if mode == "fan" else "tests.bench.echo:handlers"
        return text.replace("{port}", str(port)).replace("{mode}", mode).replace("{app}", app)


OURS = f"{sys.executable} -m unlimitedws.supervisor {{app}} --workers 1 --port {{port}} --admin-port 0 --log-level warning --engine "
PEER = f"{PYTHON} {HERE}/peers/ws_{{name}}.py {{port}} {{mode}}"
UVICORN = (
    f"{PYTHON} -m uvicorn asgi_app:app --app-dir {HERE}/peers --port {{port}} --ws websockets-sansio --loop uvloop "
    "--log-level critical --ws-per-message-deflate false --ws-ping-interval 86400 --backlog 4096"
)
NODE = f"node {HERE}/peers/ws_node.js {{port}} {{mode}}"


def python_peer(name: str) -> Server:
    return Server(name, PEER.replace("{name}", name), partial(install_python, name))


SERVERS = (
    Server("floor", f"{BUILD}/floor {{port}} {{mode}}"),
    Server("unlimitedws", OURS + "native"),
    Server("unlimitedws-portable", OURS + "portable", works=frozenset({"idle", "echo-64x32"})),
    python_peer("picows"),
    python_peer("socketify"),
    python_peer("websockets"),
    python_peer("aiohttp"),
    # The fastest of its three WebSocket implementations.
    Server("uvicorn", UVICORN, partial(install_python, "uvicorn", "websockets"), environment={"MODE": "{mode}"}),
    Server("npm-ws", NODE, partial(install_node, "ws"), environment={"NODE_PATH": str(NODE_MODULES)}),
)


class ServerFailed(Exception):
    """A server that did not start, or ended by itself."""


@contextmanager
def running(server: Server, mode: str, cores: set[int]) -> Iterator[tuple[int, int]]:
    """(port, pid of the root process) of a server that accepts connections. Raises ServerFailed."""
    port = free_port()
    with tempfile.TemporaryFile() as report:
        process = subprocess.Popen(
            shlex.split(server.fill(server.command, port, mode)),
            cwd=ROOT,
            env=environment(server, port, mode),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=report,
            start_new_session=True,
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
        )
        try:
            if not listening(process, port):
                report.seek(0)
                raise ServerFailed(f"{server.name} does not listen: {report.read()[-500:].decode(errors='replace').strip()}")
            time.sleep(0.5)  # what a server still does when it has begun to listen should not be measured
            yield port, process.pid
        finally:
            stop(process)


def environment(server: Server, port: int, mode: str) -> dict[str, str]:
    """This one's, without settings of ours that somebody may have exported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNLIMITEDWS_")}
    return kept | {name: server.fill(value, port, mode) for name, value in server.environment.items()}


def listening(process: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until the server accepts; False when it has ended or time is up."""
    deadline = time.monotonic() + LISTEN_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the session that was made for a server; kills what has not gone after some seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
    process.wait(5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def another(text: str) -> Server:
    """A server from the command line: NAME=COMMAND."""
    name, _, command = text.partition("=")
    return Server(name, command)


def chosen(names: Sequence[str], more: Sequence[Server]) -> list[Server]:
    """The servers of these names, in the order of the table; all where there are none. Raises KeyError."""
    table = {server.name: server for server in (*SERVERS, *more)}
    unknown = [name for name in names if name not in table]
    if unknown:
        raise KeyError(f"no server named {', '.join(unknown)}; there are {', '.join(table)}")
    return [server for name, server in table.items() if not names or name in names]
