"""What an engine promises, and what it asks of the floor above: the one contract of both engines.

An engine owns every descriptor of its peers and everything between the kernel and a handler:
accepting, the handshake, RFC 6455, limits, heartbeats, queues, the end of a connection. It is driven
from one thread by an event loop: `fileno()` is readable when `run()` has work, and `tick()` is called
`TICKS_PER_S` times a second. It calls back through `Front`; it never blocks, and it never lets an
exception of a handler out.

The guarantees, each tested on both engines (tests/engine):

- on_connect, then on_message for each message in order, then on_close exactly once, for a connection
  that finished its handshake; none of them for one that did not.
- While a connection is held (`hold`), none of its handlers is called but on_drain (the coroutine that
  holds may be waiting for just that); the others follow on `release`, in order, with nothing lost:
  what was read waits in memory, the rest in the kernel.
- A handler that raises is reported by `Front.handler_failed`, counted, and its connection closed
  with 1011 (`Cause.HANDLER_ERROR`).
- The same `Connection` object is given as long as anybody holds it; none is kept for an idle
  connection unless its `state` is set.
- Once a connection's output is over high water, neither what was read already nor what lies in the
  kernel is handled until it fell below low water. Every send() that was False for that reason is
  followed by an on_drain (or the end).
- In a connection's own input, its answers leave in one send() at the end of that input, or earlier
  when they pass high water; what is sent from elsewhere leaves at the end of the loop's turn.
- A Close from the peer is answered behind what is queued, and on_close is called right then. A close
  of ours waits close_timeout_s for theirs, however much is queued; on_close is called at its end.
- The idle limit counts messages from the peer only. Options of the listening socket (TCP_NODELAY,
  SO_SNDBUF, ...) are its owner's business; accepted sockets inherit them.
- The queue limit never refuses a message while the queue is empty: a healthy peer can be sent a
  message larger than the limit. Before the limit or the high-water mark is judged, the kernel is
  offered what waits.
- A connection whose request was answered by a `Stream` belongs to it until it is answered, restarted,
  closed or lost; it counts as a pending handshake meanwhile. Its reads stop while its output is over
  high water.
- Work is bounded: `run()` returns after a few batches, and no connection gets more than
  `MESSAGES_PER_TURN` messages handled, or one receive buffer read, before the others had their turn.
- A connection that has sent `CONTROLS_PER_S` Pings and Pongs since the clock hand came by (once a second)
  is not read until it comes again: TCP makes the peer wait. What was read before is handled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from unlimitedws.engine.moved import Moved
from unlimitedws.engine.said import Said
from unlimitedws.wire.closing import Close
from unlimitedws.wire.handshake import Refusal, Upgrade

__all__ = [
    "CONTROLS_PER_S", "EVENTS_PER_BATCH", "LINGER_BYTES", "LINGER_S", "MESSAGES_PER_TURN", "PING_SPREAD", "TICKS_PER_S",
    "Connection", "Endpoint", "Engine", "Front", "Gate", "Moved", "Pipe", "Refusal", "Stream", "Upgrade",
]  # fmt: skip

TICKS_PER_S = 8
"""How often `tick` wants to be called; the clock hand sweeps the whole table once a second."""

PING_SPREAD = 8
"""A Ping goes out early by chance, by up to the interval divided by this. Whoever was due while the machine stood still is pinged at
once afterwards, and would be so together for ever: of a million, 60,000 for each 1.5 s, which then filled two cores every 25 s."""

MESSAGES_PER_TURN = 256
"""Messages of one connection handled before the others have their turn."""

CONTROLS_PER_S = 1000
"""Pings and Pongs of one connection after which nothing more is read from it until the clock hand comes by."""

EVENTS_PER_BATCH = 512
"""Readiness events taken from the kernel at once."""

LINGER_S = 2.0
LINGER_BYTES = 1 << 20
"""After an error Close or an HTTP answer we stop sending and read on, for so long and so much at most:
closing a socket with unread input makes the kernel send RST, which destroys the answer on its way."""


@dataclass(slots=True)
class Endpoint:
    """The handlers of one kind of connection; None where the app has none.

    Each is called from inside `run`, `tick` or `release`; what it returns is ignored."""

    on_connect: Callable[[Any], object] | None = None
    on_message: Callable[[Any, str | bytes], object] | None = None
    on_close: Callable[[Any, Close], object] | None = None
    on_drain: Callable[[Any], object] | None = None
    on_resume: Callable[[Any, Any], object] | None = None
    """Called by the floor above, not by the engine."""
    guarded: bool = False
    """Whether `Front.admit` is asked before the handshake of a clean upgrade is answered."""


class Pipe(Protocol):
    """A connection that is no WebSocket (yet), as its `Stream` uses it. Given by the engine; every method
    does nothing once the connection is over, and each may be called from anywhere on the loop.

    `answer`, `restart`, `close` and `abort` end the stream: nothing but `lost` is called after them."""

    @property
    def remote_address(self) -> tuple[str, int] | str: ...
    @property
    def tls(self) -> Any:
        """The `ssl.SSLObject` of a TLS connection, else None."""

    @property
    def waited_s(self) -> float:
        """Since the connection came, or since the first byte of its next request did; 0 once it is over."""

    def write(self, data: bytes) -> bool:
        """Queues bytes, which leave at the end of the loop's turn. False: over high water; `drained` follows."""

    def pause(self) -> None:
        """Reads no more until `resume`: what comes waits in the kernel."""

    def resume(self) -> None: ...

    def answer(self, verdict: Upgrade | Refusal, data: bytes = b"") -> None:
        """Becomes a WebSocket, or is refused. data: what was received and not used, the first frames perhaps."""

    def restart(self, data: bytes = b"") -> None:
        """The request was answered: waits for the next (keep-alive), of which `data` has come already.

        The next head goes through `Front.answer` like the first. Silence for the handshake deadline ends it;
        as long as its output moves it is not silent."""

    def close(self) -> None:
        """Sends what waits, then ends the connection, reading on for a bounded time (`LINGER_S`)."""

    def abort(self) -> None: ...


