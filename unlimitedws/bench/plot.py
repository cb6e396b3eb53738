"""Latencies drawn by percentile, as HdrHistogram's own plots do: each decade of rarer answers as wide as the one before it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from unlimitedws.bench.latency import decoded
from unlimitedws.bench.report import Report
from unlimitedws.bench.table import title_of
from unlimitedws.errors import BenchError

FORMATS = (".png", ".svg", ".pdf")
LINES = {"latency": "-", "quiet": "--", "late": ":"}
"""How each latency is drawn. How long a server held half-open connections is none, and ten thousand times as long."""

NONE = {"number": 0}
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
    for number, (name, report) in enumerate(reports.items()):
        for which, line in LINES.items():
            if (latency := report["latency_us"].get(which, NONE))["number"]:
                xs, ys = curve(latency["histogram_ns"])
                marker = "o" if len(xs) == 1 else ""  # which no line shows
                axes.plot(xs, ys, line, marker=marker, color=f"C{number}", label=f"{name}: {title_of(report, which)}")
    label(axes, reports)
    try:
        figure.savefig(file)
    except OSError as error:
        raise BenchError(f"cannot write {file}: {error.strerror}") from None


def label(axes: Any, reports: dict[str, Report]) -> None:
    loads = dict.fromkeys(load_of(report) for report in reports.values())
    axes.set_title("\n".join(loads), fontsize="medium", parse_math=False)
    if not axes.lines:
        axes.text(0.5, 0.5, "no latency was measured", transform=axes.transAxes, ha="center")
        axes.set_axis_off()
        return
    loops = {report["loop"] for report in reports.values()}
    axes.set_ylabel("latency, us")
    axes.set_yscale("log")
    axes.set_xlabel("percentile" + ("" if loops == {"open"} else "; closed loop: stalls of the server hardly show"))
    ticks = list(range(math.ceil(max(drawn.get_xdata()[-1] for drawn in axes.lines)) + 1))
    axes.set_xticks(ticks, [percentile_text(at) for at in ticks])
    axes.grid(alpha=0.3)
    axes.legend()


def load_of(report: Report) -> str:
    """What it measured, in a line."""
    options = report["options"]
    rate = f", {options['rate']:g}/s" if options["rate"] else ""
    return f"{report['mode']} {' '.join(report['urls'])}, {options['connections']:,} connections{rate}"


def curve(histogram: str) -> Curve:
    """x: how many nines, that is -log10(1 - quantile).  y: microseconds. Raises BenchError."""
    xs, ys = [], []
    try:
        values = decoded(histogram)
    except ValueError as error:
        raise BenchError(f"a report cannot be drawn: {error}") from None
    for value in values.get_percentile_iterator(TICKS_PER_HALVING):
        rest = 1 - value.percentile_level_iterated_to / 100
        if rest > 0:
            xs.append(-math.log10(rest))
            ys.append(value.value_iterated_to / 1e3)
    return xs, ys


def percentile_text(nines: int) -> str:
    return "0" if nines == 0 else f"{100 - 100 / 10**nines:.10g}"
