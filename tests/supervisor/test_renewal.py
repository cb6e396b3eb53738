"""Which workers are replaced because they are old or large, and what clients and the operator see of it."""

from __future__ import annotations

import asyncio
import logging
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from tests.supervisor.conftest import Run
from tests.supervisor.running import ECHO, until
from unlimitedws.config import Config
from unlimitedws.supervisor.renewal import GROWTH_S, JITTER, Renewal
from unlimitedws.supervisor.sampler import Sample

MIB = 1 << 20


def sample(rss: int | None, pss: int | None) -> Sample:
    return Sample(rss_bytes=rss, pss_bytes=pss, cpu_percent=0.0, cpu_seconds=0.0, descriptors=None)


class Case:
    """Slots whose workers have served so long each; pids are 4000 and up."""

    def __init__(self, *served_s: float | None, sizes: dict[int, Sample] | None = None, **settings: Any) -> None:
        self.children = [
            None if age is None else SimpleNamespace(served_s=age, pid=4000 + i, order=SimpleNamespace(serial=i + 1))
            for i, age in enumerate(served_s)
        ]
        slots = [SimpleNamespace(number=i, current=child) for i, child in enumerate(self.children)]
        fleet: Any = SimpleNamespace(slots=slots)
        report: Any = SimpleNamespace(sample=lambda: sizes or {})
        self.renewal = Renewal(fleet, report, Config(**settings))

    def due(self) -> int | None:
        found = self.renewal.first_due()
        return found and found[0].number


def test_without_limits_nothing_is_looked_at() -> None:
    assert not Case(1e9).renewal.is_needed
    assert Case(max_worker_age_s=1).renewal.is_needed
    assert Case(max_worker_memory_bytes=1).renewal.is_needed


def test_the_oldest_one_is_due_first() -> None:
    assert Case(10, 20, 10, max_worker_age_s=100).due() is None
    assert Case(200, None, 300, 250, max_worker_age_s=100).due() == 2


def test_the_limit_of_each_worker_is_a_little_different_and_stays() -> None:
    case = Case(*[100.0] * 200, max_worker_age_s=100)
    case.due()
    parts = dict(case.renewal.parts)
    assert all(1 - JITTER <= part <= 1 + JITTER for part in parts.values())
    assert len(set(parts.values())) > 100
    case.due()
    assert case.renewal.parts == parts
    case.children[7].order.serial = 999  # type: ignore[union-attr]
    case.due()
    assert 8 not in case.renewal.parts


def test_a_large_one_is_due_by_its_pss_or_where_nobody_knows_it_by_its_rss() -> None:
    sizes = {4000: sample(900 * MIB, 90 * MIB), 4001: sample(90 * MIB, None), 4002: sample(None, None)}
    old = GROWTH_S + 1
    assert Case(old, old, old, old, sizes=sizes, max_worker_memory_bytes=100 * MIB).due() is None
    sizes[4001] = sample(101 * MIB, None)
    assert Case(old, old, old, old, sizes=sizes, max_worker_memory_bytes=100 * MIB).due() == 1
    sizes[4000] = sample(900 * MIB, 101 * MIB)
    assert Case(old, old, old, old, sizes=sizes, max_worker_memory_bytes=100 * MIB).due() == 0


def test_a_young_one_that_is_large_already_is_kept_and_told_about_once(caplog: pytest.LogCaptureFixture) -> None:
    case = Case(3.0, sizes={4000: sample(None, 200 * MIB)}, max_worker_memory_bytes=100 * MIB)
    with caplog.at_level(logging.WARNING):
        assert case.due() is None
        assert case.due() is None
    (line,) = caplog.messages
    assert "takes 200 MiB of memory after 3 s; max_worker_memory_bytes (100 MiB) is too low" in line


