"""A template seen by its supervisor (what it does for a server is in test_fleet.py and test_template.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from tests.supervisor.running import ROOT

BEGIN = """
import asyncio, os, signal, socket
from unlimitedws import Config, Handlers
from unlimitedws.errors import UnlimitedwsError
from unlimitedws.supervisor.channel import Channel
from unlimitedws.supervisor.descriptors import open_descriptors
from unlimitedws.supervisor.ending import ProcessGone
from unlimitedws.supervisor.generation import Generation
from unlimitedws.supervisor.order import Order
from unlimitedws.supervisor.reaper import Reaper
from unlimitedws.supervisor.stats_table import StatsTable

kept = frozenset(open_descriptors())
exits, lost = {}, []

def generation(given, imports=True, **settings):
    made = Generation(given, Config(**settings), kept=kept, imports=imports, on_exit=exits.__setitem__, on_lost=lost.append)
    def found(pid, status):
        if pid == made.pid:
            made.died(status)
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, Reaper(found).reap)
    return made

async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
"""


def run_story(story: str) -> list[str]:
    """What an `async def main()` prints, in a process of its own: forking needs one without pytest's threads."""
    source = BEGIN + textwrap.dedent(story) + "\nasyncio.Runner(loop_factory=asyncio.SelectorEventLoop).run(main())\n"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_starts_tells_about_itself_and_ends_when_retired() -> None:
    story = """
    async def main():
        one = generation(Handlers(), reload=True)
        await one.start()
        print(one.engine in ("native", "portable"), one.threads, one.pid != os.getpid(), any("unlimitedws" in file for file in one.files))
        one.retire()
        one.retire()
        print(await one.ended, lost)
    """
    assert run_story(story) == ["True 1 True True", "0 []"]


def test_an_invalid_app_fails_the_start_and_leaves_no_process() -> None:
    story = """
    async def main():
        one = generation({})
        try:
            await one.start()
        except UnlimitedwsError as error:
            print(type(error).__name__, error.exit_code)
        print(await one.ended, lost)
    """
    assert run_story(story) == ["AppInvalid 3", "3 []"]


def test_a_kill_is_told_and_orders_after_it_fail() -> None:
    story = """
    async def main():
        one = generation(Handlers())
        await one.start()
        os.kill(one.pid, signal.SIGKILL)
        print(await one.ended, lost == [one])
        try:
            await one.spawn(Order(1, 0, 0, ()), [])
        except ProcessGone as error:
            print(error)
    """
    assert run_story(story) == ["-9 True", "the template process is gone"]


def test_an_order_gives_pid_and_pidfd_and_the_exit_is_reported() -> None:
    story = """
    async def main():
        one, table, listener = generation(Handlers()), StatsTable.create(1), socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        await one.start()
        ours, theirs = Channel.pair()
        pid, pidfd = await one.spawn(Order(9, 0, 0, ((False, False),)), [listener.fileno(), theirs.fileno(), table.fd])
        theirs.close()
        print("ready" in ours.receive()[0])
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await until(lambda: exits)
        print(exits)
        one.retire()
        await one.ended
    """
    assert run_story(story) == ["True", "{9: -9}"]


def test_an_order_to_a_template_that_dies_meanwhile_fails() -> None:
    story = """
    async def main():
        one, table, listener = generation(Handlers()), StatsTable.create(1), socket.create_server(("127.0.0.1", 0))
        await one.start()
        os.kill(one.pid, signal.SIGSTOP)
        ours, theirs = Channel.pair()
        order = asyncio.ensure_future(one.spawn(Order(1, 0, 0, ((False, False),)), [listener.fileno(), theirs.fileno(), table.fd]))
        await asyncio.sleep(0)
        os.kill(one.pid, signal.SIGKILL)
        try:
            await order
        except ProcessGone as error:
            print(error)
    """
    assert run_story(story) == ["the template process is gone"]
