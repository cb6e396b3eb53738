"""`unlimitedws bench` as a user runs it, and the servers it is pointed at."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import websockets.asyncio.server

from tests.peer import mask
from tests.serving import WAIT_S, running_loop
from unlimitedws.bench.target import accept

COMMAND = [sys.executable, "-c", "import sys; from unlimitedws.cli import main; sys.exit(main())", "bench"]
LIMIT_S = 120.0
# What every run in miniature has: no time is measured that a test would depend on.
SHORT = ("--warm-s", "0", "--measure-s", "0.3", "--rest-s", "0.1", "--after-s", "0", "--timeout-s", "30")


@dataclass(frozen=True)
class Done:
    """A run that has ended. report: what --json wrote, if it did."""

    code: int
    out: str
    err: str
    report: dict[str, Any]

    @property
    def counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.report["counters"]
        return counters


def bench(*arguments: str, **environ: str) -> Done:
    """Runs the command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        done = subprocess.run(
            [*COMMAND, *arguments, *([] if "--compare" in arguments else ["--json", str(file)])],
            capture_output=True, text=True, timeout=LIMIT_S, env=os.environ | environ,
        )  # fmt: skip
        report = json.loads(file.read_text()) if file.exists() else {}
    return Done(done.returncode, done.stdout, done.stderr, report)


def load(url: str, *arguments: str) -> Done:
    """A short run, which must have gone well."""
    done = bench(url, *SHORT, *arguments)
    assert done.code == 0, done
    return done


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs; nothing of it is left afterwards."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def comes(process: subprocess.Popen[str], condition: Callable[[], Any], what: str) -> None:
    """Waits for what a run does, however slow this machine is, while it goes on."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, (what, process.communicate())
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# ---- other servers


@contextmanager
def websockets_server(handler: Callable[[Any], Awaitable[None]]) -> Iterator[str]:
    """The URL of a server of the `websockets` library."""
    with running_loop() as loop:

        async def start() -> websockets.asyncio.server.Server:
            return await websockets.asyncio.server.serve(handler, "127.0.0.1", 0, compression=None, max_size=None)

        async def stop() -> None:
            server.close()
            await server.wait_closed()

        server = asyncio.run_coroutine_threadsafe(start(), loop).result(WAIT_S)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        finally:
            asyncio.run_coroutine_threadsafe(stop(), loop).result(WAIT_S)


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a server that does to each connection what it is told to, in a thread for each."""
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:

        def one(peer: socket.socket) -> None:
            with peer:
                peer.settimeout(LIMIT_S)
                try:
                    serve(peer)
                except OSError:  # they may leave at any time
                    return

        def accept_all() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=one, args=(peer,), daemon=True))
                threads[-1].start()

        accepting = threading.Thread(target=accept_all, daemon=True)
        accepting.start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(WAIT_S)
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a server thread did not end"


def upgraded(peer: socket.socket, at: threading.Event | None = None) -> bytes:
    """Answers a client's handshake, not before `at`; its request."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        more = peer.recv(4096)
        if not more:
            raise ConnectionResetError
        request += more
    if at is not None:
        at.wait(LIMIT_S)
    key = next(line.partition(b": ")[2] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    peer.sendall(switching(key))
    return request


def switching(key: bytes) -> bytes:
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept(key)
        + b"\r\n\r\n"
    )


def frames(peer: socket.socket) -> Iterator[tuple[int, bytes, bytes]]:
    """(opcode, key, unmasked payload) of a client's frames, up to its end."""
    stream = peer.makefile("rb")
    while len(head := stream.read(2)) == 2:
        size = head[1] & 0x7F
        assert head[1] & 0x80, "a client's frame is not masked"
        if size >= 126:
            size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
        key = stream.read(4)
        masked = stream.read(size)
        yield head[0] & 0x0F, key, mask(masked, key)


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A server's frame."""
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")
    return bytes(((0x80 if fin else 0) | opcode,)) + length + payload
