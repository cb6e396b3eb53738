"""One run while it goes on: what modes are made of, and what is read meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from unlimitedws.bench import kernel
from unlimitedws.bench.crew import Crew
from unlimitedws.bench.kernel import Kernel
from unlimitedws.bench.latency import Latency
from unlimitedws.bench.options import Options
from unlimitedws.bench.progress import Progress, wrong
from unlimitedws.bench.server import Memory, Server, Usage, usage
from unlimitedws.errors import BenchError

LOOK_S = 0.02
SETTLE_S = 1.0

REMEDIES = {
    ("bind", errno.EADDRNOTAVAIL): " (--sources are addresses of this machine)",
    ("connect", errno.EADDRNOTAVAIL): " (all source ports are in use: more --sources, or URLs with other ports)",
}

Condition = Callable[[Counter[str]], bool]


class Interrupted(Exception):
    """SIGINT: what there is shall be shown."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory at one moment. memory: of the server, where it is known."""

    memory: Memory | None
    kernel: Kernel
    connections: int


@dataclass(frozen=True, slots=True)
class Window:
    """A time that was measured: how long, the growth of all counters, the cores that each process and the whole machine used.

    load_waits, server_waits: cores that each process waited for while others used them."""

    seconds: float
    counters: Counter[str]
    load_cores: dict[int, float]
    server_cores: dict[int, float] | None
    machine_cores: float
    load_waits: dict[int, float] = field(default_factory=dict)
    server_waits: dict[int, float] = field(default_factory=dict)


