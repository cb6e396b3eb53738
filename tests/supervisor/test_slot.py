"""Who serves a slot, and who has yet to end."""

from __future__ import annotations

from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.supervisor.slot import Slot


@pytest.fixture
def slot() -> Slot:
    return Slot(0, [], Config())


first: Any = object()
second: Any = object()


def test_the_first_child_follows_nobody(slot: Slot) -> None:
    assert slot.install(first) is None
    assert (slot.current, slot.retired) == (first, set())


def test_a_successor_retires_the_one_before(slot: Slot) -> None:
    slot.install(first)
    assert slot.install(second) == first
    assert (slot.current, slot.retired) == (second, {first})
    assert not slot.remove(first)
    assert (slot.current, slot.retired) == (second, set())


def test_a_death_of_the_current_one_leaves_the_slot_empty(slot: Slot) -> None:
    slot.install(first)
    assert slot.remove(first)
    assert slot.current is None


def test_a_current_one_that_drains_is_retired_once(slot: Slot) -> None:
    slot.install(first)
    assert slot.retire(first)
    assert not slot.retire(first)
    assert (slot.current, slot.retired) == (None, {first})
    assert not slot.remove(first)
