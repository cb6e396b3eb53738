"""The published cost of a connection is that of the code."""

from __future__ import annotations

import pytest

from unlimitedws import cost
from unlimitedws.engine import why_not_native
from unlimitedws.supervisor.room import KERNEL_BYTES, PROCESS_BYTES


def test_a_row_is_as_long_as_the_native_engine_has_it() -> None:
    if (why := why_not_native()) is not None:
        pytest.skip(f"the native engine is not built ({why}); build it: make build")
    from unlimitedws.engine.table import METER_BYTES, ROW_BYTES

    assert (cost.ROW_BYTES["native"], cost.METER_BYTES) == (ROW_BYTES, METER_BYTES)


def test_the_room_that_stats_tells_of_is_reckoned_with_the_same_figures() -> None:
    assert (cost.KERNEL_BYTES, cost.ROW_BYTES["native"]) == (KERNEL_BYTES, PROCESS_BYTES)
