"""The files of deploy/, read for tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANUAL = ROOT / "docs" / "how-to" / "deploy.md"

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def read(name: str) -> str:
    return (DEPLOY / name).read_text()


def documents(name: str) -> list[Any]:
    """Every document of a YAML file."""
    return list(yaml.safe_load_all(read(name)))


def changed(text: str, edits: dict[str, str]) -> str:
    """A text with some of its words replaced, each of which must be there."""
    for old, new in edits.items():
        assert old in text, f"{old!r} is not in the file any more: does the test still change what it means to?"
        text = text.replace(old, new)
    return text


def seconds(duration: str) -> float:
    """`1h`, `25s`, `0.5s` or a bare number of seconds."""
    found = re.fullmatch(r"([0-9.]+)(ms|s|m|h)?", duration)
    assert found, duration
    return float(found[1]) * SECONDS[found[2] or "s"]


def directives(text: str) -> dict[str, list[str]]:
    """`key = value` lines, without comments: what an INI-like file says, sections left out."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found.setdefault(key.strip(), []).append(value.strip())
    return found
