"""The site is built without a warning, and its pages load nothing from anywhere else."""

from __future__ import annotations

import html.parser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES

ROOT = DOCS.parent
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?((?:https?:)?//[^"'\s>]+)|<link[^>]*\shref=["']?((?:https?:)?//[^"'\s>]+)"""
)
LOADED_BY_CSS = re.compile(r"""(?:@import|url\()\s*["']?((?:https?:)?//[^"')]+)""")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None,
    reason="needs mkdocs-material: make docs, or pip install 'unlimitedws[docs]'",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built anew; a link or an anchor that leads nowhere fails it."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Builds the manual of a checkout into `folder`, by the command of `make docs`."""
    found = re.search(r"\$\(PY\) -m (mkdocs build .*)", (ROOT / "Makefile").read_text())
    assert found is not None
    command = [sys.executable, "-m", *found[1].split(), "--site-dir", folder]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=170, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the manual that a test may spoil, beside what it links to."""
    for entry in ROOT.iterdir():
        if entry.name != "docs":
            (tmp_path / entry.name).symlink_to(entry)
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(
    "link", ["how-to/deploy.md#nowhere", "how-to/nowhere.md", "../examples/README.md#nowhere", "../deploy/nowhere.conf", "nowhere.png"]
)
def test_a_broken_link_fails_the_build(checkout: Path, link: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with (checkout / "docs/index.md").open("a") as page:
        page.write(f"\n[broken]({link})\n")
    done = build(checkout, tmp_path_factory.mktemp("spoiled"))
    assert done.returncode != 0
    assert "nowhere" in done.stderr


class Links(html.parser.HTMLParser):
    """What a page of the site links to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.targets += [target for name in ("href", "src") if (target := given.get(name))]
        self.anchors |= {name for name in (given.get("id"), given.get("name")) if name}


def test_every_link_of_every_page_leads_to_a_file_and_an_anchor(site: Path) -> None:
    pages = {file.resolve(): Links(file.read_text()) for file in site.rglob("*.html") if file.name != "404.html"}
    for file, links in pages.items():
        for target in links.targets:
            path, _, anchor = urllib.parse.unquote(target).partition("#")
            if "://" in path or path.startswith(("javascript:", "data:", "mailto:")):
                continue
            there = (file.parent / path.partition("?")[0]).resolve() if path else file
            there = there / "index.html" if there.is_dir() else there
            assert there.exists(), f"{file.relative_to(site)}: {target}"
            assert not anchor or there not in pages or anchor in pages[there].anchors, f"{file.relative_to(site)}: {target}"


def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    start = (site / "index.html").read_text()
    for page in PAGES:
        html = page.removesuffix(".md") + ".html"
        assert (site / html).exists(), page
        assert f'href="{html}"' in start, f"{page} is not in the navigation"


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for file in site.rglob("*.html"):
        assert LOADED.findall(file.read_text()) == [], file
    for file in site.rglob("*.css"):
        assert LOADED_BY_CSS.findall(file.read_text()) == [], file


def test_files_of_the_repository_that_pages_name_can_be_read_on_the_site(site: Path) -> None:
    assert "proxy_pass" in (site / "files/deploy/proxy/nginx.conf.html").read_text()
    assert 'href="../files/deploy/proxy/nginx.conf.html"' in (site / "how-to/deploy.html").read_text()
