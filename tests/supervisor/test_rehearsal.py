"""The worker that is played before the first fork: it leaves nothing but memory that others share."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.supervisor.running import ROOT
from unlimitedws.config import Config
from unlimitedws.engine.counters import INDEX
from unlimitedws.supervisor import rehearsal

SCRIPT = """
import asyncio, os, signal, sys, threading
from unlimitedws.config import Config
from unlimitedws.supervisor.descriptors import open_descriptors
from unlimitedws.supervisor.rehearsal import rehearse

def state():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    kinds = sorted(kind.split(":")[0] for fd, kind in open_descriptors().items() if fd > 2)
    return [signal.getsignal(number) for number in numbers], kinds, threading.active_count(), len(os.listdir("/proc/self/task"))

config = Config(engine=sys.argv[1])
rehearse(config)  # libuv opens two descriptors that stay with the process
before = state()
rehearse(config)
assert state() == before, (before, state())
assert before[2:] == (1, 1), before
assert signal.set_wakeup_fd(-1) == -1
assert asyncio._get_running_loop() is None
assert {"unlimitedws.worker", "unlimitedws.supervisor.template", "uvloop"} <= set(sys.modules)
"""


def test_it_leaves_no_descriptor_no_thread_no_loop_and_no_handler_of_a_signal(engine_name: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, engine_name], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_client_is_served(engine_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[memoryview] = []
    worker_process = rehearsal.process.WorkerProcess

    def noted(order: Any, channel: Any, row: memoryview, *args: Any, **kwargs: Any) -> Any:
        rows.append(row)
        return worker_process(order, channel, row, *args, **kwargs)

    monkeypatch.setattr(rehearsal.process, "WorkerProcess", noted)
    rehearsal.rehearse(Config(engine=engine_name))
    [row] = rows
    counted = {name: row[INDEX[name]] for name in ("connections_opened", "messages_in", "messages_out", "connections_open")}
    clients = rehearsal.CLIENTS
    assert counted == {"connections_opened": clients, "messages_in": clients, "messages_out": clients, "connections_open": 0}
    assert not caplog.records


def test_one_that_fails_is_told_and_stops_nothing(
    engine_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(address: bytes) -> None:
        raise OSError("no sockets today")

    monkeypatch.setattr(rehearsal, "visit", fail)
    with caplog.at_level(logging.WARNING):
        rehearsal.rehearse(Config(engine=engine_name))
    [record] = caplog.records
    assert "no worker could be rehearsed" in record.getMessage()
    assert "no sockets today" in str(record.exc_info)


def test_a_worker_that_ends_before_its_time_is_told_and_waited_for_no_longer(
    engine_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rehearsal, "TIMEOUT_S", 600)
    monkeypatch.setattr(rehearsal, "echo", lambda: 1 / 0)
    rehearsal.rehearse(Config(engine=engine_name))
    assert "its process would have ended with 70" in str(caplog.records[-1].exc_info)


def test_an_engine_that_is_missing_is_left_to_the_template(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "unlimitedws.engine.native", None)
    rehearsal.rehearse(Config(engine="native"))
    assert not caplog.records
