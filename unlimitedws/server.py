"""One worker inside your own process: for tests, notebooks and programs that have a loop already.

    async with Server(handlers, port=0) as server:
        print(server.port)

    Server(handlers, port=8000).run()      # blocks until SIGINT or SIGTERM

It has no supervisor: nothing restarts it, and it uses one CPU.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from unlimitedws.app import App
from unlimitedws.config import Config, adapt
from unlimitedws.engine.counters import INDEX, ROW_BYTES
from unlimitedws.errors import ListenError
from unlimitedws.handlers import Handlers
from unlimitedws.listener import Address, listen_at
from unlimitedws.wire.closing import GOING_AWAY
from unlimitedws.worker import Worker

log = logging.getLogger("unlimitedws.server")


class Server:
    """Serves `handlers` (or a mapping of paths to Handlers) from the running event loop, uvloop or not.

    host, port: where it listens; port 0 takes any free one, `server.port` tells which once it has started.
    config, settings: a Config, or its fields as keywords; keywords win. Of the settings of processes those that
    need a supervisor do nothing here.  worker: the `Worker`, with `broadcast` and `connections`.

    Raises AppInvalid, BadValue, UnknownSetting, EngineUnavailable. A server starts and stops once."""

    def __init__(
        self,
        handlers: Handlers | Mapping[str, Handlers] | App,
        host: str | None = None,
        port: int | None = None,
        *,
        config: Config | None = None,
        **settings: Any,
    ) -> None:
        place = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        self.config = adapt(config, {**settings, **place})
        self.host, self.port = self.config.host, self.config.port
        self._row = memoryview(bytearray(ROW_BYTES)).cast("q")
        self.worker = Worker(App.of(handlers), self.config, row=self._row)
        self._listener: socket.socket | None = None
        self._started = False

    async def start(self) -> None:
        """Runs on_start, then listens and accepts. Raises ListenError, StartFailed; nothing is left to stop then."""
        if self._started:
            raise RuntimeError("a Server starts once; make another one")
        self._started = True
        address = await resolved(self.host, self.port)
        self._listener = listen_at(address, self.host, self.port, config=self.config)
        self.port = self._listener.getsockname()[1]
        try:
            await self.worker.start([self._listener.fileno()])
        except BaseException:
            self._close_listener()
            raise
        log.info("listening on %s port %d, engine %s", self.host, self.port, self.worker.engine_name)

    async def stop(self, code: int = GOING_AWAY, reason: str = "server is stopping") -> None:
        """Accepts no more, closes every connection politely, runs on_stop; see `Worker.stop`. Does nothing if not running."""
        if self._listener is not None:
            self.worker.stop_listening()
            self._close_listener()  # at once, so that new clients are refused instead of left waiting
            await self.worker.stop(code, reason)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    def run(self) -> None:
        """Serves on a loop of its own until SIGINT or SIGTERM, then stops; a second signal cuts the stop short."""
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve_until_signalled())

    @property
    def counters(self) -> dict[str, int]:
        """What the worker has counted: name to value of every field of `/stats`."""
        return {name: self._row[index] for name, index in INDEX.items()}

    async def _serve_until_signalled(self) -> None:
        signalled = asyncio.Event()
        start = asyncio.ensure_future(self.start())

        def on_signal() -> None:
            if signalled.is_set():
                self.worker.cut()
            signalled.set()
            start.cancel()  # on_start may take its time; does nothing once it is done

        with signals_to(on_signal):
            await asyncio.wait([start])
            if not start.cancelled():
                start.result()
                await self._stay(signalled)

    async def _stay(self, signalled: asyncio.Event) -> None:
        try:
            await signalled.wait()
        finally:
            await self.stop()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


@contextmanager
def signals_to(on_signal: Callable[[], None]) -> Iterator[None]:
    """Has SIGINT and SIGTERM call `on_signal` on the running loop."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        with suppress(ValueError, RuntimeError):  # not the main thread: its signals are not ours
            loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in numbers:
            with suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(number)


async def resolved(host: str, port: int) -> Address:
    """Like `listener.resolve`, without blocking the loop."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        raise ListenError(host, port, error if isinstance(error, OSError) else OSError(str(error))) from None
    family, _, _, _, sockaddr = found[0]
    return Address(family, sockaddr)  # type: ignore[arg-type]  # only AF_INET and AF_INET6 answer to a port


def loop_factory() -> Any:
    """uvloop's, where it is installed; else the standard loop's."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
