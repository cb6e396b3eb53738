"""What each worker is advised: whether memory is short, and how many connections it may hold of the server's.

The supervisor advises all workers, through the rows of the stats table; a worker without supervisor advises itself. A
row's last three columns belong to the adviser alone; `gate.Gate` obeys them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from unlimitedws.config import Config
from unlimitedws.engine.counters import INDEX
from unlimitedws.memory import Memory, Reading

log = logging.getLogger("unlimitedws.pressure")

EVERY_S = 0.25
"""How often shares are dealt out anew: between two times nobody gets more than his share of what is left."""

MEMORY_EVERY_S = 1.0

RELIEF = 0.02
"""So far below its limit a reading must fall before all is well: at the limit itself it would come and go."""

COUNTED, SHARE, SHEDDING, ADVISED_NS = (INDEX[name] for name in ("connections_counted", "connections_share", "shedding", "advised_ns"))

Row = memoryview  # of format "q"


class Pressure:
    """Judges the machine and advises workers.

    reading: the latest of the machine's memory.  is_shedding: whether it is short."""

    def __init__(self, config: Config, memory: Memory | None = None) -> None:
        self.config = config
        self.memory = memory or Memory()
        self.reading = Reading(0.0, 0.0)
        self.is_shedding = False
        self.read_at = float("-inf")

    @property
    def is_needed(self) -> bool:
        """Whether any setting asks for it."""
        config = self.config
        return bool(config.shed_memory or config.shed_stall or config.max_connections_total)

    @property
    def every_s(self) -> float:
        """How often workers want advice."""
        return EVERY_S if self.config.max_connections_total else MEMORY_EVERY_S

    def advise(self, accepting: Sequence[Row], others: Sequence[Row] = ()) -> None:
        """Writes the advice into the rows of workers that accept; `others` still hold connections of the server."""
        now = time.monotonic()
        if now - self.read_at >= MEMORY_EVERY_S:
            self.read_at = now
            self.judge(self.memory.read())
        held = [row[COUNTED] for row in accepting]
        shares = deal(self.config.max_connections_total, held, sum(row[COUNTED] for row in others))
        advised_ns = time.monotonic_ns()
        for row, share in zip(accepting, shares, strict=True):
            row[SHARE], row[SHEDDING] = share, self.is_shedding
            row[ADVISED_NS] = advised_ns

    def judge(self, reading: Reading) -> None:
        """Begins to shed beyond a limit, and ends clearly below both."""
        self.reading = reading
        config, relief = self.config, RELIEF if self.is_shedding else 0.0
        short = beyond(reading.used, config.shed_memory, relief) or beyond(reading.stalled, config.shed_stall, relief)
        if short != self.is_shedding:
            self.is_shedding = short
            self.report()

    def report(self) -> None:
        used, stalled = f"{self.reading.used:.0%}", f"{self.reading.stalled:.0%}"
        if self.is_shedding:
            log.warning("memory is short: %s in use, processes waited for it %s of the time; new handshakes get 503", used, stalled)
        else:
            log.warning("memory is there again: %s in use; handshakes are accepted", used)


def beyond(value: float, limit: float, relief: float) -> bool:
    """Whether a reading is beyond a limit; 0: there is none."""
    return bool(limit) and value >= limit - relief


def deal(most: int, held: Sequence[int], held_elsewhere: int) -> list[int]:
    """What each worker may hold: what it holds already, and an equal part of what is left of `most` for the whole server.

    The sum never exceeds `most`, unless that many are held already."""
    left = max(0, most - sum(held) - held_elsewhere)
    part, rest = divmod(left, len(held)) if held else (0, 0)
    return [mine + part + (i < rest) for i, mine in enumerate(held)]
