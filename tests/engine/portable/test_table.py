"""The connection table of the portable engine."""

from __future__ import annotations

import pytest

from unlimitedws.engine.portable.table import OPEN, Table


def test_a_row_costs_sixty_bytes() -> None:
    table = Table()
    assert sum(column.itemsize for column in table.columns) + 1 + 18 <= 60


def test_the_table_grows_by_doubling_and_not_to_the_limit() -> None:
    table = Table()
    table.reach(0)
    assert len(table) == 64
    table.reach(64)
    assert len(table) == 128
    table.reach(1000)
    assert len(table) == 1001
    assert {len(column) for column in table.columns} == {1001}
    table.reach(5)
    assert len(table) == 1001


def test_trim_keeps_rows_in_use_and_gives_back_the_rest() -> None:
    table = Table()
    table.reach(10_000)
    table.phases[100], table.ids[100], table.used = OPEN, 7, 1
    table.trim()
    assert len(table) == 101
    assert table.ids[100] == 7
    table.clear(100)
    assert (table.phases[100], table.ids[100], table.used) == (0, 0, 0)
    table.trim()
    assert len(table) == 101  # not worth it: less than half would go


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("::1", 65535, 0, 0), ("::1", 65535)),
        (("::ffff:10.0.0.1", 5, 0, 0), ("10.0.0.1", 5)),
        (("fe80::1%eth0", 5, 0, 2), ("fe80::1", 5)),
        ("", ""),
        (b"\0abstract", ""),
    ],
)
def test_an_address_is_kept_in_eighteen_bytes(said: object, shown: object) -> None:
    table = Table()
    table.reach(3)
    table.set_address(3, said)
    assert table.address(3) == shown
    assert table.address(2) == ""
