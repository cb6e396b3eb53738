"""Who is let in while there is room: limits on connections and on the rate of handshakes.

Asked by the engine when a TCP connection was accepted, of which nothing is known but its address (`enter`), and before a
TLS handshake, which costs as much as a hundred messages (`secure`): who is refused there is closed plainly. And by the
front when a request for an upgrade was read (`handshake`): who is refused there gets 503 and a time to come back, spread
at random so that they do not come back together.

Limits for the whole server are shared out between its workers. What a worker may hold of `max_connections_total` the
supervisor says several times a second (pressure.py); of rates and of the connections of one address each worker
has an equal share, since the kernel spreads connections evenly.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Sequence

from unlimitedws.config import Config
from unlimitedws.engine.contract import Endpoint, Refusal
from unlimitedws.engine.counters import INDEX
from unlimitedws.pace import Pace
from unlimitedws.trust import Trusted
from unlimitedws.wire.address import Address
from unlimitedws.wire.closing import Cause
from unlimitedws.wire.handshake import refusal

ADVICE_LASTS_S = 10.0
"""What the supervisor said is forgotten after so long: it may hang, and must not keep a whole server shut."""

ANSWERS = 64
"""Different times to come back that are packed in advance."""

MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291, section 2.5.5.2: an IPv4 address in IPv6

COUNTED, PENDING, SHEDDING, SHARE, ADVISED_NS = (
    INDEX[name] for name in ("connections_counted", "handshakes_pending", "shedding", "connections_share", "advised_ns")
)


class Gate:
    """`contract.Gate` for one worker, and the judge of its handshakes; `open` comes before the first question.

    A trusted proxy speaks for many: it is not counted by address, but its clients are, as soon as it has named them."""

    _row: memoryview[int]

    def __init__(self, config: Config) -> None:
        self._config = config
        self._proxies = Trusted(config.trusted_proxies)
        self._total = config.max_connections_total
        self._pending = config.max_handshakes_pending
        self._held = 0
        self._by_address: dict[str | bytes, int] = {}
        self._prefixes = Prefixes(config.address_prefix_v4, config.address_prefix_v6)
        self._upgrades, self._secured = (Pace(*self._rates(1)) for _ in range(2))
        self._is_tls = bool(config.certfile)
        self.share(1)
        self._busy = refusals("the server is busy; come back later", config.retry_after_s, Cause.SHED)
        self._full = refusals("too many connections from this address", config.retry_after_s, Cause.LIMIT)
        self._unguarded: list[Endpoint] = []
        self._guarding = False

    def open(self, row: memoryview[int]) -> None:
        """row: as the engine has it."""
        self._row = row

    def share(self, workers: int) -> None:
        """So many workers share the limits of the server from now on. What is held or was used of them stays so."""
        config = self._config
        self._workers = workers
        self._per_address = max(1, config.max_connections_per_address // workers) if config.max_connections_per_address else 0
        for pace in (self._upgrades, self._secured):
            pace.change(*self._rates(workers))

    def _rates(self, workers: int) -> tuple[float, float, float]:
        config = self._config
        return config.handshakes_per_s / workers, config.handshakes_per_s_per_address / workers, config.handshake_burst_s

    # ---- connections

    @property
    def counts(self) -> bool:
        """Whether there is any limit on connections or TLS handshakes: if not, no engine need ask."""
        return bool(self._total or self._pending or self._per_address or (self._is_tls and self._upgrades.is_limited))

    def enter(self, address: Address) -> bool:
        """See `contract.Gate.enter`."""
        if self._total and self._held >= self._share():
            return False
        if self._pending and self._row[PENDING] >= self._pending:
            return False
        if self._per_address and not self._count(address):
            return False
        self._held += 1
        self._row[COUNTED] = self._held
        return True

    def leave(self, address: Address) -> None:
        """See `contract.Gate.leave`."""
        self._held -= 1
        self._row[COUNTED] = self._held
        if self._per_address:
            self._discount(address)

    def take_over(self, address: Address) -> None:
        """See `contract.Gate.take_over`."""
        if self._per_address and (key := self._key(address)) is not None:
            self._by_address[key] = self._by_address.get(key, 0) + 1
        self._held += 1
        self._row[COUNTED] = self._held

    def move(self, old: Address, new: Address) -> bool:
        """See `contract.Gate.move`. It keeps its place in all other respects: only the limit of the new address has a say."""
        if not self._per_address:
            return True
        self._discount(old)  # first, since both may count as one
        if self._count(new):
            return True
        self._count(old)
        return False

    def crowded(self, address: Address) -> Refusal | None:
        """The answer where as many connections come from this address as may; None: there is room for one more.

        For a request whose proxy names its client: the engine counts it there when it is accepted, and could only cut it."""
        if not self._per_address:
            return None
        key = self._key(address)
        return random.choice(self._full) if key is not None and self._by_address.get(key, 0) >= self._per_address else None

    def _share(self) -> int:
        """The connections that this worker may hold now."""
        if self._is_advised:
            return self._row[SHARE]
        return max(1, self._total // self._workers)

    @property
    def _is_advised(self) -> bool:
        advised_ns = self._row[ADVISED_NS]
        return bool(advised_ns) and time.monotonic_ns() - advised_ns < ADVICE_LASTS_S * 1e9

    def _key(self, address: Address) -> str | bytes | None:
        """What is counted together; None for what is not counted by address: Unix sockets and trusted proxies."""
        if isinstance(address, str) or address in self._proxies:
            return None
        return self._prefixes.of(address[0])

    def _count(self, address: Address) -> bool:
        key = self._key(address)
        if key is None:
            return True
        held = self._by_address.get(key, 0)
        if held >= self._per_address:
            return False
        self._by_address[key] = held + 1
        return True

    def _discount(self, address: Address) -> None:
        key = self._key(address)
        if key is None:
            return
        held = self._by_address.get(key, 0)
        if held > 1:
            self._by_address[key] = held - 1
        else:
            self._by_address.pop(key, None)

    # ---- handshakes

    @property
    def is_shedding(self) -> bool:
        """Whether memory is short, as the supervisor said."""
        return bool(self._row[SHEDDING]) and self._is_advised

    def handshake(self, address: Address) -> Refusal | None:
        """The answer to an upgrade that comes at a bad time; None: let it in. address: the client's, as a proxy has it."""
        if self.is_shedding:
            return random.choice(self._busy)
        return None if self._may_begin(self._upgrades, address) else random.choice(self._busy)

    def secure(self, address: Address) -> bool:
        """See `contract.Gate.secure`. The rates are those of upgrades, each counted by itself: over TLS a client needs both."""
        return self._may_begin(self._secured, address)

    def _may_begin(self, pace: Pace, address: Address) -> bool:
        return not pace.is_limited or pace.take(self._key(address), time.monotonic())

    def guard(self, endpoints: Sequence[Endpoint]) -> None:
        """Once at the start, then with each tick: has engines put every handshake to the front while there is something
        to judge (`Endpoint.guarded`), and only then."""
        judging = self._upgrades.is_limited or self.is_shedding
        if judging != self._guarding:
            self._guarding = judging
            if judging:
                self._unguarded = [endpoint for endpoint in endpoints if not endpoint.guarded]
            for endpoint in self._unguarded:
                endpoint.guarded = judging
        if self._upgrades.is_limited:
            for pace in (self._upgrades, self._secured):
                pace.trim(time.monotonic())


