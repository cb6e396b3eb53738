"""Forked children: what they begin with, and that they never come back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import NoReturn

import pytest

from tests.supervisor.running import ROOT
from unlimitedws.supervisor import forking

# Forked children end without Python code that another thread could have left in the middle of something.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_script(source: str) -> str:
    """What a script prints; forking needs a process without threads and without pytest."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_child_ends_with_its_code_and_never_returns() -> None:
    assert status_of(forking.fork(lambda: forking.end(42))) == 42


def test_an_error_in_the_child_is_printed_and_does_not_reach_the_parents_code(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> NoReturn:
        raise ValueError("in the child")

    assert status_of(forking.fork(fail)) == forking.CRASHED
    assert "ValueError: in the child" in capfd.readouterr().err


def test_signals_are_at_their_default_in_the_child_and_the_mask_is_the_parents() -> None:
    def check() -> NoReturn:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
        default = all(signal.getsignal(number) is signal.SIG_DFL for number in numbers)
        forking.end(0 if default and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before else 1)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert status_of(forking.fork(check)) == 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_what_was_printed_before_the_fork_is_printed_once() -> None:
    source = (
        "import os\nfrom unlimitedws.supervisor import forking\nprint('before', end=' ')\n"
        "pid = forking.fork(lambda: (print('child', end=' '), forking.end(0)))\nos.waitpid(pid, 0)\nprint('parent')\n"
    )
    assert run_script(source) == "before child parent\n"


def test_atexit_functions_of_the_program_do_not_run_in_the_child() -> None:
    source = (
        "import atexit, os\nfrom unlimitedws.supervisor import forking\natexit.register(print, 'at exit')\n"
        "pid = forking.fork(lambda: forking.end(0))\nos.waitpid(pid, 0)\n"
    )
    assert run_script(source) == "at exit\n"


def test_a_child_forked_inside_of_a_running_loop_can_run_a_loop_of_its_own() -> None:
    def child() -> NoReturn:
        forking.end(asyncio.run(asyncio.sleep(0.01, result=7)))

    async def parent() -> int:
        loop = asyncio.get_running_loop()
        forked: asyncio.Future[int] = loop.create_future()
        loop.call_soon(lambda: forked.set_result(forking.fork(child)))
        return status_of(await forked)

    assert asyncio.run(parent()) == 7


def test_a_shrugged_signal_does_nothing_and_is_not_ignored_by_programs_started_later() -> None:
    source = (
        "import os, signal, subprocess\nfrom unlimitedws.supervisor import forking\nforking.shrug(signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGINT)\nprint(subprocess.run(['sh', '-c', 'kill -INT $$']).returncode)\n"
    )
    assert run_script(source) == f"{-signal.SIGINT}\n"


def test_threads_that_python_does_not_know_are_counted_too() -> None:
    source = (
        "import _thread, time\nfrom unlimitedws.supervisor import forking\nprint(forking.threads())\n"
        "_thread.start_new_thread(time.sleep, (60,))\nprint(forking.threads())\n"
    )
    assert run_script(source) == "1\n2\n"
