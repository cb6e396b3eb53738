"""What an engine asks of its worker: where a path leads, what to answer a request, what to log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from unlimitedws.app import App
from unlimitedws.engine.contract import Endpoint, Refusal, Upgrade
from unlimitedws.handlers import name_of
from unlimitedws.pages import Page, pack_page, page_of
from unlimitedws.wire import handshake
from unlimitedws.wire.head import Head

log = logging.getLogger("unlimitedws.worker")
handlers_log = logging.getLogger("unlimitedws.handlers")


class Front:
    """`contract.Front` for one app."""

    def __init__(self, app: App, endpoints: Sequence[Endpoint]) -> None:
        self._app = app
        self._endpoints = endpoints

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return self._endpoints

    def route(self, target: bytes) -> tuple[str, int] | None:
        """See `contract.Front.route`."""
        path = decoded(target)
        endpoint = None if path is None else self._app.endpoint_of(path)
        return None if path is None or endpoint is None else (path, endpoint)

    def answer(self, head: bytes) -> Upgrade | Refusal:
        """See `contract.Front.answer`."""
        return handshake.answer(head, route=self.route, subprotocols=self._subprotocols, page=self._page)

    def _subprotocols(self, endpoint: int) -> Sequence[str]:
        return self._app.endpoints[endpoint].subprotocols

    def _page(self, head: Head) -> bytes | None:
        """The response of the app's page for a GET or HEAD; None: the app has no such page."""
        if head.method not in (b"GET", b"HEAD"):
            return None
        path = decoded(handshake.path_bytes(head.target))
        function = None if path is None else self._app.pages.get(path)
        if function is None:
            return None
        method = head.method.decode()
        try:
            return pack_page(page_of(function()), method=method)
        except Exception:
            handlers_log.exception("the page %s (%s) failed", path, name_of(function))
            return pack_page(Page("The page failed; the server's log says why.\n", "text/plain; charset=utf-8", 500), method=method)

    def handler_failed(self, connection: Any, hook: str, error: BaseException) -> None:
        handlers_log.error(
            "%s of connection %s on %s from %s failed%s",
            hook, connection.id, connection.path, connection.remote_address,
            "" if hook == "on_close" else "; it is closed with 1011", exc_info=error,
        )  # fmt: skip

    def accepting_paused(self, why: str) -> None:
        log.warning("accepting is paused: %s; raise the limit of open files (ulimit -n) or run more workers", why)


def decoded(target: bytes) -> str | None:
    """The path of a target without its query, percent-decoded; None where that cannot be done."""
    try:
        return handshake.percent_decode(target)
    except handshake.BadTarget:
        return None
