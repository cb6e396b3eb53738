"""The dashboard at / of the admin port: one page, and the plotting library that comes with this package.

The page asks only this port, and its Content-Security-Policy holds it to that. It draws what /stats says.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path

from unlimitedws.supervisor.admin import Answer

FOLDER = Path(__file__).parent / "page"
PAGE = "index.html"
LIBRARY = {
    "/uPlot.js": ("uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/uPlot.css": ("uPlot.min.css", "text/css; charset=utf-8"),
}
HTML = "text/html; charset=utf-8"


def routes() -> dict[str, Callable[[], Answer]]:
    """Path to what makes its answer. The files are read when they are asked for: seldom, and then from the page cache."""
    return {"/": page, **{path: partial(file, *about) for path, about in LIBRARY.items()}}


def page() -> Answer:
    body = (FOLDER / PAGE).read_bytes()
    return Answer(HTTPStatus.OK, HTML, body, policy=policy(body.decode()))


def file(name: str, content_type: str) -> Answer:
    return Answer(HTTPStatus.OK, content_type, (FOLDER / name).read_bytes())


def policy(page: str) -> str:
    """What the page may do: run its own script and ours, ask this port, and nothing else."""
    scripts, styles = (" ".join(hashes(page, tag)) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' {styles}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def hashes(page: str, tag: str) -> list[str]:
    """Of what stands inside of each element of this tag, as CSP wants it."""
    inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inside]
