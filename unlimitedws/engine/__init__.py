"""The only owner of peer descriptors: two engines under one contract (`contract.py`).

    native     compiled (Cython): the hot path
    portable   pure Python on select.epoll and wsproto: where the other could not be compiled,
               for debugging, and as the examiner of the native one

May import `errors`, `config` and `wire`.
"""

from __future__ import annotations

from typing import Any

from unlimitedws.errors import EngineUnavailable

try:
    from unlimitedws.engine.pages import fill_gaps as fill_gaps
    from unlimitedws.engine.pages import give_back_free as give_back_free
    from unlimitedws.engine.pages import give_back_zeros as give_back_zeros
except ImportError:  # not built: more memory is taken

    def fill_gaps(most_bytes: int) -> int:
        """See `pages.pyx`."""
        return 0

    def give_back_free() -> None:
        """See `pages.pyx`."""

    def give_back_zeros(owner: object) -> int:
        """See `pages.pyx`."""
        return 0


def why_not_native() -> str | None:
    """Why the native engine cannot be imported; None when it can."""
    try:
        import unlimitedws.engine.native  # noqa: F401  (only whether it loads)
    except ImportError as error:
        return str(error)
    return None


def load(name: str = "auto") -> Any:
    """The engine class called `name`; `auto` is native where it is built, else portable.

    Raises EngineUnavailable when native was asked for by name and cannot be loaded."""
    if name in ("auto", "native"):
        why = why_not_native()
        if why is None:
            from unlimitedws.engine.native import Engine as NativeEngine

            return NativeEngine
        if name == "native":
            raise EngineUnavailable("native", why)
    from unlimitedws.engine.portable import Engine as PortableEngine

    return PortableEngine
