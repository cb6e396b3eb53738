"""The way to a polite stop: what comes between SIGTERM and the order to the workers.

    not ready            /readyz and health_path say so at once; the server goes on accepting for drain_delay_s, so that
                         load balancers send their clients elsewhere before anybody is closed
    nobody new           the kernel drops whoever begins to connect; the workers accept who waits in the queues
    the fleet stops      the workers close everybody in paced batches; when all of them do, the listeners are shut down

A second signal skips all that.
"""

from __future__ import annotations

import logging

from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.listeners import has_waiting, turn_away_from

log = logging.getLogger("unlimitedws.supervisor")

SETTLE_S = 0.1
"""For handshakes of TCP under way: a round trip of most clients. The kernel does not say how many there are."""
EMPTY_S = 5.0
"""Longest wait for workers to accept who waits: they take thousands a second, unless they are stuck."""
LOOK_EVERY_S = 0.02


async def depart(fleet: Fleet, delay_s: float) -> None:
    """Prepares the stop of a fleet that is told to leave, and begins it."""
    if delay_s > 0:
        log.info("not ready any more, and accepting for another %g s", delay_s)
        await fleet.stopping.pause(delay_s)
    await empty_queues(fleet)
    fleet.begin_stop()


async def empty_queues(fleet: Fleet) -> None:
    """Returns when no client waits, or nobody will accept him."""
    ending = fleet.listeners.ending
    if not ending:
        return
    turn_away_from(ending)
    deadline = fleet.loop.time() + EMPTY_S
    await fleet.stopping.pause(SETTLE_S)
    while fleet.is_served and has_waiting(ending) and fleet.loop.time() < deadline and not fleet.stopping.is_set():
        await fleet.stopping.pause(LOOK_EVERY_S)
