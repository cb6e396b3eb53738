"""What a held crowd of connections may cost, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MB = 1e6
GROWTH_BYTES = 100  # of PSS for each connection: 10 MB for 100,000
REST_US = 0.6
KEPT_PART, KEPT_BYTES = 0.05, 5 * MB
WHOLE_MB = {100_000: 64, 1_000_000: 300}
"""The PSS of all processes, Python included, for so many connections."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the result. reached: None where there is no goal."""

    what: str
    measured: str
    goal: str = ""
    reached: bool | None = None


def rows(report: dict[str, Any]) -> list[Row]:
    """What a report of `unlimitedws bench --mode idle --pid` says of a server's capacity."""
    server, connections, errors = report["server"], report["connections"], report["errors"]
    held, rest = server["memory"]["full"]["connections"], server["rest_us_per_connection_s"]
    return [
        Row("held", f"{held:,}", f"{connections['asked']:,}", held == connections["asked"]),
        Row("processes", f"{server['memory']['empty']['processes']} of the server, {report['load']['processes']} of the load"),
        *memory_rows(report, held),
        Row("kernel memory, both ends", kernel_text(report["kernel"]["bytes_per_connection"])),
        Row("CPU at rest", f"{rest:.3f} us a connection and second", f"<= {REST_US} us", rest <= REST_US),
        Row("echo while all are held", latency_text(report["latency_us"]["latency"])),
        Row("connects", f"{connections['per_s']:,.0f} a second"),
        Row("all left in", f"{connections['leaving_s']:.2f} s"),
        Row("failed, lost, wrong", f"{sum(errors.values()):,}", "0", not errors),
    ]


def memory_rows(report: dict[str, Any], held: int) -> list[Row]:
    """PSS of all processes of the server: before, meanwhile, afterwards."""
    empty, full, after = (report["server"]["memory"][name]["pss"] for name in ("empty", "full", "after"))
    growth, most_growth, most_kept = full - empty, GROWTH_BYTES * held, (1 + KEPT_PART) * empty + KEPT_BYTES
    whole = next((mb * MB for number, mb in sorted(WHOLE_MB.items()) if report["connections"]["asked"] <= number), None)
    later = f"{mb(after)} ({report['options']['after_s']:g} s later)"
    return [
        Row("PSS, empty", mb(empty)),
        Row("PSS, full", mb(full), f"<= {mb(whole)}" if whole else "", full <= whole if whole else None),
        Row("... growth", f"{mb(growth)} ({growth / max(1, held):.0f} bytes each)", f"<= {mb(most_growth)}", growth <= most_growth),
        Row("... after all left", later, f"<= {mb(most_kept)}", after <= most_kept),
    ]


def kernel_text(each: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {size:,.0f}" for name, size in each.items() if size is not None) + " bytes each"


def latency_text(us: dict[str, float]) -> str:
    if not us["number"]:
        return "none"
    shown = ", ".join(f"{name} {us[name] / 1e3:.2f} ms" for name in ("p50", "p99", "longest"))
    return f"{us['number']:,} answers: {shown}"


def mb(size: float) -> str:
    return f"{size / MB:,.1f} MB"


def table(found: list[Row]) -> str:
    verdict = {True: "yes", False: "**no**", None: ""}
    lines = ["| what | measured | to reach | reached |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {row.what} | {row.measured} | {row.goal} | {verdict[row.reached]} |" for row in found])
