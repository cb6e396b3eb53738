"""A report for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlimitedws.bench import limit
from unlimitedws.bench.report import Report

ENOUGH = 1_000
"""Connections from which on the growth of memory, divided by them, says something."""


def table(report: Report) -> str:
    """The report for people."""
    lines = [headline(report), ""]
    lines += [f"  {name:22} {text}" for name, text in rows(report).items() if text]
    if latencies := [*latency_rows(report)]:
        lines += ["", f"  {'microseconds':22} {''.join(f'{name:>11}' for name in ('number', *SHOWN))}", *latencies]
    if words := limit.verdict(report):
        lines += ["", *(f"  {line}" for line in words)]
    lines += verdict(report)
    return "\n".join(lines)


SHOWN = {"p50": "p50", "p90": "p90", "p99": "p99", "p99.9": "p99_9", "longest": "longest"}
LOOPS = {
    "open": "open loop: sent when due, latency from then",
    "closed": "CLOSED LOOP: a slow server is asked less, its stalls hardly show in these latencies; --rate opens it",
}
MODE_LOOPS = {"reconnect": "open loop: all are due back at the loss, latency from then"}
TITLES = {"latency": "answer", "quiet": "answer, before", "kept": "held by the server", "late": "sent late"}
MODE_TITLES = {"connect": "connected", "reconnect": "back again", "broadcast": "delivery"}


def headline(report: Report) -> str:
    loop = MODE_LOOPS.get(report["mode"], LOOPS[report["loop"]])
    return f"{report['mode']} {' '.join(report['urls'])}  ({loop})" + ("  INTERRUPTED" if report["interrupted"] else "")


def rows(report: Report) -> dict[str, str]:
    connections, messages, server, load = (report[name] for name in ("connections", "messages", "server", "load"))
    are_enough = has_enough(report)
    found = {
        "connections": counted(
            connections, {"opened": "opened", "failed": "failed", "lost": "lost", "held": "held", "cut": "cut by the server"}
        ),
        "connects": f"{connections['per_s']:,.0f}/s" if connections["per_s"] else "",
        "messages": f"{messages['per_s']:,.0f}/s" if messages["per_s"] else "",
        "time": ", ".join(
            f"{name.removesuffix('_s').replace('_', ' ')} {s:.2f} s"
            for name, s in connections.items()
            if name.endswith(("ing_s", "back_s"))
        ),
        "load": load_row(load),
    }
    if server:
        found |= server_rows(server, are_enough)
    found["kernel memory"] = kernel_row(report["kernel"]) if are_enough else ""
    return found


def has_enough(report: Report) -> bool:
    """Whether memory may be shared out among the connections that were there when it was read."""
    kernel: Mapping[str, int] = report["kernel"]
    return kernel.get("connections", 0) >= ENOUGH


def counted(numbers: Mapping[str, int], names: Mapping[str, str]) -> str:
    return ", ".join(f"{numbers[name]:,} {text}" for name, text in names.items() if numbers[name])


def load_row(load: Mapping[str, Any]) -> str:
    processes = "1 process" if load["processes"] == 1 else f"{load['processes']} processes"
    sources = f", {load['sources']} source addresses" if load["sources"] else ""
    cores = f", {load['cores']:.2f} cores, the busiest {load['busiest_core']:.0%}" if load["cores"] is not None else ""
    return processes + sources + cores


def server_rows(server: Mapping[str, Any], are_enough: bool) -> dict[str, str]:
    """are_enough: connections to share memory out among."""
    found = {}
    if memory := {name: reading for name, reading in server["memory"].items() if reading}:
        found["server memory (PSS)"] = ", ".join(f"{name} {reading['pss'] / 1e6:,.1f} MB" for name, reading in memory.items())
        if are_enough and (each := server["pss_per_connection_bytes"]) is not None:
            found["server memory (PSS)"] += f"; {each:,.0f} bytes a connection"
    if server["cores"] is not None:
        each = server["cpu_us_per_message"]
        found["server CPU"] = f"{server['cores']:.2f} cores, the busiest process {server['busiest_core']:.0%}" + (
            f"; {each:,.2f} us each" if each else ""
        )
    if server["rest_us_per_connection_s"] is not None:
        found["server CPU at rest"] = f"{server['rest_us_per_connection_s']:.3f} us a connection and second"
    return found


def kernel_row(kernel: Mapping[str, Any]) -> str:
    each = kernel["bytes_per_connection"]
    if not each:
        return ""
    ends = "both ends of a connection" if kernel["both_ends"] else "a connection"
    names = {"slab": "all slab", "caches": "sockets, files, epoll entries in use", "cgroup": "the server's cgroup"}
    shown = [f"{each[name]:,.0f} ({text})" for name, text in names.items() if each[name] is not None]
    return f"bytes for {ends}: {', '.join(shown)}"


def latency_rows(report: Report) -> list[str]:
    found = {**report["latency_us"], "connect": report["connect_us"]}
    return [
        f"  {title_of(report, name):22} {numbers['number']:>11,}" + "".join(f"{numbers[key]:>11,.0f}" for key in SHOWN.values())
        for name, numbers in found.items()
        if numbers["number"]
    ]


def title_of(report: Report, latency: str) -> str:
    """What people call one of its latencies."""
    return {**TITLES, "latency": MODE_TITLES.get(report["mode"], TITLES["latency"])}.get(latency, latency)


def verdict(report: Report) -> list[str]:
    lines = []
    if report["server"] and (doubt := report["server"]["doubt"]):
        lines.append(f"WHOSE MEMORY AND CPU? {doubt}")
    if report["stopped_early"]:
        lines.append(f"STOPPED EARLY: {report['stopped_early']}")
    if report["errors"]:
        lines.append("ERRORS: " + ", ".join(f"{number:,} {name}" for name, number in report["errors"].items()))
    if report["faults"] and not report["ok"]:
        lines.append("because of: " + ", ".join(report["faults"]))
    elif report["faults"]:
        lines.append("the server ended connections with: " + ", ".join(report["faults"]))
    return ["", *(f"  {line}" for line in lines)] if lines else []
