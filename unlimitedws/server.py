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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from unlimitedws import importing
from unlimitedws.activation import passed
from unlimitedws.app import App
from unlimitedws.config import Config, adapt
from unlimitedws.engine.counters import FIELDS, ROW_BYTES
from unlimitedws.handlers import Handlers
from unlimitedws.listener import Listener, listen_at, resolve, tcp_listener, wanted
from unlimitedws.place import Place, Systemd, Unix
from unlimitedws.socketfile import listen_unix
from unlimitedws.wire.closing import GOING_AWAY
from unlimitedws.worker import Worker

log = logging.getLogger("unlimitedws.server")


class Server:
    """Serves `handlers` (or a mapping of paths to Handlers) from the running event loop, uvloop or not.

    host, port: where it listens, unless the setting `listen` names other places; port 0 takes any free one.
    port: of the first TCP listener, once it has started.
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
        self.worker = Worker(App.of(handlers), self.config)
        self._listeners: list[Listener] = []
        self._started = False

    async def start(self) -> None:
        """Runs on_start, then listens and accepts. Raises ListenError, StartFailed; nothing is left to stop then."""
        if self._started:
            raise RuntimeError("a Server starts once; make another one")
        self._started = True
        self._listeners = await open_listeners(self.config)
        self.port = next((listener.port for listener in self._listeners if listener.is_tcp), self.port)
        try:
            await self.worker.start([listener.listening() for listener in self._listeners], row=self._row)
        except BaseException:
            self._close_listeners()
            raise
        log.info("listening on %s, engine %s", ", ".join(map(str, self._listeners)), self.worker.engine_name)

    async def stop(self, code: int = GOING_AWAY, reason: str = "server is stopping") -> None:
        """Accepts no more, closes every connection politely, runs on_stop; see `Worker.stop`. Does nothing if not running."""
        if self._listeners:
            self.worker.stop_listening()
            self._close_listeners()  # at once, so that new clients are refused instead of left waiting
            await self.worker.stop(code, reason)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    def run(self) -> None:
        """Serves on a loop of its own until SIGINT or SIGTERM, then stops; a second signal cuts the stop short."""
        importing.check("Server.run()")
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve_until_signalled())

    @property
    def counters(self) -> dict[str, int]:
        """What the worker has counted: name to value of every field of `/stats`."""
        return {field.name: self._row[index] for index, field in enumerate(FIELDS) if field.kind != "ring"}

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

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


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


async def open_listeners(config: Config) -> list[Listener]:
    """Listens wherever the settings say, without blocking the loop. Raises ListenError; nothing is left open then."""
    listeners: list[Listener] = []
    with ExitStack() as stack:
        for place in wanted(config):
            for listener in await listeners_of(place, config):
                stack.callback(listener.close)
                listeners.append(listener)
        stack.pop_all()
    return listeners


async def listeners_of(place: Place, config: Config) -> Sequence[Listener]:
    if isinstance(place, Unix):
        return [listen_unix(place, config)]
    if isinstance(place, Systemd):
        return passed().listeners(place, config)
    address = await asyncio.get_running_loop().run_in_executor(None, resolve, place.host, place.port)
    return [tcp_listener(place, listen_at(address, place.host, place.port, config=config), config)]


def loop_factory() -> Any:
    """uvloop's, where it is installed; else the standard loop's."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
