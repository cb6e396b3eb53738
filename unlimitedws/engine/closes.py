"""The last closes of a worker: a ring in its row of the stats table, which the supervisor reads without asking.

One writer, no lock: an entry is two items, the count comes last, and a reader drops what was overwritten while it
read. Kept are ends of WebSockets; a crowd of refused requests would leave nothing else in it.

    id     of the connection
    how    milliseconds of CLOCK_MONOTONIC (they wrap after 49 days) << 32 | close code << 16 | number of the cause
"""

from __future__ import annotations

import time
from typing import NamedTuple

from unlimitedws.engine.counters import INDEX, RING_CLOSES
from unlimitedws.wire.closing import Cause

NOTED = INDEX["ring_noted"]
FIRST = NOTED + 1
CAUSES = tuple(Cause)
NUMBERS = {cause: number for number, cause in enumerate(CAUSES)}

WRAP_MS = 1 << 32


class Noted(NamedTuple):
    """One close. at_ms: on the clock above."""

    id: int
    at_ms: int
    code: int
    cause: Cause


def note(row: memoryview[int], id: int, at_ms: int, code: int, cause: Cause) -> None:
    """Keeps a close, in the place of the oldest."""
    keep(row, id, signed((at_ms % WRAP_MS) << 32 | code << 16 | NUMBERS[cause]))


def keep(row: memoryview[int], id: int, how: int) -> None:
    place = FIRST + 2 * (row[NOTED] % RING_CLOSES)
    row[place], row[place + 1] = id, how
    row[NOTED] += 1


def signed(item: int) -> int:
    """An item of 64 bits as the table holds it."""
    return item - (1 << 64) if item >> 63 else item


def entries(row: memoryview[int]) -> list[tuple[int, int]]:
    """The items of the closes kept, the oldest first."""
    noted = row[NOTED]
    numbers = range(max(0, noted - RING_CLOSES), noted)
    places = [FIRST + 2 * (number % RING_CLOSES) for number in numbers]
    read = [(row[place], row[place + 1]) for place in places]
    overwritten = max(0, row[NOTED] + 1 - RING_CLOSES - numbers.start)  # the one that is being written may be half there
    return read[overwritten:]


def last(row: memoryview[int]) -> list[Noted]:
    """The closes kept, the oldest first."""
    return [Noted(id, (how >> 32) % WRAP_MS, how >> 16 & 0xFFFF, CAUSES[how & 0xFFFF]) for id, how in entries(row)]


def inherit(row: memoryview[int], heir: memoryview[int]) -> None:
    """Keeps the closes of a row that is about to be wiped in another one, which holds the last of both then.

    Not in the order in which rows are wiped: an old worker that drains may outlive its successors."""
    now_ms = time.monotonic_ns() // 1_000_000
    both = sorted(entries(heir) + entries(row), key=lambda entry: (now_ms - (entry[1] >> 32)) % WRAP_MS, reverse=True)
    heir[NOTED] = 0
    for id, how in both[-RING_CLOSES:]:
        keep(heir, id, how)
