"""Connections a page at a time, and one by its id."""

from __future__ import annotations

from typing import Any

import pytest


def test_pages_together_have_each_open_connection_once(drive: Any) -> None:
    driver = drive()
    peers = [driver.connect() for _ in range(7)]
    driver.dial()  # has not finished its handshake
    ids, start = [], 0
    while start is not None:
        page, start = driver.engine.page(start, 3)
        assert len(page) <= 3
        ids += [connection.id for connection in page]
    assert sorted(ids) == sorted(connection.id for connection in driver.engine.connections())
    assert len(ids) == len(peers)


def test_a_page_goes_on_behind_connections_that_ended_meanwhile(drive: Any) -> None:
    driver = drive()
    peers = [driver.connect() for _ in range(6)]
    page, start = driver.engine.page(0, 2)
    first = {connection.id for connection in page}
    for connection in driver.engine.connections():
        if connection.id not in first:
            connection.abort()
            break
    driver.until(lambda: driver.count("connections_open") == len(peers) - 1)
    rest, end = driver.engine.page(start, 100)
    assert end is None
    assert len({connection.id for connection in rest} - first) == len(peers) - 3


@pytest.mark.parametrize("start", [0, 5, 2**31 - 1])
def test_a_page_of_an_empty_table_is_empty(drive: Any, start: int) -> None:
    driver = drive()
    assert driver.engine.page(start, 10) == ([], None)


def test_an_open_connection_is_found_by_its_id_and_a_closed_one_is_not(drive: Any) -> None:
    driver = drive()
    driver.connect()
    connection = driver.only
    assert driver.engine.find(connection.id) is connection
    assert driver.engine.find(connection.id + 1) is None
    assert driver.engine.find(0) is None
    connection.abort()
    driver.until(lambda: driver.count("connections_open") == 0)
    assert driver.engine.find(connection.id) is None