def test_one_is_replaced_at_a_time_and_its_end_awaited() -> None:
    async def main() -> None:
        case = Case(500, 400, max_worker_age_s=100)
        renewed: list[int] = []
        ended = [asyncio.get_running_loop().create_future() for _ in case.children]
        for child, end in zip(case.children, ended, strict=True):
            child.ended = end  # type: ignore[union-attr]

        async def renew(slot: Any) -> bool:
            renewed.append(slot.number)
            slot.current = SimpleNamespace(served_s=0.0, pid=1, order=SimpleNamespace(serial=99 + slot.number))
            return True

        async def turn(_: float) -> None:
            await asyncio.sleep(0)

        async def either(wait: Any) -> None:
            await wait

        fleet = case.renewal.fleet
        fleet.reloader, fleet.leaving = SimpleNamespace(renew=renew), False  # type: ignore[assignment]
        fleet.stopping = SimpleNamespace(pause=turn, either=either)  # type: ignore[assignment]
        looking = asyncio.ensure_future(case.renewal.go_on_looking())
        for _ in range(50):
            await asyncio.sleep(0)
        assert renewed == [0]
        ended[0].set_result(None)
        for _ in range(50):
            await asyncio.sleep(0)
        assert renewed == [0, 1]
        ended[1].set_result(None)
        fleet.leaving = True
        await looking

    asyncio.run(main())


# ---- of a whole server


def test_an_old_worker_is_replaced_and_its_clients_stay(run: Run, engine_name: str) -> None:
    server = run(workers=2, max_worker_age_s=0.5, engine=engine_name).ready()
    client = server.connect()
    server.says(r"replacing worker \d+ of slot \d: it has served for \d+ s")
    until(lambda: len(set(server_slots(server.log))) == 2)
    client.send("still here")
    assert client.recv(timeout=30) == "still here"
    assert server.stats["restarts"] == 0


def server_slots(log: str) -> list[str]:
    """The slots whose workers were replaced."""
    return [line.partition("of slot ")[2][:1] for line in log.splitlines() if "replacing worker" in line]


GROWS = """
import unlimitedws.supervisor.renewal as renewal
from unlimitedws import Handlers, Supervisor

renewal.GROWTH_S = renewal.Renewal.__init__.__kwdefaults__["growth_s"] = 0.0
renewal.LOOK_EVERY_S = 0.1
handlers = Handlers()
kept = []

@handlers.on_message
def grow(conn, message):
    kept.append(b"x" * (200 << 20))
    conn.send("grown")

if __name__ == "__main__":
    Supervisor(handlers, port=0, admin_port=0, workers=1, max_worker_memory_bytes=150 << 20).run()
"""


def test_a_worker_that_has_grown_too_large_is_replaced(run: Run) -> None:
    server = run(script=GROWS).ready()
    (before,) = server.workers()
    client = server.connect()
    client.send("grow")
    assert client.recv(timeout=30) == "grown"
    server.says(rf"replacing worker {before} of slot 0: it takes \d+ MiB of memory")
    server.successors(before, workers=1)
    assert "replacing" not in server.log.replace(f"replacing worker {before}", "")


def test_a_worker_whose_successor_does_not_start_goes_on(run: Run) -> None:
    source = ECHO + "import os\n@handlers.on_start\ndef start(worker):\n    if os.path.exists('away'):\n        raise OSError('away')\n"
    server = run(source=source, workers=1, max_worker_age_s=0.3)
    server.expected = "Traceback (most recent call last)"
    server.ready()
    (server.folder / "away").touch()
    server.says("replacement: slot 0 goes on with the code it has: ")
    assert server.echoes()


def test_a_reload_and_a_renewal_take_turns(run: Run) -> None:
    server = run(source=ECHO, workers=2, max_worker_age_s=0.3).ready()
    for number in range(1, 4):
        server.signal(signal.SIGHUP)
        until(lambda number=number: server.stats["reloads"] == number)  # type: ignore[misc]
    until(lambda: len(server.workers()) == 2)
    assert server.echoes()