class Stream(Protocol):
    """What a `Front` answers with where a request takes more than one answer at once: plain HTTP with a
    body, an async hook. Called on the loop; an exception ends the connection and is logged.

    The engine sets no deadline to a stream: that is its own business."""

    def begin(self, pipe: Pipe) -> None:
        """First, from inside `run`; `received` follows with what came behind the head, unless it paused."""

    def received(self, data: bytes) -> None: ...
    def drained(self) -> None:
        """The output fell below low water after a `write` that returned False."""

    def ended(self) -> None:
        """The peer ended its side of the stream; it can still be answered."""

    def lost(self) -> None:
        """The connection is over, or was answered, restarted or closed by us: the last call, exactly once."""


class Gate(Protocol):
    """Counts connections and TLS handshakes by address, and refuses."""

    def enter(self, address: tuple[str, int] | str) -> bool:
        """Whether a new TCP connection may stay. False: it is closed at once, counted as refused, and not left."""

    def leave(self, address: tuple[str, int] | str) -> None:
        """The end of one that entered. address: as the connection has it then: a proxy may have said another."""

    def secure(self, address: tuple[str, int] | str) -> bool:
        """Whether a TLS handshake may begin: asked once, when its first byte has come. False: cut, counted as shed."""

    def take_over(self, address: tuple[str, int] | str) -> None:
        """A connection comes from another engine, which let it in: counted, never refused."""

    def move(self, old: tuple[str, int] | str, new: tuple[str, int] | str) -> bool:
        """Whether one that entered may stay where a proxy says that it comes from (`Front.preface`,
        `Upgrade.remote_address`). False: it is cut, and leaves by its old address."""


