"""What would run: this package, Python and uvloop, with their releases. For those who ask; a server's start does not."""

from __future__ import annotations

import platform
from importlib import metadata

from unlimitedws import __version__


def versions() -> dict[str, str | None]:
    """Name to release; None: it is not installed."""
    try:
        uvloop: str | None = metadata.version("uvloop")
    except metadata.PackageNotFoundError:
        uvloop = None
    return {"unlimitedws": __version__, "python": platform.python_version(), "uvloop": uvloop}
