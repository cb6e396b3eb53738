"""The reference pages say what the code says."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import unlimitedws
from unlimitedws import checks
from unlimitedws.commands import COMMANDS
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


def test_the_committed_pages_are_what_the_code_generates(generate: ModuleType) -> None:
    pages = generate.pages()
    committed = {name: (DOCS / "reference" / name).read_text(encoding="utf-8") for name in pages if (DOCS / "reference" / name).exists()}
    different = [name for name in pages if committed.get(name) != pages[name]]
    assert different == [], "run `make docs-reference` and commit the result"


def test_every_setting_and_cause_has_its_entry(generate: ModuleType) -> None:
    pages = generate.pages()
    assert [name for name in DEFAULTS if f"\n### {name}\n" not in pages["settings.md"]] == []
    assert [cause for cause in Cause if f"| `{cause.value}` |" not in pages["closing.md"]] == []


def test_every_name_that_the_package_exports_is_in_the_reference(generate: ModuleType) -> None:
    text = "".join(generate.pages().values())
    missing = [name for name in unlimitedws.__all__ if not re.search(rf"^## (?:checks\.)?{name}$|`{name}`", text, re.MULTILINE)]
    assert missing == ["__version__"]
    assert [name for name in checks.__all__ if f"## checks.{name}\n" not in text] == ["JWT", "Check"]


def test_every_public_member_of_what_an_app_uses_is_documented(generate: ModuleType) -> None:
    from docs.api_pages import PAGES

    undocumented = []
    for entry in (entry for page in PAGES.values() for entry in page.entries if entry.members is None):
        owner = getattr(importlib.import_module(entry.module), entry.name)
        text = "".join(generate.pages().values())
        names = [name for name, member in vars(owner).items() if callable(member) or isinstance(member, property)]
        undocumented += [
            f"{entry.heading}.{name}" for name in names if not name.startswith("_") and f"### {entry.heading}.{name}\n" not in text
        ]
    assert undocumented == [f"Handlers.{method}" for method in ("post", "put", "patch", "delete")]  # said with `get`


def test_every_command_and_its_flags_are_in_the_reference(generate: ModuleType) -> None:
    page = generate.pages()["command-line.md"]
    for name in COMMANDS:
        assert f"\n## {name}\n" in page


def test_a_flag_that_is_no_setting_of_a_server_is_listed_even_if_it_has_the_name_of_one(generate: ModuleType) -> None:
    entries = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", generate.pages()["command-line.md"], re.MULTILINE | re.DOTALL))
    assert {name for name, entry in entries.items() if "every [setting]" in entry} == {"serve", "doctor"}
    assert "`--message-bytes BYTES` | bytes of a message" in entries["bench"]
    assert "`--control-socket TEXT`" in entries["ctl"]