class Front(Protocol):
    """What an engine asks of the floor above."""

    @property
    def endpoints(self) -> Sequence[Endpoint]: ...

    def route(self, target: bytes) -> tuple[str, int] | None:
        """Decoded path and endpoint index for a request target without its query; None: no such path.

        Called by the native engine's fast path, which takes only a plain upgrade without subprotocols
        for an endpoint that is not `guarded`."""

    def answer(self, head: bytes, pipe: Pipe) -> Upgrade | Refusal | Stream:
        """The answer to a complete request head (up to and with its empty line). Never raises.

        pipe: tells address and TLS facts; only a Stream may use the rest of it, from `begin` on."""

    def admit(self, head: bytes, key: bytes, path: str, endpoint: int, pipe: Pipe) -> Upgrade | Refusal | Stream:
        """Like `answer`, for a clean upgrade (`head.parse_upgrade`) whose endpoint is `guarded`. Never raises.

        key: its Sec-WebSocket-Key.  path, endpoint: what `route` said."""

    def stream_failed(self, error: BaseException) -> None:
        """A Stream raised: log it. The engine aborts the connection."""

    @property
    def gate(self) -> Gate | None:
        """Who is asked about each new TCP connection; None: nobody. Read once, when the engine is made."""

    def preface(self, data: bytes, address: tuple[str, int] | str) -> tuple[int, tuple[str, int] | str | None] | None:
        """On a `proxied` listener, what stands before the request (the PROXY protocol): its size and the
        client's address (None: the socket's own). None: more bytes are needed. Raises ValueError for what
        is no preface, and where the socket's `address` is no trusted proxy's; the connection is cut then."""

    def expires(self, connection: Any, expires_at: float) -> None:
        """Called when a handshake whose `Upgrade.expires_at` is set is done, before on_connect, which may move it."""

    def ended(self, connection: Any, close: Close, bytes_in: int, bytes_out: int, seconds: float) -> None:
        """With the setting `access_log`: called once at the end of each WebSocket, before its on_close.

        seconds: since its handshake; bytes with framing, of the WebSocket alone."""

    def handler_failed(self, connection: Any, hook: str, error: BaseException) -> None:
        """Log it. The engine counts and closes."""

    def accepting_paused(self, why: str) -> None:
        """Descriptors ran out: log one clear line. The engine goes on by itself when some are free."""


class Connection(Protocol):
    """See `unlimitedws.Connection`, which documents it for users; each engine brings its own class.

    `worker_data` and the like are not here: what the floor above keeps for a connection, it keeps itself."""

    state: Any

    @property
    def resumed(self) -> bool: ...
    @property
    def id(self) -> int: ...
    @property
    def path(self) -> str: ...
    @property
    def subprotocol(self) -> str | None: ...
    @property
    def remote_address(self) -> tuple[str, int] | str: ...
    @property
    def queued_bytes(self) -> int: ...
    @property
    def is_open(self) -> bool: ...
    def send(self, message: str | bytes | bytearray | memoryview, *, text: bool | None = None) -> bool: ...
    def close(self, code: int = 1000, reason: str = "") -> None: ...
    def abort(self) -> None: ...
    def ping(self, payload: bytes = b"") -> None: ...


