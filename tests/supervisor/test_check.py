"""The program started beside the one that serves, for a check only."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from tests.supervisor.running import is_alive, until
from unlimitedws.supervisor import check as module
from unlimitedws.supervisor.check import Check, CheckFailed
from unlimitedws.supervisor.program import Program
from unlimitedws.supervisor.reaper import Reaper

ANSWER = """
import os
memory = int(os.environ["UNLIMITEDWS_UPGRADE"])
os.ftruncate(memory, 0)
os.pwrite(memory, b'{"checked": {"version": "2.0"}}', 0)
"""


def checking(source: str, stopping: bool = False) -> Any:
    """What a check of `python -c SOURCE` comes to; descriptors and processes are given back."""
    before = set(os.listdir("/proc/self/fd"))

    async def main() -> Any:
        check = Check(Program((sys.executable, "-c", source), "/"), {"format": 1})
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, Reaper(check.reaped, [check.pid]).reap)
        stop = asyncio.Event()
        if stopping:
            stop.set()
        try:
            return await check.result(stop)
        finally:
            until(lambda: not is_alive(check.pid))
            asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(main())
    finally:
        assert set(os.listdir("/proc/self/fd")) == before


def test_its_answer_is_what_it_wrote() -> None:
    assert checking(ANSWER) == {"version": "2.0"}


def test_what_it_says_is_what_the_operator_gets() -> None:
    with pytest.raises(CheckFailed, match=r"ended with exit code 3 before it would serve:\nno such setting"):
        checking("import sys; print('no such setting', file=sys.stderr); sys.exit(3)")


def test_one_that_ends_well_without_an_answer_has_failed() -> None:
    with pytest.raises(CheckFailed, match=r"^it ended with exit code 0 before it would serve$"):
        checking("print('a banner')")


def test_one_that_is_killed_has_failed() -> None:
    with pytest.raises(CheckFailed, match="was killed by SIGKILL"):
        checking("import os; os.kill(os.getpid(), 9)")


def test_of_a_flood_of_words_the_last_ones_are_kept() -> None:
    with pytest.raises(CheckFailed) as failed:
        checking("import sys\nfor i in range(100_000): print('line', i, file=sys.stderr)\nsys.exit(1)")
    assert len(str(failed.value)) < module.MOST_SAID + 100
    assert str(failed.value).endswith("line 99999")


def test_one_that_never_ends_is_killed_with_all_that_it_has_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(module, "CHECK_S", 3.0)
    pids = tmp_path / "pids"
    source = f"import os, time; child = os.fork(); open({str(pids)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(600)"
    with pytest.raises(CheckFailed, match="it has not come so far as to serve in 3 s"):
        checking(source)
    until(lambda: not any(is_alive(int(pid)) for pid in pids.read_text().split()))


def test_at_a_stop_it_is_killed() -> None:
    with pytest.raises(CheckFailed):
        checking("import time; time.sleep(600)", stopping=True)


def test_a_program_that_is_not_there_cannot_be_started() -> None:
    async def main() -> None:
        Check(Program(("/nowhere/python",), "/"), {})

    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(CheckFailed, match=r"^/nowhere/python: No such file or directory$"):
        asyncio.run(main())
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_is_gone_is_named() -> None:
    async def main() -> None:
        Check(Program((sys.executable,), "/nowhere"), {})

    with pytest.raises(CheckFailed, match=r"^/nowhere: No such file or directory$"):
        asyncio.run(main())
