"""The site is built without a warning, and its pages load nothing from anywhere else."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
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
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--config-file", ROOT / "mkdocs.yml", "--site-dir", folder],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


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