class Engine(Protocol):
    """One engine, owned by one thread.

    Made as `Engine(config, front, row, serial, call_soon, call_soon_threadsafe)`:
    config: the limits.  front: see `Front`.  row: a writable memoryview of format "q", one item for
    each of `counters.FIELDS`, of which the engine writes `ENGINE_FIELDS`, the histogram `MESSAGE_HANDLING` (at
    the end of `run`) and the ring of closes (`closes.note`).  serial: this worker process's number; ids are
    `serial << 40 | count`, count from 1.  call_soon(callback): run on the loop's next turn.
    call_soon_threadsafe: the same, from any thread."""

    name: str
    departing: Mapping[int, int]
    """Descriptors of the connections that depart, with what they were."""

    def fileno(self) -> int:
        """The epoll descriptor: readable when `run` has something to do."""

    def run(self) -> None:
        """Handles what is ready, in bounded batches. Asks for another turn by itself if more is left."""

    def tick(self) -> None:
        """Moves the clock hand: deadlines, heartbeats, idle limits, memory given back."""

    def listen(self, fd: int, *, proxied: bool = False, tls: Any = None) -> None:
        """Accepts from a listening, non-blocking socket, until its owner shuts it down. The descriptor stays its owner's.

        proxied: each connection begins with a preface (`Front.preface`), before TLS.  tls: a callable
        without arguments that returns the `ssl.SSLContext` for the next connection; None: plain."""

    def unlisten(self, fd: int) -> None:
        """Accepts no more from this listener. Not to be called from a handler. Does nothing where it does not listen there."""

    def stop_listening(self) -> None:
        """Accepts no more, from any listener. The listeners stay open."""

    def hold(self, connection: Any) -> None:
        """No handler of this connection is called until `release`; counts, so that holds nest."""

    def release(self, connection: Any) -> None:
        """Ends a hold; at the last one, what waited is handled. Right after a close, gives on_close."""

    def fail(self, connection: Any, hook: str, error: BaseException) -> None:
        """A handler that ran outside (a coroutine, a thread) raised: as if it had raised inside.

        Reported by `Front.handler_failed`, counted, and the connection closed with 1011
        (`Cause.HANDLER_ERROR`). Of a connection that is closed already it is only reported and counted."""

    def expire(self, connection: Any) -> None:
        """Closes a connection whose time has come, as `close(1008, "expired")` would, with `Cause.EXPIRED`."""

    def stall(self, endpoint: int) -> None:
        """No more messages are taken from connections of this endpoint (its thread queue is full).

        Takes effect at once, within the turn in which it is called. Stalling twice is stalling once."""

    def unstall(self, endpoint: int) -> None:
        """The stalled ones go on, in the order in which they came to wait, until stalled again."""

    def broadcast(
        self, message: str | bytes | bytearray | memoryview, connections: Iterable[Any] | None = None,
        *, text: bool | None = None, departing: bool = True,
    ) -> int:  # fmt: skip
        """Sends one message to all open connections, or to those given; how many it was queued for.

        departing: False: not to those that depart.

        The frame is packed once. Broadcasts of one loop turn reach a peer in one `send()`. Closed
        connections are passed over. The queue limit and policy hold for each connection."""

    def connections(self) -> list[Any]:
        """A Connection object for each open connection, now."""

    def page(self, start: int, at_most: int) -> tuple[list[Any], int | None]:
        """Up to `at_most` open connections, and where the next page starts (None: there is none). start: 0, then that.

        In the order of the table, which connections that come and go meanwhile do not change."""

    def find(self, id: int) -> Any | None:
        """The open connection with this id."""

    def drain(self, code: int, reason: str, at_most: int) -> int:
        """Closes up to `at_most` open connections politely, with Cause.DRAIN; how many connections of
        any kind are left, closing ones and unfinished handshakes included. Unfinished handshakes are cut;
        streams are left to finish what they answer."""

    def depart(self, at_most: int, *, objects: bool = False, but: Collection[int] = ()) -> list[tuple[int, Moved, Any]]:
        """Freezes up to `at_most` connections that can leave for another engine now, and describes them.

        Each with its descriptor and its Connection, where one is held (objects: made where none is). Until `departed` or `stay`
        nothing is read from them or sent to them; to the app they are open, and what it says to them is kept. Left out:
        held ones, for now; TLS, context takeover, streams and closing ones, for good; and the descriptors in `but`. Called between
        turns of the loop."""

    def held(self) -> int:
        """Connections that would depart were nothing pending for them: a handler, or the answer to a request."""

    def departed(self, fds: Sequence[int]) -> dict[int, list[Said]]:
        """Another engine has these: their descriptors are closed here, without an end of the connection or an on_close.

        What was said to them meanwhile, by id, is to be said there."""

    def stay(self, fds: Sequence[int], *, resumed: Collection[int] = ()) -> None:
        """Nobody has taken these: they go on as if nothing had been, with what was said to them.

        resumed: those of which the app was told that they leave; `Connection.resumed` is True from now on."""

    def adopt(self, fd: int, moved: Moved, endpoint: int) -> None:
        """Takes over a connection that departed; the descriptor is the engine's from now on. No handler is called before the
        next turn of the loop. Raises OSError where it cannot be watched, ValueError where its address is none that this engine
        can keep; the descriptor is still the caller's then."""

    def connection_at(self, fd: int) -> Any | None:
        """The Connection of an open connection by its descriptor."""

    def part_with(self, connection: Any) -> None:
        """Closes one whose state was lost on the way, with 1012 (`Cause.NOT_RESUMED`)."""

    def close(self) -> None:
        """Cuts every connection (on_close with Cause.DRAIN, even where held) and frees everything."""
