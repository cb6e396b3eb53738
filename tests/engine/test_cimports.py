"""The native modules take no name from elsewhere that they do not use: no compiler says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import unlimitedws

ROOT = Path(unlimitedws.__file__).parent
FILES = sorted(file for suffix in ("pyx", "pxd") for file in ROOT.rglob(f"*.{suffix}"))

TAKEN = re.compile(r"^from\s+[\w.]+\s+c?import\s+(\([^)]*\)|.+)$", re.MULTILINE)
COMMENT = re.compile(r"#.*")
NAME = re.compile(r"\b(?:\w+\s+as\s+)?(\w+)")


def unused(text: str) -> Iterator[str]:
    """Names that are taken one by one and stand nowhere else."""
    text = COMMENT.sub("", text)
    rest = TAKEN.sub("", text)
    for names in TAKEN.findall(text):
        yield from (name for name in NAME.findall(names) if not re.search(rf"\b{name}\b", rest))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_name_that_a_module_takes_is_used(file: Path) -> None:
    assert list(unused(file.read_text())) == []


def test_one_that_is_not_would_be_noticed() -> None:
    text = "from a cimport b, c as d\nfrom e import (\n    f,\n    g,\n)\nfrom h cimport *\nb(g)  # d\n"
    assert list(unused(text)) == ["d", "f"]
