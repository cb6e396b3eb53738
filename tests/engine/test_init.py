"""Choosing an engine."""

from __future__ import annotations

import sys

import pytest

from unlimitedws.engine import load, why_not_native
from unlimitedws.errors import EngineUnavailable


def test_an_engine_is_loaded_by_name(engine_name: str) -> None:
    assert load(engine_name).name == engine_name


def test_without_the_native_engine_auto_is_portable_and_native_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unlimitedws.engine.native", None)
    assert why_not_native()
    assert load("auto").name == "portable"
    with pytest.raises(EngineUnavailable, match="install a C compiler"):
        load("native")
