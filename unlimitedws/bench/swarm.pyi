"""Types of a load process's connections. Times are CLOCK_MONOTONIC in ns, peers are numbered from 0."""

from collections.abc import Callable

from unlimitedws.bench.board import Row
from unlimitedws.bench.secure import ClientTls

MOST_PIPELINE: int
PATTERN_EXTRA: int  # bytes that a pattern has beyond a message
PEER_BYTES: int  # memory for each connection, without the messages in flight
MANNERS: dict[str, int]

class Swarm:
    """`size` clients of WebSocket servers and one epoll loop over them; what happens is counted on `row`. Raises ValueError, OSError.

    requests, accepts: upgrade requests to choose from, and the Sec-WebSocket-Accept of each.  offered: the subprotocols in them.
    targets, sources: packed socket addresses; no source: whichever the kernel takes.  control: a descriptor that ends `turn`.
    The first `special` peers are of a `manner` of their own: slow readers or half-open ones.
    publishes: the last peer is the publisher of a broadcast to `subscribers` in all processes.  local: the way is loopback.
    make_tls: gives each connection its TLS."""

    def __init__(
        self,
        row: Row,
        size: int,
        *,
        first_number: int,
        requests: list[bytes],
        accepts: list[bytes],
        offered: bytes,
        targets: list[bytes],
        sources: list[bytes],
        pattern: bytes,
        message_bytes: int,
        opcode: int,
        pipeline: int,
        timeout_s: float,
        control: int = -1,
        special: int = 0,
        manner: str = "plain",
        slow_bytes: int = 0,
        slow_s: float = 0.1,
        stuff_bytes: int = 0,
        subscription: bytes = b"",
        broadcasts: bool = False,
        publishes: bool = False,
        subscribers: int = 0,
        local: bool = False,
        make_tls: Callable[[], ClientTls] | None = None,
    ) -> None: ...
    def dial(
        self,
        first: int,
        end: int,
        inflight: int,
        start_ns: int = 0,
        gap_ns: float = 0,
        again: bool = False,
        cycling: bool = False,
        abrupt: bool = False,
    ) -> None:
        """Connects the peers first..end-1, at most `inflight` handshakes at a time.

        gap_ns: one each, and late ones count from when they were due.  again: those that end are connected again.
        cycling: they end themselves once they are open; abrupt: by a reset."""

    def halt(self) -> None:
        """Dials nobody any more."""

    def flood(self) -> None:
        """The closed loop: each open peer has `pipeline` messages in flight, until `rest`."""

    def pace(self, first: int, start_ns: int, gap_ns: float, number: int, stride: int, inverse: int) -> None:
        """The open loop: one message each gap_ns, so many in all, by the peers from `first` in turn, in steps of `stride`.

        inverse: of the stride, modulo their number."""

    def publish(self, start_ns: int, gap_ns: float, end_ns: int, window: int) -> None:
        """Publishes each gap_ns; 0: as soon as at most `window` - 1 publications have not reached everybody."""

    def probe(self) -> None:
        """One publication that only shows whom it reaches."""

    def time(self, from_ns: int, to_ns: int) -> None:
        """Latencies count in this time."""

    def rest(self) -> None:
        """Nothing more becomes due."""

    def give_up(self) -> None:
        """What was not answered will not be."""

    def leave(self, abrupt: bool = False) -> None:
        """Ends every connection; abrupt: by a reset."""

    def vanish(self) -> None:
        """Resets every plain connection at once. From now on `latency` is the time that each was away."""

    def turn(self, until_ns: int) -> bool:
        """Runs the loop until then, or until the control descriptor has something, which is what it says."""

    def order_done(self) -> None:
        """Counts an order that was carried out: what had come by then has been taken."""

    def close(self) -> None:
        """Cuts what is still open and gives the descriptors back."""
