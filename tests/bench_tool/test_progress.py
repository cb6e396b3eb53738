"""The progress line: over itself on a terminal, one below the other elsewhere."""

from __future__ import annotations

import errno
import io
import os
from collections import Counter

import pytest

from unlimitedws.bench import progress
from unlimitedws.bench.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    """A file on a disk that is full."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVERY_S", "LINE_EVERY_S"):
        monkeypatch.setattr(progress, name, 0.0)


def test_a_terminal_sees_what_happens_and_then_nothing() -> None:
    to = Terminal()
    line = Progress(quiet=False, to=to)
    line.show("measuring", Counter(up=1500, answered=10, due=13, lost=2))
    assert "measuring   1,500 up" in to.getvalue()
    assert "3 in flight" in to.getvalue()
    assert "2 lost" in to.getvalue()
    line.clear()
    assert to.getvalue().endswith(" \r")


def test_a_line_is_cut_where_the_terminal_would_wrap_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    to = Terminal()
    Progress(quiet=False, to=to).show("measuring", Counter(up=1500, answered=10, due=13, lost=2))
    assert len(to.getvalue()) == len("\r") + 19


def test_where_there_is_no_terminal_each_line_stays() -> None:
    to = io.StringIO()
    line = Progress(quiet=False, to=to)
    for up in (1, 2):
        line.show("measuring", Counter(up=up))
    line.clear()
    assert [said.split("measuring")[1].strip() for said in to.getvalue().split("\n")[:-1]] == ["1 up", "2 up"]
    assert "\r" not in to.getvalue()


def test_a_line_that_matters_stays_even_for_who_wants_no_others() -> None:
    to = io.StringIO()
    Progress(quiet=True, to=to).say("look")
    assert to.getvalue() == "look\n"


def test_a_line_that_cannot_be_written_ends_nothing() -> None:
    line = Progress(quiet=False, to=Full())
    line.show("measuring", Counter(up=1))
    line.say("look")


@pytest.mark.parametrize("to", [Terminal(), io.StringIO()])
def test_who_wants_none_sees_none(to: io.StringIO) -> None:
    line = Progress(quiet=True, to=to)
    line.show("measuring", Counter(up=1))
    line.clear()
    assert to.getvalue() == ""
