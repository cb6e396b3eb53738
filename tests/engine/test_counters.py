"""The layout of the stats row."""

from __future__ import annotations

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
        assert field.kind in ("counter", "gauge", "identity")
        assert field.help