@dataclass
class Run:
    """A run while it goes on, and what is known of it afterwards."""

    options: Options
    crew: Crew
    progress: Progress
    server: Server | None = None
    readings: dict[str, Reading] = field(default_factory=dict)
    windows: dict[str, Window] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  #: how long what has a name took
    latencies: dict[str, Latency] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)
    is_interrupted: bool = False
    stopped_early: str = ""  #: why, where it was not for SIGINT

    def execute(self, mode: Callable[[Run], None]) -> None:
        """Does what the mode does. After SIGINT it ends early; a second one raises KeyboardInterrupt. Raises BenchError."""
        before = signal.signal(signal.SIGINT, self.interrupt)
        try:
            with contextlib.suppress(Interrupted):
                mode(self)
            self.stop()
        finally:
            signal.signal(signal.SIGINT, before)
            self.progress.clear()

    def stop(self) -> None:
        """Ends the load, takes what it has counted, and leaves. After SIGINT the server has a moment for it, and no more."""
        patience_s = SETTLE_S + (0.0 if self.is_interrupted else self.options.timeout_s)
        self.obeyed("rest")
        if self.is_interrupted:  # answers may be under way; those that stay away have taken until now, at least
            self.outlast(lambda: answered(self.crew.counters()), patience_s)
            self.obeyed("give_up")
        self.counters = self.crew.counters()
        self.latencies["latency"] = self.crew.latency("latency")
        self.latencies["late"] = self.crew.latency("late")
        if self.options.mode in ("slow", "half-open"):
            self.latencies["kept"] = self.crew.latency("kept")
        self.crew.order("leave", abrupt=self.options.abrupt)
        self.outlast(lambda: nobody(self.crew.counters()), patience_s)

    def obeyed(self, order: str) -> None:
        """Gives an order, and waits until all processes have carried it out: at once, unless this machine is very busy."""
        self.crew.order(order)
        self.outlast(self.crew.are_obeyed, self.options.timeout_s + SETTLE_S)

    def outlast(self, done: Callable[[], bool], limit_s: float) -> None:
        """Waits, but not for ever, for what should come at once."""
        deadline = time.monotonic() + limit_s
        while not done() and time.monotonic() < deadline:
            time.sleep(LOOK_S)

    def interrupt(self, *_: object) -> None:
        self.is_interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    # ---- waiting

    def wait(self, doing: str, done: Condition, limit_s: float) -> bool:
        """Whether it was done in time. Raises Interrupted, BenchError."""
        deadline = time.monotonic() + limit_s
        while True:
            now = self.crew.look()
            self.progress.show(doing, now)
            if done(now):
                return True
            if self.is_interrupted:
                raise Interrupted
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_S * (1 + len(self.crew.rows) // 8))  # looking takes the longer, the more there are

    def sleep_until(self, doing: str, at_ns: int) -> None:
        """Lets it go on until then; less when nobody is there any more."""
        left_s = max(0.0, (at_ns - time.monotonic_ns()) / 1e9)
        if self.wait(doing, self.all_gone, left_s):
            self.stopped_early = "every connection was lost"

    def all_gone(self, now: Counter[str]) -> bool:
        # In a storm there may be nobody between two connections of it, and whom the server refuses tries again.
        return self.options.mode != "connect" and nobody(now) and now["lost"] + now["cut"] > 0

    def pause(self, doing: str, seconds: float) -> None:
        self.sleep_until(doing, time.monotonic_ns() + int(seconds * 1e9))

    def outstay(self, doing: str, seconds: float) -> None:
        """Lets that time pass, whoever is still there: after all have left that is nobody, and no early end."""
        self.wait(doing, never, seconds)

    # ---- reading

    def read(self, name: str) -> None:
        """Memory now, under this name."""
        now = self.crew.counters()
        memory = self.server.memory() if self.server else None
        self.readings[name] = Reading(memory, kernel.read(self.options.pid), now["up"] + now["held"])

    @contextmanager
    def window(self, name: str) -> Iterator[None]:
        """Measures what happens inside; also when it is interrupted."""
        load, server, counters = self.usages()
        try:
            yield
        finally:
            load_now, server_now, counters_now = self.usages()
            counters_now.subtract(counters)
            self.windows[name] = Window(
                (load_now.at_ns - load.at_ns) / 1e9, counters_now, load_now.since(load),
                server_now.since(server) if server_now and server else None, load_now.machine_since(load),
                load_now.waits_since(load), server_now.waits_since(server) if server_now and server else {},
            )  # fmt: skip

    def usages(self) -> tuple[Usage, Usage | None, Counter[str]]:
        server = self.server.usage() if self.server else None
        return usage([process.pid for process in self.crew.processes]), server, self.crew.counters()

    # ---- what modes are made of

    def ramp(self, part: str = "all") -> None:
        """Connects. Raises BenchError when nobody was let in."""
        began, before, wanted = time.monotonic(), self.crew.counters(), self.number_of(part)
        self.crew.dial(part, rate=self.options.connect_rate)

        def finished(now: Counter[str]) -> bool:
            return now["opened"] + now["failed"] - before["opened"] - before["failed"] >= wanted

        if not self.wait("connecting", finished, self.options.ramp_timeout_s):
            self.crew.order("halt")
            self.stopped_early = f"not all were connected within {self.options.ramp_timeout_s:g} s (--ramp-timeout-s)"
        self.seconds["connecting"] = self.seconds.get("connecting", 0.0) + time.monotonic() - began
        now = self.crew.counters()
        if now["opened"] == before["opened"]:
            raise BenchError(f"not one of {wanted} connections came up: {'; '.join(self.faults()) or self.stopped_early}")

    def number_of(self, part: str) -> int:
        special, total = sum(self.crew.special), sum(self.crew.plan.shares)
        return {"all": total, "special": special, "plain": total - special}[part]

    def load(self, rate: float, warm_s: float, measure_s: float, *, name: str = "measure", spread: bool = False) -> None:
        """Messages: warm up, measure, let the last answers come. rate: of the open loop; 0: the closed one."""
        start_ns, from_ns, to_ns = self.times(warm_s, measure_s)
        if not rate:
            self.crew.order("flood")
            self.measure(name, from_ns, to_ns)
            self.crew.order("rest")
            self.drain(0)
            return
        number, before = max(1, round(rate * (to_ns - start_ns) / 1e9)), self.crew.counters()["due"]
        self.crew.pace(number, start_ns, to_ns, spread=spread)
        self.measure(name, from_ns, to_ns)
        # No order to rest: what a load process is late for is due all the same.
        self.drain(before + number)

    def times(self, warm_s: float, measure_s: float) -> tuple[int, int, int]:
        """When it begins and when it is measured, which the processes are told."""
        start_ns = self.crew.soon()
        from_ns = start_ns + int(warm_s * 1e9)
        to_ns = from_ns + int(measure_s * 1e9)
        self.crew.order("time", from_ns=from_ns, to_ns=to_ns)
        return start_ns, from_ns, to_ns

    def measure(self, name: str, from_ns: int, to_ns: int) -> None:
        self.sleep_until("warming up", from_ns)
        with self.window(name):
            self.sleep_until("measuring", to_ns)

    def drain(self, due: int) -> None:
        """Waits for the answers that are due, and until so many are; those that do not come in time are given up."""
        if not self.wait("draining", lambda now: (now["due"] >= due or nobody(now)) and answered(now), self.options.timeout_s):
            self.crew.order("give_up")
            self.wait("draining", answered, self.options.timeout_s)

    def faults(self) -> list[str]:
        """What went wrong on the way to the server, in words."""
        now = self.crew.counters()
        found = [
            f"{number:,} x {call}: {os.strerror(code)}{REMEDIES.get((call, code), '')}"
            for call, numbers in self.crew.errnos().items()
            for code, number in numbers.items()
        ]
        found += [f"{number:,} x HTTP status {status}" for status, number in self.crew.statuses().items()]
        found += [f"{number:,} x Close {code}" for code, number in self.crew.closes().items()]
        words = {
            "hung_up": "ended before the handshake was answered", "eof": "end of stream without a Close frame",
            "timeouts": f"no answer within {self.options.timeout_s:g} s", "not_websocket": "no WebSocket answer",
            "tls_errors": "failure of TLS", "protocol_errors": "frames against the protocol",
        }  # fmt: skip
        found += [f"{now[name]:,} x {text}" for name, text in words.items() if now[name]]
        return found + (["end of the server's process (--pid)"] if self.server and not self.server.is_there() else [])


def answered(now: Counter[str]) -> bool:
    return now["due"] <= now["answered"] + wrong(now) + now["unanswered"]


def never(_: Counter[str]) -> bool:
    return False


def nobody(now: Counter[str]) -> bool:
    return not now["up"] + now["held"] + now["opening"] + now["closing"]
