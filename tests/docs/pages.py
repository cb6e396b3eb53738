"""The code of the manual, as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = tuple(sorted(str(file.relative_to(DOCS)) for file in DOCS.rglob("*.md")))
NAMED = re.compile(r"(?:#|<!--) ([\w./-]+\.\w+)(?: -->)?\n")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code. language: the word behind the fence; None: indented, as a terminal shows it."""

    page: str
    line: int
    language: str | None
    code: str

    @property
    def file(self) -> str | None:
        """The file that its first line names (`# app.py`)."""
        found = NAMED.match(self.code)
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def all_blocks(page: str) -> list[Block]:
    """Every block of a page (`"how-to/x.md"`), fenced or indented, in its order."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    found, at = [], 0
    while at < len(lines):
        end = at + 1
        if fence := re.match(r"(`{3,})(\S*)", lines[at]):
            while lines[end] != fence[1]:
                end += 1
            found.append(Block(page, at + 1, fence[2], "".join(f"{line}\n" for line in lines[at + 1 : end])))
            end += 1
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1]) and not in_a_list(lines[:at]):
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end]):
                end += 1
            found.append(Block(page, at + 1, None, "".join(f"{line[4:]}\n" for line in lines[at:end]).rstrip("\n") + "\n"))
        at = end
    return found


def in_a_list(before: list[str]) -> bool:
    """Whether an indented line behind these goes on with an item of a list."""
    last = next((line for line in reversed(before) if line and not line.startswith(" ")), "")
    return bool(re.match(r"(?:-|\d+\.) ", last))


def blocks(page: str) -> list[str]:
    """The Python code of a page, block by block."""
    return [block.code for block in all_blocks(page) if block.language == "python"]


def modules(page: str) -> Iterator[tuple[str, str]]:
    """The Python files of a page: name and text. A block that names no file goes on with the one before (the first is app.py)."""
    name, text = "app.py", ""
    for block in all_blocks(page):
        if block.language == "python":
            if block.file and text:
                yield name, text
                text = ""
            name = block.file or name
            text += block.code
    if text:
        yield name, text


def app_of(page: str, number: int = 0) -> dict[str, Any]:
    """What a block of a page defines when it is run as a module of its own."""
    names: dict[str, Any] = {"__name__": f"{Path(page).stem}_{number}"}
    exec(compile(blocks(page)[number], f"docs/{page}", "exec"), names)
    return names
