"""Waits that a stop ends."""

from __future__ import annotations

import asyncio

from unlimitedws.supervisor.stopping import Stopping


def test_a_pause_ends_by_itself_or_at_a_stop() -> None:
    async def main() -> None:
        stopping = Stopping()
        await stopping.pause(0.0)
        pausing = asyncio.ensure_future(stopping.pause(3600))
        await asyncio.sleep(0)
        assert not pausing.done()
        stopping.set()
        await asyncio.wait_for(pausing, 30)
        await stopping.pause(3600)

    asyncio.run(main())


def test_either_ends_with_what_is_awaited_or_at_a_stop_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        stopping, other = Stopping(), asyncio.Event()
        other.set()
        await stopping.either(other.wait())
        other.clear()
        waiting = asyncio.ensure_future(stopping.either(other.wait()))
        await asyncio.sleep(0)
        stopping.set()
        await asyncio.wait_for(waiting, 30)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
