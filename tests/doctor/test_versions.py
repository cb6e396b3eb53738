"""What would run, with its releases."""

from __future__ import annotations

import platform
from importlib import metadata

import pytest

from unlimitedws import __version__
from unlimitedws.doctor.versions import versions


def test_releases_are_those_that_are_installed() -> None:
    assert versions() == {"unlimitedws": __version__, "python": platform.python_version(), "uvloop": metadata.version("uvloop")}


def test_what_is_not_installed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert versions()["uvloop"] is None
