"""What load processes count, where their parent reads it."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlimitedws.bench.board import LONGEST_LATENCY_NS, ROW_BYTES, Row, bucket
from unlimitedws.bench.latency import histogram

LIBRARY = histogram()


@given(st.integers(1, LONGEST_LATENCY_NS))
def test_a_latency_is_counted_where_the_library_counts_it(ns: int) -> None:
    assert bucket(ns) == LIBRARY._counts_index_for(ns)


@pytest.mark.parametrize("ns", [1, 1023, 1024, 2047, 2048, 2049, 4095, 4096, 10**6, 2**31, LONGEST_LATENCY_NS])
def test_the_seams_between_buckets_are_the_librarys(ns: int) -> None:
    assert bucket(ns) == LIBRARY._counts_index_for(ns)


@pytest.mark.parametrize(("given_ns", "counted"), [(0, 1), (LONGEST_LATENCY_NS + 1, LONGEST_LATENCY_NS), (2**63, LONGEST_LATENCY_NS)])
def test_what_is_out_of_range_is_counted_at_its_end(given_ns: int, counted: int) -> None:
    assert bucket(given_ns) == bucket(counted)


def test_a_new_board_has_counted_nothing() -> None:
    with mmap.mmap(-1, 2 * ROW_BYTES) as board:
        row = Row(board, 1)
        assert (row.number, row.rows) == (1, 2)
        assert set(row.counters.values()) == {0}
        assert (row.closes, row.statuses, row.errnos, row.histogram("latency")) == ({}, {}, {}, (0, 0, []))
        del row


def test_a_row_that_the_board_has_not_is_an_error() -> None:
    board = bytearray(ROW_BYTES)
    for number in (-1, 1):
        with pytest.raises(IndexError, match="a board with 1"):
            Row(board, number)


def test_a_histogram_that_there_is_not_is_an_error() -> None:
    row = Row(bytearray(ROW_BYTES), 0)
    with pytest.raises(KeyError):
        row.histogram("lateness")
