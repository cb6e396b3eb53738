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
        ("", "unix"),
        ("unix", "unix"),
        ("/run/client.sock", "/run/client.sock"),
        (b"\0abstract", "@abstract"),
        (("client.example", 7), ("client.example", 7)),
    ],
)
def test_an_address_is_shown_as_the_app_gets_it(said: object, shown: object) -> None:
    table = Table()
    table.reach(3)
    table.set_address(3, said)
    assert table.address(3) == shown
    assert table.address(2) == "unix"


def test_only_an_address_that_is_none_of_ip_costs_more_than_its_row() -> None:
    table = Table()
    table.reach(3)
    for said in (("127.0.0.1", 80), ("::1", 1, 0, 0), "", "unix"):
        table.set_address(3, said)
        assert table.names == {}
    table.set_address(3, "/run/client.sock")
    assert table.names
    table.set_address(3, ("127.0.0.1", 80))
    assert table.names == {}
    table.set_address(3, "/run/client.sock")
    table.clear(3)
    assert table.names == {}
