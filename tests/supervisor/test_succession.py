"""How long one who goes may take, and what becomes of him (reloads and their dead: test_reload.py, test_handover.py)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.supervisor.succession import STOP_GRACE_S, Succession

CONFIG = Config(handover_timeout_s=7, stop_timeout_s=11)


class Case:
    """A worker on its way out, and what is to be done with it when."""

    def __init__(self, *, is_forsaken: bool = False, is_stopping: bool = False) -> None:
        self.child: Any = SimpleNamespace(
            pid=1, order=SimpleNamespace(slot=0), is_forsaken=is_forsaken, left=0, stop=lambda *_: None, kill=lambda _: None
        )
        self.due: list[tuple[float, Callable[..., None]]] = []
        fleet: Any = SimpleNamespace(
            config=CONFIG, stopping=SimpleNamespace(is_set=lambda: is_stopping),
            loop=SimpleNamespace(call_later=lambda s, call, *_: self.due.append((s, call))),
        )  # fmt: skip
        self.succession = Succession(fleet)


def test_one_who_gives_its_connections_has_time_for_that() -> None:
    case = Case()
    case.succession.see_off(case.child)
    assert case.due == [(7 + STOP_GRACE_S, case.succession.overdue)]


def test_one_that_is_overdue_is_told_to_stop_and_killed_where_it_does_not() -> None:
    case = Case()
    case.succession.overdue(case.child)
    assert case.due == [(0.0, case.child.stop), (11 + STOP_GRACE_S, case.child.kill)]


def test_one_whose_successor_died_waits_for_the_next_but_not_in_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    case = Case(is_forsaken=True)
    case.succession.overdue(case.child)
    assert case.due == [(7 + STOP_GRACE_S, case.succession.overdue)]
    assert "worker 1 of slot 0 keeps its connections until a successor is there" in caplog.text
    case = Case(is_forsaken=True, is_stopping=True)
    case.succession.overdue(case.child)
    assert case.due == [(0.0, case.child.stop), (11 + STOP_GRACE_S, case.child.kill)]


def test_those_that_could_not_move_are_counted_but_not_in_a_stop() -> None:
    for is_stopping, closed in ((False, 5), (True, 0)):
        case = Case(is_stopping=is_stopping)
        case.child.left = 5
        case.succession.left_behind(case.child)
        assert case.succession.closed == closed
