"""Live connections evened out between workers that serve."""

from __future__ import annotations

import os
import re
import signal

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.supervisor.conftest import Run
from tests.supervisor.counting import COUNTING, counted
from tests.supervisor.running import Running, launcher, until
from unlimitedws.supervisor.rebalance import plan

WITHOUT_CONTROL = """
# A signal stands for the operator's command.
import asyncio, signal
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.rebalance import rebalance

start = Fleet.start

async def start_and_listen(fleet):
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: fleet.tasks.start(rebalance(fleet)))
    await start(fleet)

Fleet.start = start_and_listen

"""


def rebalancing(**settings: object) -> str:
    """A program that serves the app with these settings, and rebalances at SIGUSR1."""
    return WITHOUT_CONTROL + launcher(**settings)  # type: ignore[arg-type]


def shares(server: Running) -> list[int]:
    return [worker["connections_open"] for worker in server.stats["workers"] if worker["state"] == "ready"]


def rebalanced(server: Running) -> int:
    """Has it rebalance; how many connections have moved."""

    def told() -> list[str]:
        return re.findall(r"rebalanced: (\d+) connections moved", server.log)

    before = len(told())
    server.signal(signal.SIGUSR1)
    until(lambda: len(told()) > before, 30, but=lambda: server.log)
    return int(told()[-1])


def test_the_successor_of_a_killed_worker_gets_its_share_and_nobody_is_closed(run: Run, engine_name: str) -> None:
    server = run(source=COUNTING, script=rebalancing(workers=2, engine=engine_name)).ready()
    clients = [server.connect() for _ in range(20)]
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    server.successors(victim, workers=2)
    alive = [client for client in clients if is_there(client)]
    ids = [each.id for each in counted(alive)]
    until(lambda: shares(server) == [0, len(alive)])
    moved = rebalanced(server)
    assert moved == len(alive) // 2
    assert sorted(shares(server)) == sorted([len(alive) // 2, len(alive) - len(alive) // 2])
    assert [each.id for each in counted(alive)] == ids
    assert len({each.messages for each in counted(alive)}) == 1
    assert rebalanced(server) == 0
    assert server.stats["total"]["closes"]["drain"] == 0


def is_there(client: ClientConnection) -> bool:
    try:
        return bool(counted([client]))
    except (ConnectionClosed, OSError):
        return False


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([], []),
        ([7], []),
        ([5, 5, 5], []),
        ([5, 5, 4], []),
        ([10, 0], [("0", "1", 5)]),
        ([9, 0], [("0", "1", 4)]),
        ([0, 12, 0, 0], [("1", "3", 3), ("1", "2", 3), ("1", "0", 3)]),
        ([3, 3, 0], [("1", "2", 1), ("0", "2", 1)]),
    ],
)
def test_each_gets_the_mean_with_as_few_moves_as_that_takes(held: list[int], expected: list[tuple[str, str, int]]) -> None:
    assert list(plan([(str(place), count) for place, count in enumerate(held)])) == expected  # type: ignore[misc]


def test_a_plan_evens_out_whatever_there_is() -> None:
    for seed in range(200):
        counts = {str(place): (seed * 7919 + place * 104729) % (50 + seed) for place in range(1 + seed % 9)}
        total = sum(counts.values())
        for giver, taker, count in plan(list(counts.items())):  # type: ignore[arg-type]
            assert count > 0
            counts[giver] -= count  # type: ignore[index]
            counts[taker] += count  # type: ignore[index]
        assert sum(counts.values()) == total
        assert max(counts.values()) - min(counts.values()) <= 1
