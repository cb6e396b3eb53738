"""Writes docs/reference/hostile.md from the rows that the tests of this folder hold: `make docs-reference`."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from tests.hostile import test_compressed, test_crowds, test_frames, test_http, test_limits, test_proxied, test_requests, test_secured
from tests.hostile.table import Row, rows_of

FILE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "hostile.md"

SECTIONS: tuple[tuple[str, ModuleType], ...] = (
    ("Requests", test_requests),
    ("Plain HTTP", test_http),
    ("Frames", test_frames),
    ("Compressed messages", test_compressed),
    ("TLS", test_secured),
    ("Behind a proxy", test_proxied),
    ("Too many, too fast, at a bad time", test_limits),
    ("Crowds and noise", test_crowds),
)

INTRODUCTION = """# What hostile input gets

What a peer may send or do, what it gets for it, and the counter of `/stats` (see [counters](counters.md)) that grows by it.
Every row is a test that runs against a whole server on both engines (`tests/hostile`); after each attack an honest client
is served as ever, every connection has ended once, and no descriptor, buffer or queued byte is left. Settings in
`this type` are explained under [settings](settings.md); where a row names none, the defaults hold.

*The end* means: our side of the stream ends behind the answer, and what the peer still sends is read and thrown away
for at most 2 s or 1 MiB. A socket that is closed with unread input makes the kernel send RST, which destroys the answer
on its way.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for title, module in SECTIONS:
        parts.append(f"\n## {title}\n\n| input | answer | counted as |\n|---|---|---|\n")
        parts.extend(line(row) for row in rows_of(module))
    return "".join(parts)


def line(row: Row) -> str:
    counted = f"`{row.counted}`" if row.counted.isidentifier() else row.counted
    return f"| {row.said} | {row.answer} | {counted} |\n"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
    print(f"wrote {FILE.name}")
