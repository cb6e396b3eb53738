"""The shared stats table: what every worker counts, readable without asking it.

A memfd, mapped by the supervisor and by each worker; it survives a fork, an exec and the death of any of
them. Its layout, in native 64-bit integers:

    header                 MAGIC, version, checksum of the column names, sizes
    one row per slot       the totals of the slot's dead processes (counters, and the last closes)
    one row per process    written by the worker that holds it, read by the supervisor

After an upgrade workers of another release may still write to a table of other columns: their rows are then lodgers of
ours, read and written under the names that both have.

A row has `counters.FIELDS` as its columns and is padded to whole cache lines, so that no two workers
write to the same one. Only the supervisor claims and frees rows.
"""

from __future__ import annotations

import mmap
import os
import zlib
from array import array
from collections.abc import Sequence
from typing import cast

from unlimitedws.engine import closes, counters

MAGIC = int.from_bytes(b"unlimws\0", "little")
VERSION = 1
CHECKSUM = zlib.crc32(",".join(field.name for field in counters.FIELDS).encode())

HEADER_ITEMS = 8  # magic, version, checksum, items of a row, slots, process rows, USED; one to spare
USED = 6  # process rows that were ever claimed are among the first so many
ROW_ITEMS = (counters.ROW_BYTES + 63) // 64 * 8  # 64: a cache line
ITEM_BYTES = 8

COLUMNS = [field.name for field in counters.FIELDS]
COUNTERS = tuple(i for i, field in enumerate(counters.FIELDS) if field.kind == "counter")


def rows_for(slots: int) -> int:
    """Process rows for so many slots: in a reload each slot has two processes; and some to spare."""
    return max(8, 2 * slots + 2)


class StatsTable:
    """The mapped table. `fd` is this process's own and is closed by `close()`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.items = memoryview(mmap.mmap(fd, 0)).cast("q")
        magic, version, checksum, row_items, self.slots, self.rows = self.items[:6]
        if (magic, version, checksum, row_items) != (MAGIC, VERSION, CHECKSUM, ROW_ITEMS):
            raise RuntimeError("the stats table was made by another version of unlimitedws; stop it and start anew")
        self.lodgers: dict[int, memoryview[int]] = {}
        # Not all rows: to look at one takes its memory.
        self.claimed = {i for i in range(self.items[USED]) if self.row(i)[counters.INDEX["pid"]]}

    @classmethod
    def create(cls, slots: int) -> StatsTable:
        """A new, empty table. It takes memory only for rows that are used, so `slots` may be many more than there are."""
        rows = rows_for(slots)
        fd = os.memfd_create("unlimitedws-stats", os.MFD_CLOEXEC)
        os.ftruncate(fd, ITEM_BYTES * (HEADER_ITEMS + ROW_ITEMS * (slots + rows)))
        os.pwrite(fd, array("q", (MAGIC, VERSION, CHECKSUM, ROW_ITEMS, slots, rows)).tobytes(), 0)
        return cls(fd)

    @classmethod
    def inherit(cls, fd: int, columns: Sequence[str], used: int) -> tuple[StatsTable, int]:
        """The table of the release before this one, and what to add to the numbers of its rows: 0 where it is the same table.

        columns: what it has.  used: how many slots have counted anything. A table with other columns is closed; its rows in use are
        lodgers in a new one."""
        if list(columns) == COLUMNS:
            return cls(fd), 0
        items = memoryview(mmap.mmap(fd, 0)).cast("q")
        os.close(fd)
        row_items, slots = items[3], items[4]

        def row_at(position: int) -> memoryview[int]:
            start = HEADER_ITEMS + row_items * position
            return ForeignRow.of(items[start : start + row_items], columns)

        table = cls.create(slots)
        for slot in range(used):
            table._count(row_at(slot), table.totals(slot))
        table.lodgers = {table.rows + i: row_at(slots + i) for i in range(items[USED])}
        return table, table.rows

    def close(self) -> None:
        """Gives the descriptor back; the mapping stays until the last row view is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def totals(self, slot: int) -> memoryview[int]:
        """The row that holds what the slot's dead processes counted."""
        return self._row_at(slot)

    def row(self, index: int) -> memoryview[int]:
        """A process's row: a writable view of format "q", one item for each of `counters.FIELDS`."""
        return self.lodgers.get(index) or self._row_at(self.slots + index)

    def claim(self) -> int | None:
        """A free row, zeroed; None where every row is taken."""
        free = next((i for i in range(self.rows) if i not in self.claimed), None)
        if free is not None:
            self.claimed.add(free)
            self.items[USED] = max(self.items[USED], free + 1)
            self._wipe(free)
        return free

    def fold(self, index: int, slot: int) -> None:
        """Adds a dead process's counters and last closes to its slot's, drops its gauges, frees its row."""
        self._count(self.row(index), self.totals(slot))
        if self.lodgers.pop(index, None) is None:
            self._wipe(index)
            self.claimed.discard(index)

    def _count(self, row: memoryview[int], totals: memoryview[int]) -> None:
        for i in COUNTERS:
            totals[i] += row[i]
        closes.inherit(row, totals)

    def _wipe(self, index: int) -> None:
        row = self.row(index)
        for i in range(len(row)):
            row[i] = 0

    def _row_at(self, position: int) -> memoryview[int]:
        start = HEADER_ITEMS + ROW_ITEMS * position
        return self.items[start : start + len(counters.FIELDS)]


class ForeignRow:
    """A row whose columns are another release's, as if it had ours: one that it does not have is 0, and stays so.

    Without the last closes: what is in them only their own release knows."""

    def __init__(self, row: memoryview[int], places: Sequence[int | None]) -> None:
        self.row, self.places = row, places

    @classmethod
    def of(cls, row: memoryview[int], columns: Sequence[str]) -> memoryview[int]:
        """As our own code uses rows: by the number of a column."""
        places = {name: place for place, name in enumerate(columns)}
        mine = [None if field.kind == "ring" else places.get(field.name) for field in counters.FIELDS]
        return cast("memoryview[int]", cls(row, mine))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, column: int) -> int:
        place = self.places[column]
        return 0 if place is None else self.row[place]

    def __setitem__(self, column: int, value: int) -> None:
        if (place := self.places[column]) is not None:
            self.row[place] = value
