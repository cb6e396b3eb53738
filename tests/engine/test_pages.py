"""What holds nothing is given back; what holds something stays."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

import unlimitedws.engine as engine
from tests.supervisor.running import ROOT

if engine.why_not_native() is not None:
    pytest.skip(f"the native engine is not built: {engine.why_not_native()}", allow_module_level=True)

PAGE = 4096
SLOTS = [f"slot_{number}" for number in range(4 * PAGE // 8)]


def large() -> Any:
    """An object of four pages and more that is cleared when it is made: a slot without a value is a null pointer."""
    return type("Large", (), {"__slots__": SLOTS})()


def test_pages_of_zeros_are_given_back_and_can_be_used() -> None:
    owner = large()
    given = engine.give_back_zeros(owner)
    assert given % PAGE == 0
    assert given >= 2 * PAGE
    assert not any(hasattr(owner, slot) for slot in SLOTS)
    for number, slot in enumerate(SLOTS):
        setattr(owner, slot, number)
    assert [getattr(owner, slot) for slot in SLOTS] == list(range(len(SLOTS)))


def test_pages_with_anything_in_them_stay() -> None:
    owner = large()
    for number in range(0, len(SLOTS), 100):  # one and more to each page
        setattr(owner, SLOTS[number], number)
    assert engine.give_back_zeros(owner) == 0
    assert [getattr(owner, slot) for slot in SLOTS[::100]] == list(range(0, len(SLOTS), 100))


def test_a_small_object_has_no_page_to_give() -> None:
    assert engine.give_back_zeros(object()) == 0


def test_free_memory_can_be_given_back_at_any_time() -> None:
    kept = [bytes(1000) for _ in range(1000)]
    engine.give_back_free()
    assert kept[-1] == bytes(1000)


def test_gaps_are_filled_up_to_a_limit() -> None:
    kept = [bytes(size) for size in (20, 100, 400, 1000, 5000) for _ in range(500)]
    del kept[::2]
    assert 0 < engine.fill_gaps(10_000) <= 2 * (10_000 + 2 * 64 * 1024)
    assert all(not any(each) for each in kept)


@pytest.mark.skipif("PYTHONMALLOC" in os.environ, reason="small blocks come from another allocator")
def test_what_is_allocated_after_gaps_were_filled_lies_side_by_side() -> None:
    script = """
import gc
from unlimitedws import engine
kept = [bytes(67) for _ in range(100_000)]
del kept[::100]                         # a gap of 112 bytes in each page and more
gc.collect()
engine.fill_gaps(8 << 20)
pages = {id(each) // 4096 for each in [bytes(67) for _ in range(1000)]}
print(len(pages))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) <= 40  # 1,000 blocks of 112 bytes fill 28 pages
