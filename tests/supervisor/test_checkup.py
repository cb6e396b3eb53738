"""The check-up at the start of a server: it says what is wrong, leaves nothing, and is silent where nothing is."""

from __future__ import annotations

import pytest

from tests.supervisor.running import Running
from unlimitedws.config import Config
from unlimitedws.supervisor import forking
from unlimitedws.supervisor.checkup import check_up


def test_a_problem_is_a_line_of_the_log_before_it_listens(run) -> None:  # type: ignore[no-untyped-def]
    server: Running = run(backlog=(1 << 31) - 1, log_format="json").ready()
    lines = server.log.splitlines()
    (warned,) = [number for number, line in enumerate(lines) if "unlimitedws.doctor" in line and "backlog" in line]
    assert warned < next(number for number, line in enumerate(lines) if "listening on" in line)
    assert server.echoes()


def test_nothing_of_it_stays_in_the_supervisor(run) -> None:  # type: ignore[no-untyped-def]
    script = """
import sys
from app import handlers
from unlimitedws import Supervisor

class Looking(Supervisor):
    def announce(self, **given):
        print("loaded:", sorted(name for name in sys.modules if name.startswith("unlimitedws.doctor")), flush=True)
        super().announce(**given)

Looking(handlers, port=0, admin_port=0, workers=1).run()
"""
    assert run(script=script).ready().says(r"loaded: (\[.*\])")[1] == "[]"


def test_a_system_without_another_process_starts_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork(child: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(forking, "fork", fork)
    check_up(Config(), 1)
