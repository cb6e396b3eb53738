"""Latencies drawn by percentile, as HdrHistogram's own plots do: each decade of rarer answers as wide as the one before it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from unlimitedws.bench.latency import decoded
from unlimitedws.bench.report import Report
from unlimitedws.errors import BenchError

FORMATS = (".png", ".svg", ".pdf")
TICKS_PER_HALVING = 20
Curve = tuple[list[float], list[float]]


def check(file: str) -> None:
    """Raises BenchError unless this file can be drawn, here: before a run that takes long."""
    if Path(file).suffix.lower() not in FORMATS:
        raise BenchError(f"--plot {file}: its name must end with one of {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BenchError("bench draws with matplotlib; install it: pip install 'unlimitedws[plot]'") from None


def draw(reports: dict[str, Report], file: str) -> None:
    """One curve for each latency of each report, by its name. Raises BenchError."""
    check(file)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    highest = 0.0
    for name, report in reports.items():
        for which, numbers in report["latency_us"].items():
            if numbers["number"]:
                xs, ys = curve(numbers["histogram_ns"])
                axes.plot(xs, ys, label=name if which == "latency" else f"{name}, {which}")
                highest = max(highest, xs[-1])
    label(axes, reports, highest)
    try:
        figure.savefig(file)
    except OSError as error:
        raise BenchError(f"cannot write {file}: {error.strerror}") from None


def label(axes: Any, reports: dict[str, Report], highest: float) -> None:
    loops = {report["loop"] for report in reports.values()}
    axes.set_ylabel("latency, us")
    axes.set_yscale("log")
    axes.set_xlabel("percentile" + ("" if loops == {"open"} else "; closed loop: stalls of the server hardly show"))
    ticks = list(range(math.ceil(highest) + 1))
    axes.set_xticks(ticks, [percentile_text(at) for at in ticks])
    axes.grid(alpha=0.3)
    if reports and axes.get_legend_handles_labels()[0]:
        axes.legend()


def curve(histogram: str) -> Curve:
    """x: how many nines, that is -log10(1 - quantile).  y: microseconds."""
    xs, ys = [], []
    for value in decoded(histogram).get_percentile_iterator(TICKS_PER_HALVING):
        rest = 1 - value.percentile_level_iterated_to / 100
        if rest > 0:
            xs.append(-math.log10(rest))
            ys.append(value.value_iterated_to / 1e3)
    return xs, ys


def percentile_text(nines: int) -> str:
    return "0" if nines == 0 else f"{100 - 100 / 10**nines:.10g}"
