"""The shared table: layout, rows, and what stays of the dead."""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterator

import pytest

from unlimitedws.engine import closes
from unlimitedws.engine.counters import FIELDS, INDEX, ROW_BYTES
from unlimitedws.supervisor.stats_table import COLUMNS, MAGIC, ROW_ITEMS, VERSION, StatsTable, rows_for
from unlimitedws.wire.closing import Cause

# Forked children end without Python code that another thread could have left in the middle of something.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def table() -> Iterator[StatsTable]:
    table = StatsTable.create(slots=3)
    yield table
    table.close()


def test_a_row_has_an_item_for_each_field_and_whole_cache_lines(table: StatsTable) -> None:
    row = table.row(0)
    assert (row.format, len(row), row.nbytes, row.readonly) == ("q", len(FIELDS), ROW_BYTES, False)
    assert ROW_ITEMS * 8 % 64 == 0
    assert ROW_ITEMS * 8 >= ROW_BYTES


def test_there_are_rows_to_spare_for_a_reload(table: StatsTable) -> None:
    assert rows_for(1) == 8
    assert rows_for(64) == 130
    rows = [table.claim() for _ in range(rows_for(3))]
    assert len(set(rows)) == rows_for(3)
    assert table.claim() is None


def test_rows_do_not_touch_each_other(table: StatsTable) -> None:
    for index in range(table.rows):
        row = table.row(index)
        for i in range(len(row)):
            row[i] = index * 1000 + i
    for index in range(table.rows):
        assert list(table.row(index)) == [index * 1000 + i for i in range(len(FIELDS))]
    assert [list(table.totals(slot)) for slot in range(3)] == [[0] * len(FIELDS)] * 3


def test_another_process_sees_what_is_written(table: StatsTable) -> None:
    pid = os.fork()
    if pid == 0:
        mapped = StatsTable(os.dup(table.fd))
        mapped.row(2)[INDEX["messages_in"]] = 2**62
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert table.row(2)[INDEX["messages_in"]] == 2**62


def test_the_counters_of_the_dead_stay_and_their_gauges_do_not(table: StatsTable) -> None:
    for life in (1, 2):
        index = table.claim()
        assert index is not None
        row = table.row(index)
        row[INDEX["pid"]] = 4000 + life
        row[INDEX["messages_in"]] = 10 * life
        row[INDEX["connections_open"]] = 5
        row[INDEX["closes_drain"]] = life
        table.fold(index, slot=1)
        assert list(row) == [0] * len(FIELDS)
    totals = table.totals(1)
    assert (totals[INDEX["messages_in"]], totals[INDEX["closes_drain"]]) == (30, 3)
    assert (totals[INDEX["connections_open"]], totals[INDEX["pid"]]) == (0, 0)
    assert not any(table.totals(0))


def test_the_last_closes_of_the_dead_stay(table: StatsTable) -> None:
    for id in (1, 2):
        index = table.claim()
        assert index is not None
        closes.note(table.row(index), id, 0, 1006, Cause.PEER_RESET)
        table.fold(index, slot=2)
        assert closes.last(table.row(index)) == []
    assert [close.id for close in closes.last(table.totals(2))] == [1, 2]


def test_a_claimed_row_is_clean_whatever_was_written_after_its_end(table: StatsTable) -> None:
    index = table.claim()
    assert index is not None
    table.fold(index, slot=0)
    table.row(index)[INDEX["messages_in"]] = 99  # an orphan that was still at work
    assert table.claim() == index
    assert table.row(index)[INDEX["messages_in"]] == 0


def test_the_table_and_its_living_rows_survive_their_first_owner(table: StatsTable) -> None:
    index = table.claim()
    assert index is not None
    table.row(index)[INDEX["pid"]] = 4001
    table.totals(0)[INDEX["messages_in"]] = 7
    again = StatsTable(os.dup(table.fd))
    assert (again.slots, again.rows, again.totals(0)[INDEX["messages_in"]]) == (3, table.rows, 7)
    assert again.claim() != index
    again.close()


def test_rows_that_nobody_used_take_no_memory() -> None:
    table = StatsTable.create(slots=1024)
    try:
        assert table.claim() == 0
        again = StatsTable(os.dup(table.fd))
        table.totals(3)[INDEX["messages_in"]] = 1
        again.close()
        assert os.fstat(table.fd).st_size > 3 * 1024 * ROW_BYTES
        assert os.fstat(table.fd).st_blocks * 512 <= 16 * os.sysconf("SC_PAGE_SIZE")
    finally:
        table.close()


def test_a_table_of_another_version_is_refused(table: StatsTable) -> None:
    table.items[1] += 1
    with pytest.raises(RuntimeError, match="another version"):
        StatsTable(table.fd)


# ---- after an upgrade


def made_by_another_release(columns: list[str], slots: int, rows: int) -> int:
    """The descriptor of a table with these columns, each cell of which says where it is."""
    items = (len(columns) + 7) // 8 * 8
    fd = os.memfd_create("unlimitedws-stats", os.MFD_CLOEXEC)
    cells = array("q", (MAGIC, VERSION, 12345, items, slots, rows, rows, 0))
    for row in range(slots + rows):
        cells.extend(row * 100 + i for i in range(items))
    os.write(fd, cells.tobytes())
    return fd


def test_a_table_of_the_same_release_is_the_same_table() -> None:
    before = StatsTable.create(slots=2)
    row = before.claim()
    assert row is not None
    before.row(row)[INDEX["pid"]] = 1
    after, offset = StatsTable.inherit(os.dup(before.fd), COLUMNS, 2)
    assert (offset, after.claimed) == (0, {row})
    after.row(row)[INDEX["messages_in"]] = 7
    assert before.row(row)[INDEX["messages_in"]] == 7
    before.close()
    after.close()


def test_of_a_release_with_other_columns_counters_go_on_under_their_names() -> None:
    columns = ["messages_out", "of_that_release", "messages_in", "connections_open", "pid", "ring_noted", "advised_ns"]
    fd = made_by_another_release(columns, slots=2, rows=3)
    theirs = memoryview(mmap.mmap(fd, 0)).cast("q")
    table, offset = StatsTable.inherit(fd, columns, 2)
    assert offset == table.rows
    assert (table.totals(1)[INDEX["messages_in"]], table.totals(1)[INDEX["connections_open"]]) == (102, 0)
    row = table.row(offset + 1)  # the second of their workers
    assert [row[INDEX[name]] for name in ("messages_out", "messages_in", "pid", "bytes_in", "ring_noted")] == [300, 302, 304, 0, 0]
    assert len(row) == len(FIELDS)
    assert closes.last(row) == []
    row[INDEX["advised_ns"]] = 9
    row[INDEX["bytes_in"]] = 9  # what they do not have
    assert theirs[8 + 8 * 3 : 8 + 8 * 4].tolist() == [300, 301, 302, 303, 304, 305, 9, 307]
    table.fold(offset + 1, 1)
    assert table.totals(1)[INDEX["messages_in"]] == 102 + 302
    assert not table.claimed
    table.close()
