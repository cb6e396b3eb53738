from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.examples.conftest import Serve


def test_every_message_is_kept_and_answered_with_its_number(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "book.sqlite"
    serving = serve("examples.database:handlers", "--workers", "2", GUESTBOOK=str(file))
    with connect(serving.url, proxy=None) as first, connect(serving.url, proxy=None) as second:
        first.send("hello")
        assert first.recv(timeout=30) == "1: hello"
        second.send("hello too")
        assert second.recv(timeout=30) == "2: hello too"
        for number in range(3, 23):  # all at once: one client's answers keep the order of its questions
            first.send(f"entry {number}")
        assert [first.recv(timeout=30) for _ in range(20)] == [f"{number}: entry {number}" for number in range(3, 23)]
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM entry").fetchone() == (22,)


def test_bytes_are_refused_with_a_reason(serve: Serve, tmp_path: Path) -> None:
    serving = serve("examples.database:handlers", "--workers", "1", GUESTBOOK=str(tmp_path / "book.sqlite"))
    with connect(serving.url, proxy=None) as client:
        client.send(b"\x00")
        with pytest.raises(ConnectionClosedError) as caught:
            client.recv(timeout=30)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1003, "text only")
