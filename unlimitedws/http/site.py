"""Everything that is not a WebSocket: the routes of the app, health, and the files of a folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from unlimitedws.app import App
from unlimitedws.config import Config
from unlimitedws.dispatch import Dispatch
from unlimitedws.engine.contract import Refusal, Stream
from unlimitedws.http.exchange import Exchange, House
from unlimitedws.http.response import TEXT, Response
from unlimitedws.http.routes import Route, Routes
from unlimitedws.http.static import Static
from unlimitedws.turns import Turns
from unlimitedws.wire.forwarded import Origin
from unlimitedws.wire.handshake import Plain, refusal, refuse_plain

READING = ("GET", "HEAD")


class Site:
    """The plain HTTP of one worker. is_draining: whether it was told to stop."""

    def __init__(self, app: App, config: Config, work: Dispatch, is_draining: Callable[[], bool]) -> None:
        self._app = app
        self._routes = Routes(functions_of(app, config, is_draining))
        self._static = Static(config.static_dir, config.static_path) if config.static_dir else None
        self._house = House(config, work, Turns(config.http_running), is_draining)

    def answer(self, head: bytes, plain: Plain, origin: Origin) -> Stream | Refusal:
        """The answer to a request that is no handshake. Routes go before files, files before the WebSocket of that path."""
        method = plain.head.method.decode("ascii")
        route = self._routes.find(plain.path, method)
        if route is not None:
            return Exchange(head, plain.path, origin, route, self._house)
        missing = self._missing(plain, method)
        if self._static is not None and method in READING and self._static.serves(plain.path):
            return Exchange(head, plain.path, origin, Route(self._static.answer, "blocking", True), self._house, missing)
        return missing

    def _missing(self, plain: Plain, method: str) -> Refusal:
        allowed = self._routes.methods(plain.path)
        is_websocket = self._app.endpoint_of(plain.path) is not None
        if allowed and not (is_websocket and method in READING):
            return refusal(405, f"this path does not answer {method}", f"Allow: {', '.join(allowed)}", bodiless=method == "HEAD")
        return refuse_plain(plain, is_websocket=is_websocket)


def functions_of(app: App, config: Config, is_draining: Callable[[], bool]) -> dict[tuple[str, str], Callable[..., object]]:
    """The routes of the app and, where it leaves that path free, `health_path`."""
    functions = dict(app.routes)
    if config.health_path:
        functions.setdefault((config.health_path, "GET"), partial(health, is_draining))
    return functions


def health(is_draining: Callable[[], bool]) -> Response:
    headers = [("Cache-Control", "no-store")]
    return Response("draining\n", TEXT, 503, headers) if is_draining() else Response("ok\n", TEXT, 200, headers)
