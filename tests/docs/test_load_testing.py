"""The page on load tests: every command of it is one that the program takes."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.docs.pages import DOCS
from unlimitedws.bench import options as declared
from unlimitedws.bench.plan import choose_sources, make
from unlimitedws.bench.target import parse
from unlimitedws.commands import parser

PAGE = (DOCS / "how-to/load-test-a-server.md").read_text()
COMMANDS = [command for command in re.findall(r"unlimitedws bench[^`\n]*", PAGE) if "://" in command or "URL" in command or "--" in command]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_accepted(command: str) -> None:
    words = shlex.split(command.replace("PID", "1").replace("$!", "1"), comments=True)
    given, unknown = parser().parse_known_args(words[1:])
    assert unknown == []
    declared.parse(vars(given))


def test_the_page_has_a_command_for_every_mode() -> None:
    assert {mode for mode in declared.MODES if f"--mode {mode} " not in PAGE} == {"echo"}


def test_a_million_connections_take_what_the_page_says() -> None:
    options = declared.Options(mode="idle", connections=1_000_000)
    target = parse("ws://127.0.0.1:8000/")
    assert f"{len(make(options, [target], 20_000).shares)} processes" in PAGE
    assert f"{len(choose_sources(options, [target], 1_000_000))} addresses" in PAGE
