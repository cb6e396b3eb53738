"""What a plot shows: its words, and a curve for each latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unlimitedws.bench.latency import Latency
from unlimitedws.bench.plot import curve, draw, percentile_text
from unlimitedws.errors import BenchError


@pytest.fixture(autouse=True)
def words_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SVG says its words, and does not draw them."""
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")


def latency(*us: int) -> dict[str, Any]:
    made = Latency()
    made.add(min(us) * 1000, max(us) * 1000, [(each * 1000, 1) for each in us])
    return made.to_json()


def report(mode: str = "echo", loop: str = "open", **latencies: dict[str, Any]) -> dict[str, Any]:
    options = {"connections": 2000, "rate": 100.0}
    return {
        "mode": mode,
        "loop": loop,
        "urls": ["ws://a/?q=$x$"],
        "options": options,
        "latency_us": {"latency": {"number": 0}, **latencies},
    }


def drawn(reports: dict[str, dict[str, Any]], folder: Path) -> str:
    draw(reports, str(folder / "plot.svg"))
    return (folder / "plot.svg").read_text()


def test_it_says_what_was_loaded_and_names_each_curve(tmp_path: Path) -> None:
    many = latency(*range(100, 1100))
    text = drawn({"a.json": report(latency=many, late=many), "b.json": report(mode="connect", latency=many)}, tmp_path)
    for words in ("echo ws://a/?q=$x$, 2,000 connections, 100/s", "a.json: answer", "a.json: sent late", "b.json: connected", ">99.9<"):
        assert words in text
    assert "closed loop" not in text


def test_how_long_a_connection_was_held_is_no_latency(tmp_path: Path) -> None:
    text = drawn({"half-open": report("half-open", latency=latency(100), kept=latency(10_000_000))}, tmp_path)
    assert "half-open: answer" in text
    assert "held" not in text


def test_a_closed_loop_is_called_one(tmp_path: Path) -> None:
    assert "closed loop: stalls of the server hardly show" in drawn({"a": report(loop="closed", latency=latency(5, 6))}, tmp_path)


def test_a_run_without_latencies_says_so(tmp_path: Path) -> None:
    assert "no latency was measured" in drawn({"idle": report("idle")}, tmp_path)


def test_each_decade_of_rarer_answers_is_as_wide_as_the_one_before() -> None:
    xs, ys = curve(latency(*range(1, 1001))["histogram_ns"])
    assert [percentile_text(at) for at in range(4)] == ["0", "90", "99", "99.9"]
    assert ys == sorted(ys)
    assert [next(y for x, y in zip(xs, ys, strict=True) if x >= at) for at in (1, 2)] == pytest.approx([900, 990], rel=0.01)


def test_a_histogram_that_is_none_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="a report cannot be drawn: no HdrHistogram"):
        drawn({"a": report(latency={**latency(5), "histogram_ns": "x"})}, tmp_path)
