"""Fuzz target: for any bytes in any split, the native reader gives the events of its Python twin.

`plan` says how an input is laid out. One thing may differ, and for the rest of one frame head only: the
native reader refuses a head as soon as its bytes show that it is wrong, the twin when the head is complete.
"""

from __future__ import annotations

from typing import Any

from tests.fuzz.plan import parse
from unlimitedws.engine.codec import PyReader as NativeReader
from unlimitedws.wire.frames import Reader as PythonReader

KINDS = frozenset({"text", "binary", "ping", "pong", "close", "violation"})


MOST_HEAD_BYTES = 14

COMPLETION = bytes(MOST_HEAD_BYTES)  # completes any head; between frames it is a violation of its own
Events = list[Any]


def check(data: bytes) -> None:
    """Raises AssertionError where the twins differ, or the split changes the meaning."""
    if not data:
        return
    limit, pieces, stream = parse(data)
    native, python = NativeReader(limit), PythonReader(limit)
    found: Events = []
    expected: Events = []
    for piece in pieces:
        found += native.feed(piece)
        expected += python.feed(piece)
        check_lag(found, expected)
        assert found != expected or native.is_clean == python.is_clean, f"after {piece!r}: clean: {native.is_clean}, {python.is_clean}"
    check_documented(found)
    found += native.feed(COMPLETION)
    expected += python.feed(COMPLETION)
    assert found == expected, f"native {found!r}, python {expected!r}"
    whole = NativeReader(limit).feed(stream + COMPLETION)
    assert whole == found, f"in one piece {whole!r}, in {len(pieces)} {found!r}"


def check_lag(found: Events, expected: Events) -> None:
    """The same so far, or the native reader has refused a head that the twin waits for."""
    ahead = found[len(expected) :]
    assert found[: len(expected)] == expected, f"native {found!r}, python {expected!r}"
    assert not ahead or [event[0] for event in ahead] == ["violation"], f"native alone gives {ahead!r}"


def check_documented(events: list[Any]) -> None:
    """Only what is documented, and nothing after the end."""
    for position, event in enumerate(events):
        assert event[0] in KINDS, f"not a documented event: {event!r}"
        ends = event[0] in ("close", "violation")
        assert not ends or position == len(events) - 1, f"events after the end: {events!r}"
