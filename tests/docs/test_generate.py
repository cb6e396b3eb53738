"""The reference pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from unlimitedws.config import DEFAULTS
from unlimitedws.wire.closing import Cause

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings.md", "counters.md", "stats.md", "metrics.md", "closing.md", "doctor.md", "bench.md"])
def test_the_committed_page_is_what_the_code_generates(generate: ModuleType, page: str) -> None:
    committed = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert committed == generate.pages()[page], "run `make docs-reference` and commit the result"


def test_every_setting_and_cause_has_its_entry(generate: ModuleType) -> None:
    pages = generate.pages()
    assert [name for name in DEFAULTS if f"\n### {name}\n" not in pages["settings.md"]] == []
    assert [cause for cause in Cause if f"| `{cause.value}` |" not in pages["closing.md"]] == []
