"""What connections have in common: path, endpoint, subprotocol and deflate, kept once for all that share them."""

from __future__ import annotations

from unlimitedws.wire.deflate import Terms

Route = tuple[str, int, str | None, Terms | None]
"""Path, endpoint, subprotocol, and the terms of permessage-deflate where it was agreed."""


class Routes:
    """Numbers for routes, counted by their connections: a peer that invents paths leaves nothing behind."""

    def __init__(self) -> None:
        self.routes: list[Route | None] = []
        self.endpoints: list[int] = []
        self._users: list[int] = []
        self._numbers: dict[Route, int] = {}
        self._free: list[int] = []

    def take(self, path: str, endpoint: int, subprotocol: str | None, deflate: Terms | None = None) -> int:
        """The number of a route, with one user more."""
        route = (path, endpoint, subprotocol, deflate)
        number = self._numbers.get(route)
        if number is None:
            number = self._numbers[route] = self._place(route)
        self._users[number] += 1
        return number

    def _place(self, route: Route) -> int:
        if self._free:
            number = self._free.pop()
            self.routes[number], self.endpoints[number] = route, route[1]
        else:
            number = len(self.routes)
            self.routes.append(route)
            self.endpoints.append(route[1])
            self._users.append(0)
        return number

    def release(self, number: int) -> None:
        """One user less; the last one frees it."""
        self._users[number] -= 1
        route = self.routes[number]
        if self._users[number] == 0 and route is not None:
            del self._numbers[route]
            self.routes[number] = None
            self._free.append(number)

    def route(self, number: int) -> Route:
        route = self.routes[number]
        assert route is not None
        return route
