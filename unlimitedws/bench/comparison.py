"""Two runs side by side: what changed, and whether they can be compared at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unlimitedws.bench.limit import is_secure
from unlimitedws.bench.report import FORMAT, Report
from unlimitedws.bench.table import SHOWN, has_enough
from unlimitedws.errors import BenchError

SAME = ("mode", "loop")
SAME_OPTIONS = (
    "connections", "rate", "pipeline", "message_bytes", "binary", "probe", "connect_rate", "inflight", "abrupt", "sample",
    "read_bytes_per_s", "stuff_bytes", "healthy", "healthy_rate", "stage", "spread_s",
)  # fmt: skip
NEEDED = {*SAME, "urls", "options", "kernel", "latency_us"}


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
    if not report.keys() >= NEEDED:
        raise BenchError(f"{file} lacks {', '.join(sorted(NEEDED - report.keys()))}; make that run again")
    return report


def names(before: str, after: str) -> tuple[str, str]:
    """What two files are called here: their paths only where their names are the same."""
    old, new = Path(before).name, Path(after).name
    return (before, after) if old == new else (old, new)


def table(before: Report, after: Report, names: tuple[str, str]) -> str:
    """The numbers of both, and how much the second is of the first."""
    width = max(12, *map(len, names))
    lines = [f"{'':32}" + "".join(f"{name:>{width + 2}}" for name in names) + f"{'change':>10}"]
    for title, old, new in pairs(before, after):
        lines.append(f"{title:32}" + "".join(f"{shown(value):>{width + 2}}" for value in (old, new)) + f"{change(old, new):>10}")
    warnings = [f"NOT THE SAME LOAD: {what}" for what in differences(before, after)]
    return "\n".join([*lines, *([""] if warnings else []), *warnings])


def pairs(before: Report, after: Report) -> Iterator[tuple[str, Any, Any]]:
    """Title and both values of what is known of either."""
    are_enough = has_enough(before) and has_enough(after)
    for title, *path in (*ROWS, *(EACH_ROWS if are_enough else ())):
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
    ("load CPU, cores", "load", "cores"),
)
EACH_ROWS = (
    ("server PSS a connection, bytes", "server", "pss_per_connection_bytes"),
    ("kernel slab a connection, bytes", "kernel", "bytes_per_connection", "slab"),
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
    found = [f"{name} {before[name]} against {after[name]}" for name in SAME if before[name] != after[name]]
    old, new = before["options"], after["options"]
    found += [f"{name} {old.get(name)} against {new.get(name)}" for name in SAME_OPTIONS if old.get(name) != new.get(name)]
    if is_secure(before) != is_secure(after):
        found.append("one is over TLS, the other is not")
    if (cpus := [at(report, ["machine", "cpu"]) for report in (before, after)])[0] != cpus[1]:
        found.append(f"machine {cpus[0]} against {cpus[1]}")
    found += [f"the {name} run was not ok" for name, report in (("first", before), ("second", after)) if not report.get("ok")]
    if "load" in (at(before, ["load", "limit"]), at(after, ["load", "limit"])):
        found.append("in one of them the load generator was the limit")
    return found
