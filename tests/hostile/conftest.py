"""The server under attack, and what must be true after each attack."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import psutil
import pytest
from websockets.sync.client import ClientConnection

from tests.hostile.table import NOBODY, Row
from tests.serving import WAIT_S, Served, eventually, served
from unlimitedws import Handlers, Response


def echoing() -> Handlers:
    handlers = Handlers()
    handlers.on_message = lambda conn, message: conn.send(message)
    handlers.get("/page")(lambda: "a page")
    handlers.post("/form")(lambda request: str(len(request.body_bytes)))
    handlers.get("/endless")(lambda: Response(repeat(b"x" * 10_000)))
    return handlers


def deciding() -> Handlers:
    """Never decides on `/slow`, and soon on everything else."""
    handlers = Handlers()

    @handlers.on_upgrade
    async def decide(request: Any) -> None:
        await (asyncio.Event().wait() if request.path == "/slow" else asyncio.sleep(0.005))

    return handlers


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The row that the test holds."""
    (only,) = request.function.rows
    assert isinstance(only, Row)
    return only


@pytest.fixture
def there(row: Row, engine_name: str) -> Iterator[Served]:
    """A server with the settings of the row, which is attacked."""
    with attacked(row, engine=engine_name) as there:
        yield there


@contextmanager
def attacked(row: Row, honest: Callable[[Served], ClientConnection] = Served.client, **settings: Any) -> Iterator[Served]:
    """A server. Afterwards the attack must have been counted as the row says, every connection must have ended once, and an
    honest client must be served as ever."""
    with served({"/": echoing(), "/slow": deciding(), "/soon": deciding()}, **settings, **row.settings) as there:
        yield there
        if row.counted != NOBODY:
            eventually(lambda: there.counters[row.counted], f"{row.counted} did not count it: {counted(there)}")
        eventually(lambda: ends(there) == there.counters["connections_accepted"], f"not every connection ended once: {counted(there)}")
        with honest(there) as client:
            client.send("honest")
            assert client.recv(timeout=WAIT_S) == "honest"


def refused(ask: Callable[[], bytes], times: int, *, burst: int, per_s: float, welcome: bytes) -> list[bytes]:
    """The answers that are none to a welcome: as many as the rate leaves, however long it took to ask so often."""
    began = time.monotonic()
    answers = [ask() for _ in range(times)]
    assert all(answer.startswith(welcome) for answer in answers[:burst])
    found = [answer for answer in answers if not answer.startswith(welcome)]
    assert len(found) >= times - burst - per_s * (time.monotonic() - began)
    return found


def ends(there: Served) -> int:
    """Connections that have ended, by whatever cause."""
    return sum(value for name, value in there.counters.items() if name.startswith("closes_"))


def counted(there: Served) -> dict[str, int]:
    return {name: value for name, value in there.counters.items() if value and not name.endswith(("_ns", "_us"))}


def memory() -> int:
    """Bytes that this process has in memory; 0 under a sanitizer, whose own memory is what would be measured."""
    return 0 if "UNLIMITEDWS_TEST_SANITIZED" in os.environ else int(psutil.Process().memory_info().rss)
