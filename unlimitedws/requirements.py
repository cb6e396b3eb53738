"""What this package needs of the machine, checked before anything is imported that would fail without it.

Written so that an older Python can still read it, and imports nothing of ours but the errors.
"""

from __future__ import annotations

import sys

from unlimitedws.errors import PlatformUnsupported

PYTHON = (3, 11)


def check(platform: str = sys.platform, version: tuple[int, ...] = tuple(sys.version_info[:3])) -> None:
    """Raises PlatformUnsupported unless this is Linux and Python is new enough."""
    if platform != "linux" or version < PYTHON:
        raise PlatformUnsupported(f"{platform} with Python {'.'.join(map(str, version))}")
