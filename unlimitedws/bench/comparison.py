"""Two runs side by side: what changed, and whether they can be compared at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unlimitedws.bench.report import FORMAT, Report
from unlimitedws.bench.table import SHOWN
from unlimitedws.errors import BenchError

SAME = ("mode", "loop")
SAME_OPTIONS = ("connections", "rate", "pipeline", "message_bytes", "binary", "probe")


def read(file: str) -> Report:
    """A report that --json wrote. Raises BenchError."""
    try:
        report = json.loads(Path(file).read_text())
    except OSError as error:
        raise BenchError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise BenchError(f"{file} is no JSON: {error}") from None
    if not isinstance(report, dict) or report.get("tool") != "unlimitedws bench":
        raise BenchError(f"{file} was not written by unlimitedws bench --json")
    if report.get("format") != FORMAT:
        raise BenchError(f"{file} has format {report.get('format')}, and this version reads {FORMAT}; make that run again")
    return report


def table(before: Report, after: Report, names: tuple[str, str]) -> str:
    """The numbers of both, and how much the second is of the first."""
    width = max(12, *(len(Path(name).name) for name in names))
    lines = [f"{'':32}" + "".join(f"{Path(name).name:>{width + 2}}" for name in names) + f"{'change':>10}"]
    for title, old, new in pairs(before, after):
        lines.append(f"{title:32}" + "".join(f"{shown(value):>{width + 2}}" for value in (old, new)) + f"{change(old, new):>10}")
    return "\n".join([*lines, *(f"\nNOT THE SAME LOAD: {what}" for what in differences(before, after))])


def pairs(before: Report, after: Report) -> Iterator[tuple[str, Any, Any]]:
    """Title and both values of what is known of either."""
    for title, *path in ROWS:
        old, new = at(before, path), at(after, path)
        if old is not None or new is not None:
            yield title, old, new


ROWS: tuple[tuple[str, ...], ...] = (
    ("connections opened", "connections", "opened"),
    ("connects/s", "connections", "per_s"),
    ("messages/s", "messages", "per_s"),
    *((f"answer {shown}, us", "latency_us", "latency", name) for shown, name in SHOWN.items()),
    *((f"connect {shown}, us", "connect_us", name) for shown, name in SHOWN.items()),
    ("server CPU, cores", "server", "cores"),
    ("server CPU each, us", "server", "cpu_us_per_message"),
    ("server CPU at rest, us/conn/s", "server", "rest_us_per_connection_s"),
    ("server PSS empty, bytes", "server", "memory", "empty", "pss"),
    ("server PSS full, bytes", "server", "memory", "full", "pss"),
    ("server PSS afterwards, bytes", "server", "memory", "after", "pss"),
    ("server PSS a connection, bytes", "server", "pss_per_connection_bytes"),
    ("kernel slab a connection, bytes", "kernel", "bytes_per_connection", "slab"),
    ("load CPU, cores", "load", "cores"),
)


def at(report: Any, path: list[str]) -> Any:
    for name in path:
        report = report.get(name) if isinstance(report, dict) else None
    return report


def shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:,.2f}"


def change(old: Any, new: Any) -> str:
    if not old or new is None:
        return ""
    return f"{(new - old) / abs(old):+.1%}"


def differences(before: Report, after: Report) -> list[str]:
    """What makes them different loads, in words; and what went wrong in one of them."""
    found = [f"{name} {before.get(name)} against {after.get(name)}" for name in SAME if before.get(name) != after.get(name)]
    old, new = before.get("options", {}), after.get("options", {})
    found += [f"{name} {old.get(name)} against {new.get(name)}" for name in SAME_OPTIONS if old.get(name) != new.get(name)]
    found += [f"the {name} run was not ok" for name, report in (("first", before), ("second", after)) if not report.get("ok")]
    found += (
        ["in one of them the load generator was the limit"]
        if "load" in (at(before, ["load", "limit"]), at(after, ["load", "limit"]))
        else []
    )
    return found
