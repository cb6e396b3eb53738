"""The manual as a whole: its links lead somewhere, on GitHub and on the site; its navigation leaves no page out."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from docs import hooks
from tests.docs.pages import DOCS, PAGES
from unlimitedws.config import DEFAULTS, KIB, MIB

ROOT = DOCS.parent
WRITTEN = [*(f"docs/{page}" for page in PAGES), "README.md", "CHANGELOG.md", "examples/README.md", "deploy/README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
DEFAULT = re.compile(r"`(\w+)` \(([\d.]+)(?: (s|KiB|MiB))?\)")
DEFAULT_IN_A_TABLE = re.compile(r"^\| `(\w+)` \| ([\d.]+) (KiB|MiB|)", re.MULTILINE)
UNITS = {"": 1, "s": 1, "KiB": KIB, "MiB": MIB}
FENCED = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings (and mkdocs, by the slugs that mkdocs.yml sets)."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#{1,6} (.*)$", text_of(page), re.MULTILINE):
        plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names


@pytest.mark.parametrize("page", WRITTEN)
def test_every_link_leads_to_a_file_and_its_heading(page: str) -> None:
    here = ROOT / page
    for target in LINK.findall(text_of(here)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (here.parent / path).resolve() if path else here
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", WRITTEN)
def test_no_link_is_written_in_a_way_that_is_not_checked(page: str) -> None:
    text = re.sub(r"(`+).*?\1", "", text_of(ROOT / page), flags=re.DOTALL)
    assert re.findall(r"\]\[[^\]]*\]|\]\(<|<a\s|<img\s", text) == [], "write [text](file.md#heading)"


def test_the_page_for_developers_names_each_module_of_the_native_engine_and_no_other() -> None:
    named = re.findall(r"`(\w+\.pyx)`", text_of(DOCS / "internals.md"))
    assert sorted(named) == sorted(file.name for file in (ROOT / "unlimitedws/engine").glob("*.pyx"))


@pytest.mark.parametrize("page", WRITTEN)
def test_each_file_of_the_repository_that_a_page_names_is_there(page: str) -> None:
    for name in re.findall(r"`((?:unlimitedws|tests|docs|deploy|examples|engine)/[\w./-]+\.\w+)`", text_of(ROOT / page)):
        assert any((folder / name).exists() for folder in (ROOT, ROOT / "unlimitedws")), name


def test_each_module_that_the_page_for_developers_names_is_there() -> None:
    for name in re.findall(r"`([\w/]+\.pyx?)`", text_of(DOCS / "internals.md")):
        assert list(ROOT.glob(name)) or list((ROOT / "unlimitedws").rglob(name)), name


@pytest.mark.parametrize("folder", hooks.SECTIONS.values())
def test_the_index_of_a_folder_lists_each_of_its_pages(folder: str) -> None:
    listed = [page for page, _ in hooks.entries(folder) if page]
    assert len(listed) == len(set(listed))
    missing = [page for page in PAGES if page.startswith(f"{folder}/") and page not in {*listed, f"{folder}/index.md"}]
    assert missing == [], f"add a line to docs/{folder}/index.md for each: the navigation of the site is made from it"


def test_a_page_that_no_index_lists_is_in_the_navigation_all_the_same() -> None:
    nav = hooks.navigation(frozenset({*PAGES, "how-to/new.md"}))
    how_to = next(entry["How to"] for entry in nav if "How to" in entry)
    assert how_to[-1] == "how-to/new.md"


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("reference/")])
def test_the_defaults_that_a_page_names_are_those_of_the_settings(page: str) -> None:
    text = text_of(DOCS / page)
    for name, value, unit in DEFAULT.findall(text) + DEFAULT_IN_A_TABLE.findall(text):
        if name in DEFAULTS:
            assert float(value) * UNITS[unit] == DEFAULTS[name], name
