"""The ring of the last closes."""

from __future__ import annotations

import time

import pytest

from unlimitedws.engine import closes
from unlimitedws.engine.counters import RING_CLOSES, ROW_BYTES
from unlimitedws.wire.closing import Cause


@pytest.fixture
def row() -> memoryview[int]:
    return memoryview(bytearray(ROW_BYTES)).cast("q")


def test_what_was_noted_is_read_in_its_order(row: memoryview[int]) -> None:
    assert closes.last(row) == []
    closes.note(row, 1 << 40 | 1, 5, 1000, Cause.PEER_CLOSED)
    closes.note(row, 1 << 40 | 2, closes.WRAP_MS - 1, 4999, Cause.TLS_ERROR)
    assert closes.last(row) == [(1 << 40 | 1, 5, 1000, Cause.PEER_CLOSED), (1 << 40 | 2, closes.WRAP_MS - 1, 4999, Cause.TLS_ERROR)]


def test_a_clock_beyond_its_wrap_is_kept_wrapped(row: memoryview[int]) -> None:
    closes.note(row, 7, closes.WRAP_MS + 3, 1006, Cause.PEER_RESET)
    assert closes.last(row)[0].at_ms == 3


def test_a_full_ring_gives_all_but_the_oldest_which_may_be_giving_way(row: memoryview[int]) -> None:
    for id in range(3 * RING_CLOSES):
        closes.note(row, id, id, 1001, Cause.DRAIN)
    assert [close.id for close in closes.last(row)] == list(range(2 * RING_CLOSES + 1, 3 * RING_CLOSES))


def test_what_is_overwritten_while_it_is_read_is_left_out(row: memoryview[int]) -> None:
    for id in range(RING_CLOSES):
        closes.note(row, id, 0, 1000, Cause.IDLE)

    class Racing:
        """A row into which a worker writes ten closes once it has been asked for the first one."""

        asked = 0

        def __getitem__(self, item: int) -> int:
            self.asked += 1
            if self.asked == 2:
                for id in range(100, 110):
                    closes.note(row, id, 0, 1000, Cause.IDLE)
            return row[item]

    assert [id for id, _ in closes.entries(Racing())] == list(range(11, RING_CLOSES))  # type: ignore[arg-type]


def test_an_heir_keeps_what_came_before(row: memoryview[int]) -> None:
    heir = memoryview(bytearray(ROW_BYTES)).cast("q")
    closes.note(heir, 1, 0, 1000, Cause.IDLE)
    closes.note(row, 2, 0, 1000, Cause.IDLE)
    closes.inherit(row, heir)
    assert [close.id for close in closes.last(heir)] == [1, 2]


def test_an_heir_keeps_the_last_of_both_whoever_dies_first(row: memoryview[int]) -> None:
    heir = memoryview(bytearray(ROW_BYTES)).cast("q")
    now_ms = time.monotonic_ns() // 1_000_000
    for id in range(RING_CLOSES):
        closes.note(heir, id, now_ms - 1000 + id, 1000, Cause.IDLE)
        closes.note(row, 1000 + id, now_ms - 100_000 + id, 1000, Cause.IDLE)
    closes.note(row, 2000, now_ms - 970, 1000, Cause.IDLE)
    closes.inherit(row, heir)
    kept = [close.id for close in closes.last(heir)]
    assert kept == [*range(1, 31), 2000, *range(31, RING_CLOSES)][-RING_CLOSES + 1 :]
