"""The table of docs/reference/hostile.md says what the tests hold, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.page import FILE, SECTIONS, page
from tests.hostile.table import NOBODY, rows_of
from unlimitedws.engine.counters import INDEX


def test_the_page_is_what_the_tests_say() -> None:
    assert FILE.read_text(encoding="utf-8") == page(), "write it anew: make docs-reference"


def test_every_test_of_the_folder_is_in_the_table() -> None:
    files = {file.stem for file in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).stem}
    assert files == {module.__name__.rpartition(".")[2] for _, module in SECTIONS}
    for _, module in SECTIONS:
        for name, value in vars(module).items():
            assert not name.startswith("test_") or hasattr(value, "rows"), f"{name} holds no row"


def test_every_row_is_counted_by_a_counter_or_on_purpose_by_none() -> None:
    for _, module in SECTIONS:
        for row in rows_of(module):
            assert row.counted == NOBODY or row.counted in INDEX, row.counted


def test_no_kind_of_input_stands_there_twice() -> None:
    said = [row.said for _, module in SECTIONS for row in rows_of(module)]
    assert len(set(said)) == len(said)
