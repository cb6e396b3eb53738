"""The figures that pages quote are those of docs/performance.md: whoever measures again changes all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal

import pytest

from tests.docs.pages import DOCS

MEASURED = (DOCS / "performance.md").read_text(encoding="utf-8")
ONCE, _, AGAIN = MEASURED.partition("## Eight works again")  # one round of every server; ours and the floor, with more rounds

README = "../README.md"
WORKS = {
    "echo, 64 connections, 32 bytes": "echo, 64 connections, 32 bytes: CPU for each message",
    "echo, 1,000 connections, 32 bytes": "echo, 1,000 connections, 32 bytes",
    "echo, 64 connections, 1 KiB": "echo, 64 connections, 1 KiB",
    "echo, 64 connections, 16 KiB": "echo, 64 connections, 16 KiB",
}
"""Title of a work in docs/performance.md: its row in the README."""
SERVERS = {
    "unlimitedws": "unlimitedws",
    "socketify": "socketify (C++ core)",
    "npm-ws": "ws for node",
    "websockets": "websockets",
    "aiohttp": "aiohttp",
    "uvicorn": "uvicorn",
}

Quote = tuple[str, str]
"""A page, and the words that it has to have."""


# ---- reading docs/performance.md


def section(heading: str, text: str = MEASURED) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^#", text.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def row(title: str, text: str) -> list[str]:
    """The cells of the first row that begins with `title`, without it."""
    found = re.search(rf"^\| {re.escape(title)} \|(.*)\|$", text, re.MULTILINE)
    assert found is not None, f"docs/performance.md has no row {title!r}"
    return [cell.strip() for cell in found[1].split("|")]


def rounded(text: str, places: int = 0) -> str:
    """The first number of a cell such as `3.99 (3.83 to 4.31) us/message`, with so many places behind the point."""
    found = re.search(r"\d[\d,]*(?:\.\d+)?", text)
    assert found is not None, text
    return f"{Decimal(found[0].replace(',', '')).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):,f}"


# ---- what pages say of it


def quotes() -> Iterator[Quote]:
    yield from of_reloads()
    yield from of_messages()
    yield from of_memory()
    yield from of_capacity()


def of_reloads() -> Iterator[Quote]:
    pause = rounded(section("## Reloads and kills").partition("100 reloads in")[2].partition("max")[2])
    yield README, f"longest pause {pause} ms"
    yield "explanation/how-a-reload-moves-connections.md", f"pauses of {pause} ms at most"


def of_messages() -> Iterator[Quote]:
    for work, title in WORKS.items():
        ours, best = row(work, AGAIN), row(work, ONCE)[3]
        peer = f"{rounded(best, 1)} us {best[best.index('(') :]}"
        yield README, f"| {title} | {rounded(ours[1], 1)} us | {rounded(ours[2], 2)} | {peer} |"
    echoes = section("### echo, 64 connections, 32 bytes", ONCE)
    native, portable = (rounded(row(server, echoes)[0], 1) for server in ("unlimitedws", "unlimitedws-portable"))
    yield "explanation/two-engines.md", f"| an echo of 32 bytes, CPU | {native} us | {portable} us |"


def of_memory() -> Iterator[Quote]:
    for server, name in SERVERS.items():
        yield "explanation/no-object-per-connection.md", f"| {name} | {memory(server)} |"
    yield "explanation/two-engines.md", f"| an idle connection | {memory('unlimitedws')} | {memory('unlimitedws-portable')} |"
    few, many = (rounded(row(workers, section("## An empty server"))[2]) for workers in ("8", "56"))
    yield README, f"{few} / {many} MB"
    yield "../CHANGELOG.md", f"{few} MB with 8 workers and {many} MB with 56"


def memory(server: str) -> str:
    """Of one idle connection."""
    cell = row(server, section("### idle connection, slope of PSS from 5,000 to 15,000", ONCE))[0]
    in_bytes = rounded(cell)
    return f"{Decimal(in_bytes.replace(',', '')) / 1000:.1f} KB" if "," in in_bytes else f"{in_bytes} bytes"


def of_capacity() -> Iterator[Quote]:
    capacity = section("## Capacity")
    for column, words in (
        (0, "{full:.1f} MB, {connects:,} connects/s, echo p99 {p99:.1f} ms"),
        (
            3,
            "{full:.0f} MB, {connects:,} connects/s, echo p50 {p50:.1f} ms and p99 {p99:.0f} ms, {rest:.2f} us of CPU a connection",
        ),
    ):
        full, connects, rest = (
            float(rounded(row(title, capacity)[column], 3).replace(",", ""))
            for title in ("PSS, full", "connects a second", "CPU at rest, a connection and second")
        )
        p50, p99 = (float(part) for part in row("echo while all are held, p50, p99, longest", capacity)[column].split(", ")[:2])
        yield README, words.format(full=full, connects=int(round(connects, -2)), p50=p50, p99=p99, rest=rest)


@pytest.mark.parametrize(("page", "words"), list(quotes()))
def test_a_figure_that_a_page_quotes_is_the_one_that_was_measured(page: str, words: str) -> None:
    assert words in (DOCS / page).read_text(encoding="utf-8"), f"{page} has to say {words!r}, as docs/performance.md does"
