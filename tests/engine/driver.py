"""An engine driven by hand: no loop, no thread; each turn is one the test takes."""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tests.peer import Peer, request
from unlimitedws.config import Config
from unlimitedws.engine import contract, counters, load
from unlimitedws.engine.contract import Endpoint
from unlimitedws.wire import handshake
from unlimitedws.wire.head import Head

HOOKS = ("on_connect", "on_message", "on_close", "on_drain")
PATIENCE_S = 10.0


class Front:
    """What the floor above would be: two paths, and a record of what it was told."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = endpoints
        self.paths = {b"/": ("/", 0), b"/other": ("/other", len(endpoints) - 1), b"/d%C3%A9j%C3%A0": ("/déjà", 0)}
        self.subprotocols: tuple[str, ...] = ()
        self.pages: dict[bytes, bytes] = {}
        self.failed: list[tuple[Any, str, BaseException]] = []
        self.pauses: list[str] = []

    def route(self, target: bytes) -> tuple[str, int] | None:
        return self.paths.get(target)

    def answer(self, head: bytes) -> contract.Upgrade | contract.Refusal:
        return handshake.answer(head, route=self.route, subprotocols=lambda endpoint: self.subprotocols, page=self.page)

    def page(self, head: Head) -> bytes | None:
        return self.pages.get(head.target)

    def handler_failed(self, connection: Any, hook: str, error: BaseException) -> None:
        self.failed.append((connection, hook, error))

    def accepting_paused(self, why: str) -> None:
        self.pauses.append(why)


class Driver:
    """One engine with a listener, its clients, and a record of its calls.

    endpoints: handlers by hook name, one dict for each endpoint; or given by keyword for the only one. Any other
    keyword is a setting. Where no handler is given, calls are recorded in `calls` as (hook, connection id, argument)."""

    def __init__(self, engine_name: str, endpoints: Sequence[dict[str, Any]], given: dict[str, Any]) -> None:
        handlers = {name: given.pop(name) for name in HOOKS if name in given}
        self.calls: list[tuple[str, int, Any]] = []
        self.front = Front([self._endpoint(one) for one in endpoints or [handlers]])
        self.config = Config(engine=engine_name, **given)
        self.row = memoryview(array("q", [0] * len(counters.FIELDS)))
        self.soon: deque[Callable[[], object]] = deque()
        engine_class = load(engine_name)
        self.engine = engine_class(self.config, self.front, self.row, 7, self.soon.append, self.soon.append)
        self.listeners: list[socket.socket] = []
        self.peers: list[Peer] = []

    def _endpoint(self, handlers: dict[str, Any]) -> Endpoint:
        return Endpoint(**{name: handlers.get(name, self._recorder(name)) for name in HOOKS})

    def _recorder(self, name: str) -> Callable[..., None]:
        def record(connection: Any, argument: Any = None) -> None:
            self.calls.append((name, connection.id, argument))

        return record

    # ---- the loop

    def turn(self) -> None:
        """One turn of the loop."""
        for _ in range(len(self.soon)):
            self.soon.popleft()()
        if select.select([self.engine.fileno()], [], [], 0)[0]:
            self.engine.run()

    def until(self, reached: Callable[[], Any], *, ticking: bool = False, reading: bool = True) -> Any:
        """Turns until `reached()` is true, and gives what it gave; fails after `PATIENCE_S`.

        reading: the peers read what comes. ticking: the clock hand sweeps as well."""
        deadline = time.monotonic() + PATIENCE_S
        while not (result := reached()):
            assert time.monotonic() < deadline, f"it did not come to that; calls: {self.calls}"
            self.turn()
            if ticking:
                self.sweep()
            if reading:
                self.read()
            if not self.soon:
                waiting = [self.engine.fileno(), *(p for p in self.peers if reading and not p.ended and p.fileno() >= 0)]
                select.select(waiting, [], [], 0.005)
        return result

    def rest(self) -> None:
        """Turns until nothing moves any more. For 'and then nothing happens'."""
        quiet = 0
        while quiet < 3:
            busy = bool(self.soon or select.select([self.engine.fileno()], [], [], 0.002)[0])
            self.turn()
            quiet = 0 if self.read() or busy else quiet + 1

    def read(self) -> bool:
        return sum(peer.read() for peer in self.peers if not peer.ended and peer.fileno() >= 0) > 0

    def sweep(self) -> None:
        """One whole sweep of the clock hand."""
        for _ in range(contract.TICKS_PER_S + 1):
            self.engine.tick()

    # ---- clients

    def listen(self, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> Any:
        """A listener of the engine; its address."""
        listener = socket.socket(family)
        if self.config.sndbuf_bytes:  # the owner's business; accepted sockets inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.config.sndbuf_bytes)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
        self.engine.listen(listener.fileno())
        self.listeners.append(listener)
        return listener.getsockname()

    def dial(self, *, receive_bytes: int = 0) -> Peer:
        """A client whose TCP connection is made, and no more. receive_bytes: its small SO_RCVBUF."""
        if not self.listeners:
            self.listen()
        listener = self.listeners[0]
        end = socket.socket(listener.family)
        if receive_bytes:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        end.connect(listener.getsockname())
        if end.family != socket.AF_UNIX:  # else a second small segment waits for the acknowledgement of the first
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peers.append(Peer(end))
        return self.peers[-1]

    def connect(self, path: str = "/", *headers: str, receive_bytes: int = 0) -> Peer:
        """A client that has finished its handshake."""
        peer = self.dial(receive_bytes=receive_bytes)
        peer.say(request(path, *headers))
        self.until(lambda: peer.is_upgraded or peer.ended)
        assert peer.is_upgraded, peer.head
        return peer

    # ---- what is seen

    def count(self, name: str) -> int:
        return self.row[counters.INDEX[name]]

    def named(self, hook: str) -> list[Any]:
        """The arguments of each call of `hook`, in order."""
        return [argument for name, _, argument in self.calls if name == hook]

    @property
    def only(self) -> Any:
        """The Connection of the only open connection."""
        (connection,) = self.engine.connections()
        return connection

    def ended(self, peer: Peer) -> str:
        """How the stream of `peer` ended, once it has."""
        return str(self.until(lambda: peer.ended))

    def close(self) -> None:
        """Ends everything, and checks that everything came back."""
        for peer in self.peers:
            peer.close()
        self.engine.close()
        while self.soon:
            self.soon.popleft()()
        for listener in self.listeners:
            listener.close()
        for gauge in ("connections_open", "handshakes_pending", "queued_bytes", "buffers_held"):
            assert self.count(gauge) == 0, f"{gauge} is {self.count(gauge)} after the close"
