"""The layout of the stats row."""

from __future__ import annotations

import pytest

from unlimitedws.engine import counters
from unlimitedws.wire.closing import Cause


def test_names_are_unique_and_indexed_in_order() -> None:
    names = [field.name for field in counters.FIELDS]
    assert len(set(names)) == len(names)
    assert [counters.INDEX[name] for name in names] == list(range(len(names)))
    assert len(names) * 8 == counters.ROW_BYTES


def test_the_engine_writes_the_first_columns_and_every_cause_has_one() -> None:
    assert tuple(field.name for field in counters.FIELDS[: len(counters.ENGINE)]) == counters.ENGINE_FIELDS
    assert counters.ENGINE_FIELDS[-len(Cause) :] == tuple(f"closes_{cause}" for cause in Cause)


def test_every_column_says_what_it_is() -> None:
    for field in counters.FIELDS:
        assert field.kind in ("counter", "gauge", "identity", "clock", "ring")
        assert field.help


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, "1000"), (1_000, "1000"), (1_001, "2500"), (10_000_000, "10000000"), (10_000_001, "more")]
)
def test_a_value_is_counted_in_the_first_bucket_that_holds_it(value: int, bucket: str) -> None:
    row = memoryview(bytearray(counters.ROW_BYTES)).cast("q")
    counters.LOOP_LAG.note(row, value, 3)
    assert {field.label: row[counters.INDEX[field.name]] for field in counters.LOOP_LAG.fields if row[counters.INDEX[field.name]]} == (
        {bucket: 3, "sum": 3 * value} if value else {bucket: 3}
    )
    assert sum(row) == 3 + 3 * value