class Prefixes:
    """What of an address counts as one: so many leading bits."""

    def __init__(self, v4: int, v6: int) -> None:
        self._whole_v4 = v4 == 32
        self._v4, self._v6 = mask(v4, 4), mask(v6, 16)

    def of(self, host: str) -> str | bytes:
        """The key of the IPv4 or IPv6 address in `host`; an IPv4 address in IPv6 is that IPv4 address."""
        if ":" in host:
            packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])  # without the zone of fe80::1%eth0
            if not packed.startswith(MAPPED):
                return cut(packed, self._v6)
            host = socket.inet_ntop(socket.AF_INET, packed[12:])
        return host if self._whole_v4 else cut(socket.inet_pton(socket.AF_INET, host), self._v4)


def mask(bits: int, size: int) -> int:
    return (1 << 8 * size) - (1 << 8 * size - bits)


def cut(packed: bytes, kept: int) -> bytes:
    return (int.from_bytes(packed, "big") & kept).to_bytes(len(packed), "big")


def refusals(why: str, retry_after_s: int, cause: Cause) -> list[Refusal]:
    """Answers that each name another time to come back (RFC 9110, section 10.2.3)."""
    times = range(1, retry_after_s + 1, max(1, retry_after_s // ANSWERS))
    return [refusal(503, why, f"Retry-After: {seconds}")._replace(cause=cause) for seconds in times]
