"""The app as the supervisor was given it, and how a process below gets the real thing from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, Union

from unlimitedws.errors import AppImportFailed, UnlimitedwsError

if TYPE_CHECKING:
    # The supervisor itself does without: what it imports, no reload makes fresh.
    from unlimitedws.app import App
    from unlimitedws.handlers import Handlers

Given: TypeAlias = Union["Handlers", "Mapping[str, Handlers]", "App", str]
"""Handlers, a mapping of paths to Handlers, an App, or "module:attribute"."""


def load(given: Given) -> App:
    """The app, imported where it is given as `module:attribute`. Raises AppError."""
    from unlimitedws import app

    try:
        return app.load(given) if isinstance(given, str) else app.App.of(given)
    except UnlimitedwsError:
        raise
    except BaseException as error:  # a module may raise anything, KeyboardInterrupt too
        raise AppImportFailed(str(given), f"{type(error).__name__}: {error}") from error
