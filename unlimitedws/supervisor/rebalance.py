"""Evens out live connections between the workers: after one was killed, its successor has none, and nothing but time fills it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from unlimitedws.engine.counters import INDEX
from unlimitedws.supervisor.child import Child

if TYPE_CHECKING:
    from unlimitedws.supervisor.fleet import Fleet

log = logging.getLogger("unlimitedws.supervisor")

COUNTED_S = 0.05
"""Who took connections says so before it counts them: looked at at once, it would seem to have too few, and get more."""

ROUNDS = 3
"""Clients come and go meanwhile: what one round leaves uneven the next one evens out."""


async def rebalance(fleet: Fleet) -> int:
    """Moves live connections from workers that have more than the mean to those that have less; how many have moved.

    Nobody is closed: what cannot move stays (`Child.give`). Waits for a reload or another rebalance that is under way, and for
    handovers."""
    async with fleet.reloader.turn:
        await settled(fleet)
        moved = await even_out(fleet)
        counts = [count for _, count in held(fleet)]
    if counts:
        log.info("rebalanced: %d connections moved; a worker has %d to %d now", moved, min(counts), max(counts))
    return moved


async def even_out(fleet: Fleet) -> int:
    """The same for who has the turn."""
    moved = 0
    for _ in range(ROUNDS):
        before = moved
        for giver, taker, count in plan(held(fleet)):
            if fleet.stopping.is_set():
                break
            moved += await giver.give(taker, count)
        if moved == before:
            break
        await fleet.stopping.pause(COUNTED_S)
    return moved


async def settled(fleet: Fleet) -> None:
    """Returns when no worker gives its connections to its successor any more, or the server stops."""
    for slot in fleet.slots:
        await fleet.succession.handed_over(slot)


def held(fleet: Fleet) -> list[tuple[Child, int]]:
    """The workers that serve, and how many connections each has."""
    serving = [slot.current for slot in fleet.slots if slot.current is not None]
    rows = [fleet.table.row(child.order.row) for child in serving]
    return [(child, row[INDEX["connections_open"]] + row[INDEX["handshakes_pending"]]) for child, row in zip(serving, rows, strict=True)]


def plan(held: Sequence[tuple[Child, int]]) -> Iterator[tuple[Child, Child, int]]:
    """Who gives how many to whom, so that each has the mean, rounded up or down."""
    if not held:
        return
    held = sorted(held, key=lambda each: -each[1])
    mean, more = divmod(sum(count for _, count in held), len(held))
    # The rest of the division goes to those that have the most anyway.
    above = [(child, count - mean - (place < more)) for place, (child, count) in enumerate(held)]
    givers = [child for child, extra in above if extra > 0]
    left = [extra for _, extra in above if extra > 0]
    for taker, extra in reversed(above):
        missing = -extra
        while missing > 0:
            count = min(missing, left[-1])
            yield givers[-1], taker, count
            missing -= count
            left[-1] -= count
            if left[-1] == 0:
                givers.pop()
                left.pop()
