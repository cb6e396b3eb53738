"""When clients of a stop are asked back."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from unlimitedws.farewell import Farewell


def hints(clients: int, longest_s: int, batch: int = 500) -> Counter[str]:
    """How many of so many clients get each reason, closed batch by batch."""
    farewell = Farewell("bye", clients, longest_s)
    given: Counter[str] = Counter()
    while (left := clients - given.total()) > 0:
        for reason, number in farewell.parts(batch):
            given[reason] += min(number, left)
            left -= min(number, left)
    return given


@pytest.mark.parametrize(("clients", "window_s"), [(1, 1), (1000, 1), (1001, 2), (10_000, 10), (100_000, 60)])
def test_the_window_fits_the_number_of_clients_and_has_an_end(clients: int, window_s: int) -> None:
    given = hints(clients, 60)
    assert given.keys() == {f"bye, retry in {second} s" for second in range(1, window_s + 1)} & given.keys()
    assert f"bye, retry in {window_s} s" in given or clients < window_s


@pytest.mark.parametrize("batch", [1, 7, 100, 500, 5000])
def test_clients_are_spread_evenly(batch: int) -> None:
    given = hints(10_000, 60, batch)
    assert given.total() == 10_000
    assert max(given.values()) - min(given.values()) <= batch
    assert max(given.values()) <= 1100


def test_every_batch_goes_over_the_whole_window() -> None:
    farewell = Farewell("bye", 30_000, 60)
    for _ in range(60):
        parts = list(farewell.parts(500))
        assert sum(number for _, number in parts) == 500
        assert len({reason for reason, _ in parts}) == 30


def test_latecomers_and_nobody_get_no_hint() -> None:
    assert list(Farewell("bye", 0, 60).parts(500)) == [("bye", 500)]
    farewell = Farewell("bye", 10, 60)
    assert list(farewell.parts(500)) == [("bye, retry in 1 s", 500)]
    assert list(farewell.parts(500)) == [("bye", 500)]


def test_zero_switches_hints_off() -> None:
    assert set(hints(5000, 0)) == {"bye"}


def test_a_reason_that_leaves_no_room_in_the_frame_stays_as_it_is() -> None:
    parts = chain(Farewell("é" * 60, 5000, 60).parts(500), Farewell("x" * 123, 10, 60).parts(1))
    assert {reason for reason, _ in parts} == {"é" * 60, "x" * 123}
