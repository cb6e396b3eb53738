"""The code of the manual, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    """The Python code of a page (`"how-to/x.md"`), block by block."""
    return BLOCK.findall((DOCS / page).read_text())


def app_of(page: str, number: int = 0) -> dict[str, Any]:
    """What a block of a page defines when it is run as a module of its own."""
    names: dict[str, Any] = {"__name__": f"{Path(page).stem}_{number}"}
    exec(compile(blocks(page)[number], f"docs/{page}", "exec"), names)
    return names
