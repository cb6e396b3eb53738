"""Which function answers which plain HTTP request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from unlimitedws.functions import Kind, kind_of, name_of, takes


class Route(NamedTuple):
    """One function of an app, and how it is called."""

    function: Callable[..., Any]
    kind: Kind
    takes_request: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Route:
        return cls(function, kind_of(function), takes(function, "request"))

    @property
    def name(self) -> str:
        return name_of(self.function)

    def call(self, request: Any) -> Any:
        return self.function(request) if self.takes_request else self.function()


class Routes:
    """Path and method to route. functions: as `App.routes` has them."""

    def __init__(self, functions: Mapping[tuple[str, str], Callable[..., Any]]) -> None:
        self._by_path: dict[str, dict[str, Route]] = {}
        for (path, method), function in functions.items():
            self._by_path.setdefault(path, {})[method] = Route.of(function)
        for methods in self._by_path.values():
            if "GET" in methods:  # RFC 9110, section 9.3.2: HEAD is GET without the body
                methods.setdefault("HEAD", methods["GET"])

    def find(self, path: str, method: str) -> Route | None:
        return self._by_path.get(path, {}).get(method)

    def methods(self, path: str) -> list[str]:
        """What `path` answers, in the order of registration; empty: nothing."""
        return list(self._by_path.get(path, ()))
