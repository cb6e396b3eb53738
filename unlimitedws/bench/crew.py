"""All load processes together: started, given orders, summed up."""

from __future__ import annotations

import mmap
import random
import string
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import gcd
from ssl import SSLContext
from typing import Any

from unlimitedws.bench import secure
from unlimitedws.bench.board import ROW_BYTES, Row
from unlimitedws.bench.latency import Latency
from unlimitedws.bench.options import Options
from unlimitedws.bench.plan import Plan
from unlimitedws.bench.process import Process, allow_files, start
from unlimitedws.bench.swarm import PATTERN_EXTRA, Swarm
from unlimitedws.bench.target import Target, Words
from unlimitedws.errors import BenchError

PING = 0x9
MOST_PING = 125
GOLDEN = 0.618034
SLOW_TICK_S = 0.1
LEAD_NS = 20_000_000  # for each eight processes, between an order and the time at which it begins


class Crew:
    """The load processes of one run, with a row of the board for each. A context manager: leaving it ends them all.

    Each process has its share of the special connections (slow, half-open) first, then of the plain ones."""

    def __init__(self, options: Options, plan: Plan, targets: Sequence[Target], words: Words, context: SSLContext | None = None) -> None:
        self.options, self.plan, self.targets, self.words = options, plan, targets, words
        self.board = mmap.mmap(-1, ROW_BYTES * len(plan.shares))
        self.rows = [Row(self.board, i) for i in range(len(plan.shares))]
        self.pattern = pattern(self.message_bytes + PATTERN_EXTRA)
        self.make_tls = secure.maker(context, targets[0])
        self.special = self.split_special()
        self.processes: list[Process] = []

    def __enter__(self) -> Crew:
        allow_files()
        try:
            for i in range(len(self.rows)):
                self.processes.append(start(partial(self.swarm, i), self.processes))
        except OSError as error:
            started = len(self.processes)
            self.end()
            raise BenchError(
                f"cannot start load process {started + 1} of {len(self.rows)}: {error.strerror}; fewer --processes, "
                "or a higher limit of this machine (ulimit -Hn, ulimit -u)"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        for process in self.processes:
            process.end()
        self.processes.clear()

    # ---- what each of them is

    @property
    def is_pinging(self) -> bool:
        return self.options.probe == "ping" and self.options.mode in ("idle", "slow", "half-open")

    @property
    def message_bytes(self) -> int:
        return min(self.options.message_bytes, MOST_PING) if self.is_pinging else self.options.message_bytes

    @property
    def receivers(self) -> int:
        return self.options.connections

    def split_special(self) -> list[int]:
        """How many of each process's connections are slow or half-open: as many as leave it its share of the healthy ones."""
        if self.options.mode not in ("slow", "half-open"):
            return [0] * len(self.rows)
        healthy = self.options.healthy
        number = len(self.rows)
        parts = [healthy // number + (i < healthy % number) for i in range(number)]
        return [share - min(part, share) for share, part in zip(self.plan.shares, parts, strict=True)]

    def swarm(self, i: int, control: int) -> Swarm:
        """The swarm of process i, made in it."""
        options = self.options
        broadcasts = options.mode == "broadcast"
        manner = {"slow": "slow", "half-open": options.stage}.get(options.mode, "plain")
        return Swarm(
            self.rows[i],
            self.plan.shares[i],
            first_number=self.plan.first_numbers[i],
            requests=self.words.requests,
            accepts=self.words.accepts,
            offered=self.words.offered,
            targets=[target.packed for target in self.targets],
            sources=self.plan.sources,
            pattern=self.pattern,
            message_bytes=self.message_bytes,
            opcode=PING if self.is_pinging else options.opcode,
            pipeline=options.pipeline,
            timeout_s=options.timeout_s,
            control=control,
            special=self.special[i],
            manner=manner,
            slow_bytes=round(options.read_bytes_per_s * SLOW_TICK_S),
            slow_s=SLOW_TICK_S,
            stuff_bytes=options.stuff_bytes,
            subscription=options.subscribe.encode() if broadcasts else b"",
            broadcasts=broadcasts,
            publishes=broadcasts and i == len(self.rows) - 1,
            subscribers=self.receivers,
            local=all(target.is_loopback for target in self.targets),
            make_tls=self.make_tls,
        )

    # ---- orders

    def order(self, name: str, **arguments: Any) -> None:
        """The same to all of them."""
        for process in self.processes:
            self.tell(process, name, **arguments)

    def tell(self, process: Process, name: str, **arguments: Any) -> None:
        try:
            process.order(name, **arguments)
        except OSError:
            raise BenchError(f"load process {process.pid} has ended; its traceback is above, unless it was killed") from None

    def dial(self, part: str = "all", *, rate: float = 0.0, **how: bool) -> None:
        """Connects all, or the special or plain ones. rate: a second, of all processes."""
        start_ns, number = self.soon(), len(self.processes)
        for i, process in enumerate(self.processes):
            first, end = {
                "all": (0, self.plan.shares[i]),
                "special": (0, self.special[i]),
                "plain": (self.special[i], self.plan.shares[i]),
            }[part]
            gap = 1e9 * number / rate if rate else 0.0
            self.tell(
                process,
                "dial",
                first=first,
                end=end,
                inflight=self.plan.inflight,
                start_ns=start_ns + int(gap * i / number),
                gap_ns=gap,
                **how,
            )

    def pace(self, number: int, start_ns: int, end_ns: int, *, spread: bool = False) -> None:
        """The open loop: so many messages of the plain connections, evenly over this time. spread: by as many of them as it can."""
        plain = [share - special for share, special in zip(self.plan.shares, self.special, strict=True)]
        for i, process in enumerate(self.processes):
            share = number * sum(plain[: i + 1]) // sum(plain) - number * sum(plain[:i]) // sum(plain)
            if not share:
                continue
            gap = (end_ns - start_ns) / share
            step = stride(plain[i]) if spread else 1
            self.tell(
                process, "pace", first=self.special[i], start_ns=start_ns + int(gap * i / len(plain)), gap_ns=gap, number=share,
                stride=step, inverse=pow(step, -1, plain[i]) if plain[i] > 1 else 0,
            )  # fmt: skip

    def publish(self, rate: float, start_ns: int, end_ns: int) -> None:
        gap = 1e9 / rate if rate else 0.0
        self.tell(self.processes[-1], "publish", start_ns=start_ns, gap_ns=gap, end_ns=end_ns, window=self.options.pipeline)

    def probe(self) -> None:
        self.tell(self.processes[-1], "probe")

    def are_obeyed(self) -> bool:
        """Whether all orders were carried out, and with them whatever had come from the server before."""
        return all(row.counters["orders"] == process.sent for row, process in zip(self.rows, self.processes, strict=True))

    def soon(self) -> int:
        """A time for something to begin in all processes: they have the order by then."""
        return time.monotonic_ns() + LEAD_NS * (1 + len(self.processes) // 8)

    # ---- what they have counted

    def look(self) -> Counter[str]:
        """All counters, summed. Raises BenchError when a process has ended."""
        for process in self.processes:
            if process.has_ended():
                raise BenchError(f"load process {process.pid} has ended; its traceback is above, unless it was killed")
        return self.counters()

    def counters(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for row in self.rows:
            total.update(row.counters)
        firsts = [first for row in self.rows if (first := row.counters["first_ns"])]
        total["first_ns"] = min(firsts, default=0)
        total["last_ns"] = max(row.counters["last_ns"] for row in self.rows)
        return total

    def closes(self) -> Counter[int]:
        return sum((Counter(row.closes) for row in self.rows), Counter())

    def statuses(self) -> Counter[int]:
        return sum((Counter(row.statuses) for row in self.rows), Counter())

    def errnos(self) -> dict[str, Counter[int]]:
        total: dict[str, Counter[int]] = {}
        for row in self.rows:
            for call, numbers in row.errnos.items():
                total.setdefault(call, Counter()).update(numbers)
        return total

    def latency(self, name: str) -> Latency:
        total = Latency()
        for row in self.rows:
            total.add(*row.histogram(name))
        return total

    def forget(self, name: str) -> None:
        """Empties a histogram; nothing may be recorded meanwhile."""
        for row in self.rows:
            row.forget(name)


def pattern(size: int) -> bytes:
    """What messages are cut from: characters that are text and are not escaped anywhere."""
    return "".join(random.Random(size).choices(string.ascii_letters + string.digits + "-_", k=min(size, 1 << 20))).encode() * (
        (size >> 20) + 1
    )


def stride(size: int) -> int:
    """A step that visits all of `size`, and the first few of them far apart."""
    step = max(1, round(size * GOLDEN))
    while gcd(step, size) != 1:
        step += 1
    return step
