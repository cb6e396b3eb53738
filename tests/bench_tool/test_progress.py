"""The progress line: on a terminal only, and over itself."""

from __future__ import annotations

import io
from collections import Counter

import pytest

from unlimitedws.bench import progress
from unlimitedws.bench.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)


def test_a_terminal_sees_what_happens_and_then_nothing() -> None:
    to = Terminal()
    line = Progress(quiet=False, to=to)
    line.show("measuring", Counter(up=1500, answered=10, due=13, lost=2))
    assert "measuring   1,500 up" in to.getvalue()
    assert "3 in flight" in to.getvalue()
    assert "2 lost" in to.getvalue()
    line.clear()
    assert to.getvalue().endswith(" \r")


@pytest.mark.parametrize(("quiet", "to"), [(True, Terminal()), (False, io.StringIO())])
def test_who_wants_none_or_is_no_terminal_sees_none(quiet: bool, to: io.StringIO) -> None:
    line = Progress(quiet=quiet, to=to)
    line.show("measuring", Counter(up=1))
    line.clear()
    assert to.getvalue() == ""
