"""Templates that die or hang while their server serves (what one does by itself: test_generation.py)."""

from __future__ import annotations

import os
import signal

from tests.supervisor.conftest import Run
from tests.supervisor.running import launcher, until


def test_a_killed_template_is_replaced_and_workers_go_on(run: Run) -> None:
    server = run(workers=2).ready()
    client = server.connect()
    template, workers = server.template(), server.workers()
    os.kill(template, signal.SIGKILL)
    server.says(rf"template process {template} died")
    until(lambda: template not in [process["pid"] for process in server.stats["processes"]])
    until(lambda: "template" in [process["role"] for process in server.stats["processes"]])
    assert server.workers() == workers
    client.send("still there?")
    assert client.recv(timeout=30) == "still there?"
    os.kill(workers[0], signal.SIGKILL)  # an adopted one: the supervisor itself learns how it ended
    server.says(rf"worker {workers[0]} of slot 0 was killed by SIGKILL")
    server.successors(workers[0], workers=2)
    assert server.echoes()


def test_template_and_worker_killed_at_once_are_both_replaced(run: Run) -> None:
    server = run(workers=2).ready()
    template, workers = server.template(), server.workers()
    for pid in (template, *workers):
        os.kill(pid, signal.SIGKILL)
    server.successors(*workers, workers=2)
    assert server.echoes()


def test_a_template_that_does_not_fork_is_replaced(run: Run) -> None:
    server = run(script="from unlimitedws.supervisor import generation\n\ngeneration.SPAWN_S = 2.0\n" + launcher()).ready()
    template, worker = server.template(), server.workers()[0]
    os.kill(template, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    server.says(rf"template process {template} does not fork; killing it")
    server.successors(worker, workers=1)
    assert server.echoes()
