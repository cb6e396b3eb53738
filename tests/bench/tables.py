"""The tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.records import FLOOR, Records, Spread
from tests.bench.works import WORKS, Work

OURS, PORTABLE, ITS_MEASURE = "unlimitedws", "unlimitedws-portable", "websockets"
PORTABLE_IDLE_BYTES = 600
BEGIN, END = "<!-- figures: begin (written by tests/bench/run) -->", "<!-- figures: end -->"


def report(records: Records, versions: Mapping[str, str], missing: Mapping[str, str], conditions: Sequence[str]) -> str:
    """Everything between the markers of docs/performance.md."""
    works = [work for work in WORKS if any(record.work == work.name for record in records.all)]
    names = [f"{name} {versions[name]}".strip() if name in versions else name for name in records.servers]
    lines = [*conditions, "", "Servers: " + ", ".join(names) + "."]
    lines += [f"Missing: {name} ({why})." for name, why in missing.items()]
    lines += ["", *targets(records, works), ""]
    for work in works:
        lines += [f"### {work.title}", "", *every_server(records, work), ""]
    return "\n".join(lines)


def targets(records: Records, works: Sequence[Work]) -> list[str]:
    """What is to be reached, and whether it is: unlimitedws on the native engine, then on the portable one."""
    rows = [target_row(records, work) for work in works if OURS in records.servers]
    rows += portable_rows(records)
    head = ["work", "to reach", "unlimitedws", "x floor", "best of the others", "reached"]
    return markdown(head, rows)


def target_row(records: Records, work: Work) -> list[str]:
    spread, ratio = records.spread(work.name, OURS), ratio_of(records, work, OURS)
    others = [(found.median, name) for name in records.servers if is_other(name) and (found := records.spread(work.name, name))]
    best = f"{number(min(others)[0])} ({min(others)[1]})" if others else "-"
    return [
        work.title,
        work.to_reach,
        figure(spread, work),
        text(ratio, 2),
        best,
        verdict(reached(records, work)),
    ]


def portable_rows(records: Records) -> list[list[str]]:
    """The portable engine: bytes of an idle connection, and its echo against that of `websockets`."""
    rows = []
    idle = records.spread("idle", PORTABLE)
    if idle:
        rows.append(["portable engine: idle connection", f"<= {PORTABLE_IDLE_BYTES} bytes", f"{text(idle, 0)} bytes", "-", "-",
                     verdict(idle.median <= PORTABLE_IDLE_BYTES)])  # fmt: skip
    echo, ratio = records.spread("echo-64x32", PORTABLE), records.ratio("echo-64x32", PORTABLE, ITS_MEASURE)
    if echo:
        rows.append(["portable engine: echo, 64 connections, 32 bytes", f"<= 1.00 x {ITS_MEASURE}", f"{text(echo, 2)} us/message", "-",
                     f"{text(ratio, 2)} x {ITS_MEASURE}", verdict(ratio.median <= 1.0 if ratio else None)])  # fmt: skip
    return rows


def reached(records: Records, work: Work) -> bool | None:
    """Whether the medians are within what is to be reached; None: what is needed was not measured."""
    spread, ratio, per_s = (get(work.name, OURS) for get in (records.spread, records.ratio, records.per_s))
    judged: list[bool | None] = []
    if work.most is not None:
        judged.append(spread.median <= work.most if spread else None)
    if work.most_of_floor is not None:
        judged.append(ratio.median <= work.most_of_floor if ratio else None)
    if work.least_per_s is not None:
        judged.append(per_s.median > work.least_per_s if per_s else None)
    return None if None in judged else all(judged)


def every_server(records: Records, work: Work) -> list[str]:
    """One work, the best server first."""
    rows = []
    for name in sorted(records.servers, key=lambda name: order(records.spread(work.name, name))):
        measured = records.of(work.name, name)
        if not measured:
            continue
        spread, ratio, per_s = records.spread(work.name, name), ratio_of(records, work, name), records.per_s(work.name, name)
        rows.append([name, text(spread, digits(spread)), text(ratio, 2), text(per_s, 0), note(records, work, name)])
    return markdown(["server", work.unit, "x floor", "each second", "measures"], rows)


def note(records: Records, work: Work, server: str) -> str:
    """How many measures there are, and what was wrong with some."""
    measured = records.of(work.name, server)
    failed = [record.error for record in measured if record.error]
    disturbed = sum(record.disturbed for record in measured)
    words = [str(len(measured) - len(failed))]
    if failed:
        words.append(f"{len(failed)} failed: {' '.join(failed[0].split())[:120]}".replace("|", "/"))
    if disturbed:
        words.append(f"{disturbed} disturbed by other programs")
    return "; ".join(words)


def ratio_of(records: Records, work: Work, server: str) -> Spread | None:
    return records.ratio(work.name, server) if work.has_ratio else None


def is_other(name: str) -> bool:
    return name != FLOOR and not name.startswith(OURS)


def order(spread: Spread | None) -> float:
    return spread.median if spread else float("inf")


def digits(spread: Spread | None) -> int:
    return 0 if spread and abs(spread.median) >= 100 else 2


def number(value: float) -> str:
    return f"{value:,.{0 if abs(value) >= 100 else 2}f}"


def figure(spread: Spread | None, work: Work) -> str:
    return f"{text(spread, digits(spread))} {work.unit}"


def text(spread: Spread | None, digits: int) -> str:
    return spread.to_text(digits) if spread else "-"


def verdict(reached: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "not measured"}[reached]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]


def write_between_markers(path: Path, figures: str) -> None:
    """Replaces what lies between the markers of a page. Raises ValueError where it has none."""
    page = path.read_text()
    begin, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{path} has no place for the figures: put these two lines into it:\n{BEGIN}\n{END}")
    path.write_text(f"{begin}{BEGIN}\n\n{figures.strip()}\n\n{END}{after}")
