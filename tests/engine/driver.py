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
from unlimitedws.wire.closing import Cause, Close
from unlimitedws.wire.deflate import Policy, negotiate

HOOKS = ("on_connect", "on_message", "on_close", "on_drain")
PATIENCE_S = 30.0


class Front:
    """What the floor above would be: a few paths, and a record of what it was told.

    pages: the whole response by target.  streams: what makes the Stream of a request, by target, upgrade or not.
    more: fields for every `Upgrade`.  deflate: what it agrees to of permessage-deflate."""

    def __init__(self, endpoints: Sequence[Endpoint], gate: contract.Gate | None = None) -> None:
        self.endpoints = endpoints
        self.gate = gate
        self.paths = {b"/": ("/", 0), b"/other": ("/other", len(endpoints) - 1), b"/d%C3%A9j%C3%A0": ("/déjà", 0)}
        self.subprotocols: tuple[str, ...] = ()
        self.pages: dict[bytes, bytes] = {}
        self.streams: dict[bytes, Callable[[], contract.Stream]] = {}
        self.more: dict[str, Any] = {}
        self.deflate: Policy | None = None
        self.prefaces: Callable[[bytes, Any], Any] = lambda data, address: (0, None)
        self.failed: list[tuple[Any, str, BaseException]] = []
        self.stream_errors: list[BaseException] = []
        self.pauses: list[str] = []
        self.expiries: list[tuple[Any, float]] = []
        self.ends: list[tuple[Any, ...]] = []
        self.pipes: list[contract.Pipe] = []

    def route(self, target: bytes) -> tuple[str, int] | None:
        return self.paths.get(target)

    def answer(self, head: bytes, pipe: contract.Pipe) -> Answer:
        self.pipes.append(pipe)
        found = handshake.examine(head, route=self.route)
        if isinstance(found, handshake.Asked):
            return self.decide(found, head.split(b" ")[1])
        if isinstance(found, handshake.Plain):
            if found.head.target in self.streams:
                return self.streams[found.head.target]()
            page = self.pages.get(found.head.target)
            if page is not None:
                return contract.Refusal(page, Cause.HTTP_ANSWERED)
            return handshake.refuse_plain(found, is_websocket=self.route(found.target) is not None)
        return found

    def admit(self, head: bytes, key: bytes, path: str, endpoint: int, pipe: contract.Pipe) -> Answer:
        return self.answer(head, pipe)

    def decide(self, asked: handshake.Asked, target: bytes) -> Answer:
        if target in self.streams:
            return self.streams[target]()
        return self.upgrade(asked)

    def upgrade(self, asked: handshake.Asked) -> contract.Upgrade:
        agreed = negotiate(asked.extensions, self.deflate) if self.deflate is not None else None
        headers = b"" if agreed is None else b"Sec-WebSocket-Extensions: %b\r\n" % agreed[1]
        granted = handshake.grant(asked, handshake.choose(self.subprotocols, asked.subprotocols), headers)
        return granted._replace(deflate=agreed[0] if agreed else None, **self.more)

    def preface(self, data: bytes, address: Any) -> Any:
        return self.prefaces(data, address)

    def expires(self, connection: Any, expires_at: float) -> None:
        self.expiries.append((connection, expires_at))

    def ended(self, connection: Any, close: Close, bytes_in: int, bytes_out: int, seconds: float) -> None:
        self.ends.append((connection, close, bytes_in, bytes_out, seconds))

    def stream_failed(self, error: BaseException) -> None:
        self.stream_errors.append(error)

    def handler_failed(self, connection: Any, hook: str, error: BaseException) -> None:
        self.failed.append((connection, hook, error))

    def accepting_paused(self, why: str) -> None:
        self.pauses.append(why)


Answer = contract.Upgrade | contract.Refusal | contract.Stream


class Driver:
    """One engine with a listener, its clients, and a record of its calls.

    endpoints: handlers by hook name, one dict for each endpoint; or given by keyword for the only one.  gate: of the
    front.  guarded: whether the native engine asks the front about every handshake. Any other keyword is a setting.
    Where no handler is given, calls are recorded in `calls` as (hook, connection id, argument)."""

    def __init__(self, engine_name: str, endpoints: Sequence[dict[str, Any]], given: dict[str, Any]) -> None:
        handlers = {name: given.pop(name) for name in HOOKS if name in given}
        self.calls: list[tuple[str, int, Any]] = []
        guarded = given.pop("guarded", False)
        self.front = Front([self._endpoint(one, guarded) for one in endpoints or [handlers]], given.pop("gate", None))
        self.config = Config(engine=engine_name, **given)
        self.row = memoryview(array("q", [0] * len(counters.FIELDS)))
        self.soon: deque[Callable[[], object]] = deque()
        engine_class = load(engine_name)
        self.engine = engine_class(self.config, self.front, self.row, 7, self.soon.append, self.soon.append)
        self.listeners: list[socket.socket] = []
        self.peers: list[Peer] = []

    def _endpoint(self, handlers: dict[str, Any], guarded: bool) -> Endpoint:
        return Endpoint(**{name: handlers.get(name, self._recorder(name)) for name in HOOKS}, guarded=guarded)

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

    def listen(self, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0), *, proxied: bool = False, tls: Any = None) -> Any:
        """A listener of the engine; its address."""
        listener = socket.socket(family)
        if self.config.sndbuf_bytes:  # the owner's business; accepted sockets inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.config.sndbuf_bytes)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
        self.engine.listen(listener.fileno(), proxied=proxied, tls=tls)
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
