"""The app as it was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlimitedws import AppImportFailed, AppInvalid, AppNotFound, Handlers
from unlimitedws.app import App
from unlimitedws.supervisor.given import load


def test_handlers_and_mappings_are_served_as_they_are() -> None:
    chat, news = Handlers(), Handlers()
    assert load(chat) == App.of(chat)
    assert load({"/chat": chat, "/news": news}).endpoints == (chat, news)
    assert load(App.of(chat)).endpoints == (chat,)


def test_what_is_no_app_is_refused() -> None:
    with pytest.raises(AppInvalid):
        load(5)  # type: ignore[arg-type]


def test_a_name_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "app_that_is_fine.py").write_text("from unlimitedws import Handlers\nhandlers = Handlers()\n")
    assert len(load("app_that_is_fine:handlers").endpoints) == 1


def test_a_name_of_nothing_is_not_found() -> None:
    with pytest.raises(AppNotFound):
        load("no_such_module_anywhere:handlers")


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit(3)", "GeneratorExit", "ValueError"])
def test_whatever_a_module_raises_is_an_import_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"app_that_raises_{error.partition('(')[0].lower()}"
    (tmp_path / f"{name}.py").write_text(f"raise {error}\n")
    with pytest.raises(AppImportFailed, match=error.partition("(")[0]):
        load(f"{name}:handlers")
