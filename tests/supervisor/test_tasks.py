"""The supervisor's coroutines."""

from __future__ import annotations

import asyncio

from unlimitedws.supervisor.tasks import Tasks


def test_a_coroutine_is_kept_until_it_is_done() -> None:
    async def main() -> None:
        tasks = Tasks(failures.append)
        done = asyncio.Event()

        async def work() -> None:
            await asyncio.sleep(0)
            done.set()

        tasks.start(work())
        assert len(tasks.running) == 1
        await done.wait()
        await asyncio.sleep(0)
        assert not tasks.running

    failures: list[BaseException] = []
    asyncio.run(main())
    assert failures == []


def test_a_failure_is_told_and_a_cancellation_is_none() -> None:
    async def main() -> None:
        tasks = Tasks(failures.append)

        async def fail() -> None:
            raise ValueError("a defect")

        async def wait() -> None:
            await asyncio.sleep(60)

        tasks.start(fail())
        tasks.start(wait())
        await asyncio.sleep(0)
        for task in tuple(tasks.running):
            task.cancel()
        while tasks.running:
            await asyncio.sleep(0)

    failures: list[BaseException] = []
    asyncio.run(main())
    assert [str(failure) for failure in failures] == ["a defect"]
