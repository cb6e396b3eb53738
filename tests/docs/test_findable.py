"""Each thing that there is has a page that says what to do with it: a how-to or a step of the tutorial."""

from __future__ import annotations

import re

import pytest

import unlimitedws
from tests.docs.pages import DOCS, PAGES
from unlimitedws import checks, ctl
from unlimitedws.bench.options import MODES
from unlimitedws.commands import COMMANDS
from unlimitedws.config import DEFAULTS
from unlimitedws.errors import UnlimitedwsError
from unlimitedws.handlers import HOOKS

TASKS = "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES if page.startswith(("how-to/", "tutorial/")))
SPELLING = {name: rf"\b{name}\b|--{name.replace('_', '-')}\b|UNLIMITEDWS_{name.upper()}\b" for name in DEFAULTS}
REST = frozenset({"__version__"})
"""What needs no page of its own. Errors have theirs in the reference: one is caught by its root."""


def missing(names: dict[str, str]) -> list[str]:
    """Of names with the pattern of each, those that no page has."""
    return [name for name, pattern in names.items() if not re.search(pattern, TASKS)]


def is_error(name: str) -> bool:
    value = getattr(unlimitedws, name)
    return isinstance(value, type) and issubclass(value, UnlimitedwsError)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("setting", SPELLING),
        ("exported name", {name: rf"\b{name}\b" for name in unlimitedws.__all__ if name not in REST and not is_error(name)}),
        ("hook", {name: rf"\b{name}\b" for name in HOOKS}),
        ("check", {name: rf"\bchecks\.{name}\b" for name in checks.__all__ if name.islower()}),
        ("command", {name: rf"\bunlimitedws {name}\b" for name in COMMANDS}),
        ("verb of ctl", {verb: rf"\bunlimitedws ctl {verb}\b" for verb in ctl.SHOWN}),
        ("mode of bench", {mode: rf"--mode {mode}\b" for mode in MODES[1:]}),  # the first is what there is without the flag
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everything_there_is_has_a_page_that_uses_it(kind: str, names: dict[str, str]) -> None:
    assert missing(names) == [], f"no page of docs/how-to or docs/tutorial has this {kind}"
