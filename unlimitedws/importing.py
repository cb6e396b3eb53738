"""Whether this process imports an app at the moment: a server that runs there would never let the import end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from unlimitedws.errors import AppInvalid

_apps: list[str] = []


@contextlib.contextmanager
def under_way(app: str) -> Iterator[None]:
    """app: as it was given, module:attribute."""
    _apps.append(app)
    try:
        yield
    finally:
        _apps.pop()


def check(call: str) -> None:
    """Raises AppInvalid where an app is being imported; call: what its module must not do then."""
    if _apps:
        raise AppInvalid(f'its module calls {call} while {_apps[-1]!r} is imported; put that call below `if __name__ == "__main__":`')
