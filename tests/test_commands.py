"""The flags are derived from the settings, with their help."""

from __future__ import annotations

import re

import pytest

from unlimitedws import commands
from unlimitedws.config import DEFAULTS, Config, flag, kind, settings
from unlimitedws.ctl import SHOWN


@pytest.fixture
def help_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit, match="0"):
        commands.run(["serve", "--help"])
    return capsys.readouterr().out


def test_the_help_shows_every_setting_with_its_default_and_what_0_means(help_text: str) -> None:
    words = " ".join(help_text.split())
    for name, about in settings().items():
        zero = f"; 0: {about.zero}" if about.zero else ""
        empty = f"; empty: {about.empty}" if about.empty else ""
        assert f"{about.help}{zero}{empty} (default: {commands.shown(DEFAULTS[name]) or 'empty'})" in words
        assert re.search(rf"^  {flag(name)}[ ,]", help_text, re.MULTILINE)


def test_the_help_of_ctl_names_every_verb(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit, match="0"):
        commands.run(["ctl", "--help"])
    named = re.search(r"^  VERB +(.+)$", capsys.readouterr().out, re.MULTILINE)
    assert named is not None
    assert [verb.split()[0] for verb in named[1].split(", ")] == list(SHOWN)


def test_the_help_is_grouped_as_the_settings_are(help_text: str) -> None:
    titles = re.findall(r"^([a-z]+):$", help_text, re.MULTILINE)
    groups = list(dict.fromkeys(about.group for about in settings().values()))
    assert titles[-len(groups) :] == groups


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_setting_has_its_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = [] if kind(name) is bool else [commands.shown(DEFAULTS[name])]
    assert commands.run(["serve", "--print-config", flag(name), *value]) == 0
    assert re.search(rf"^{name} .* {flag(name)}$", capsys.readouterr().out, re.MULTILINE)


def test_the_table_has_a_row_for_each_setting() -> None:
    rows = commands.table(Config(reload=True), dict.fromkeys(DEFAULTS, "default")).splitlines()
    assert [row.split()[0] for row in rows] == ["setting", *DEFAULTS]
    assert rows[1 + list(DEFAULTS).index("reload")].split() == ["reload", "true", "default"]
