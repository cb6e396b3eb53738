from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.records import Record, Records, Spread
from tests.bench.tables import BEGIN, END, note, reached, report, write_between_markers
from tests.bench.works import WORKS

ECHO, PIPED, IDLE = (next(work for work in WORKS if work.name == name) for name in ("echo-64x32", "piped-64x32", "idle"))


def measured(work: str, server: str, values: list[float], **details: float) -> list[Record]:
    return [Record(number, work, server, value, details=dict(details)) for number, value in enumerate(values)]


def test_a_ratio_compares_the_measures_of_one_round() -> None:
    records = Records(measured("idle", "floor", [10, 20, 40]) + measured("idle", "unlimitedws", [11, 24, 40]))
    assert records.ratio("idle", "unlimitedws") == Spread(1.1, 1.0, 1.2)


def test_a_round_without_the_floor_gives_no_ratio() -> None:
    records = Records([Record(0, "idle", "floor", None, error="it ended"), *measured("idle", "unlimitedws", [11])])
    assert records.ratio("idle", "unlimitedws") is None


@pytest.mark.parametrize(("value", "verdict"), [(1.1, True), (1.11, False)])
def test_a_ratio_is_judged_by_its_median(value: float, verdict: bool) -> None:
    ours = measured(ECHO.name, "unlimitedws", [value, value, 99.0])
    assert reached(Records(measured(ECHO.name, "floor", [1.0, 1.0, 1.0]) + ours), ECHO) is verdict


@pytest.mark.parametrize(("value", "verdict"), [(64, True), (65, False)])
def test_bytes_are_judged_as_they_are(value: float, verdict: bool) -> None:
    assert reached(Records(measured("idle", "unlimitedws", [value])), IDLE) is verdict


def test_a_work_with_two_conditions_needs_both() -> None:
    floor = measured(PIPED.name, "floor", [1.0])
    assert reached(Records(floor + measured(PIPED.name, "unlimitedws", [1.0], msgs_per_s=2e6)), PIPED) is True
    assert reached(Records(floor + measured(PIPED.name, "unlimitedws", [1.0], msgs_per_s=9e5)), PIPED) is False


def test_what_was_not_measured_is_not_judged() -> None:
    assert reached(Records(measured(ECHO.name, "unlimitedws", [1.0])), ECHO) is None


def test_failed_and_disturbed_measures_are_told() -> None:
    records = [Record(0, "idle", "picows", None, error="closed|early"), Record(1, "idle", "picows", 5.0, disturbed=True)]
    assert note(Records(records), IDLE, "picows") == "1; 1 failed: closed/early; 1 disturbed by other programs"


def test_a_missing_peer_is_named_with_the_reason() -> None:
    assert "Missing: npm-ws (node is not installed)." in report(Records([]), {}, {"npm-ws": "node is not installed"}, [])


def test_figures_are_written_between_the_markers_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between_markers(page, "new")
    write_between_markers(page, "newer")
    assert page.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"


def test_a_page_without_markers_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("words")
    with pytest.raises(ValueError, match="no place for the figures"):
        write_between_markers(page, "new")
    assert page.read_text() == "words"


def test_the_performance_page_has_a_place_for_the_figures() -> None:
    page = (Path(__file__).parents[2] / "docs/performance.md").read_text()
    assert page.index(BEGIN) < page.index(END)
