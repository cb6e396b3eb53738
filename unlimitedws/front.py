"""What an engine asks of its worker: where a path leads, what to answer a request, what to log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from unlimitedws import access
from unlimitedws.access import shown
from unlimitedws.admission import Admission
from unlimitedws.app import App
from unlimitedws.config import Config
from unlimitedws.dispatch import Dispatch
from unlimitedws.engine.contract import Endpoint, Pipe, Refusal, Stream, Upgrade
from unlimitedws.expiry import Expiry
from unlimitedws.gate import Gate
from unlimitedws.headers import header_lines
from unlimitedws.http.site import Site
from unlimitedws.logs import PATH_CHARACTERS, clean
from unlimitedws.proxies import Proxies
from unlimitedws.request import Request
from unlimitedws.turns import Turns
from unlimitedws.wire import handshake
from unlimitedws.wire.address import Address
from unlimitedws.wire.closing import Close
from unlimitedws.wire.handshake import Asked, Plain, refusal

log = logging.getLogger("unlimitedws.worker")
handlers_log = logging.getLogger("unlimitedws.handlers")

Answer = TypeVar("Answer", bound=Upgrade | Refusal | Stream)

BROKEN = refusal(500, "the server failed; its log says why")


class Front:
    """`contract.Front` for one app.

    work: what runs the app's coroutines and blocking calls.  gate: who judges connections and handshakes.
    draining: set when the worker accepts no more, which `health_path` tells.  nobody: the number of an endpoint without hooks,
    for connections that another worker had and this one's app has no path for."""

    def __init__(self, app: App, config: Config, work: Dispatch, gate: Gate, expiry: Expiry) -> None:
        self._app = app
        self._gate = gate
        self._expiry = expiry
        self._proxies = Proxies(config)
        self.endpoints: Sequence[Endpoint] = (*work.endpoints, Endpoint())
        self.nobody = len(work.endpoints)
        self.draining = False
        self._deflates = config.deflate
        self._logs_access = config.access_log
        turns = Turns(config.handshakes_deciding)
        self._admissions = [Admission(handlers, config, work, turns, gate) for handlers in app.endpoints]
        self._site = Site(app, config, work, self._is_draining)
        for endpoint, admission in zip(work.endpoints, self._admissions, strict=True):
            endpoint.guarded = admission.hook is not None or bool(self._proxies.header) or config.deflate

    # ---- requests

    def route(self, target: bytes) -> tuple[str, int] | None:
        """See `contract.Front.route`."""
        try:
            path = handshake.percent_decode(target)
        except handshake.BadTarget:
            return None
        endpoint = self._app.endpoint_of(path)
        return None if endpoint is None else (path, endpoint)

    def answer(self, head: bytes, pipe: Pipe) -> Upgrade | Refusal | Stream:
        """See `contract.Front.answer`."""
        try:
            found = handshake.examine(head, route=self.route)
            if isinstance(found, Asked):
                return self._decide(head, found, pipe)
            if isinstance(found, Plain):
                origin = self._proxies.origin(head, pipe.remote_address)
                return self._told(head, origin.address, self._site.answer(head, found, origin))
            return self._told(head, pipe.remote_address, found)
        except Exception as error:
            return broken(error)

    def admit(self, head: bytes, key: bytes, path: str, endpoint: int, pipe: Pipe) -> Upgrade | Refusal | Stream:
        """See `contract.Front.admit`. The head was checked: nothing of it is parsed but what is asked for."""
        try:
            extensions = header_lines(head, b"sec-websocket-extensions") if self._deflates else ()
            return self._decide(head, Asked(key, path, endpoint, (), extensions), pipe)
        except Exception as error:
            return broken(error)

    def _decide(self, head: bytes, asked: Asked, pipe: Pipe) -> Upgrade | Refusal | Stream:
        peer: Address = pipe.remote_address
        client, scheme = self._proxies.origin(head, peer) if self._proxies.header else (peer, "")
        refused = self._gate.handshake(client)
        if refused is not None:
            return self._told(head, client, refused)
        request = Request(head, remote_address=client, tls=pipe.tls, path=asked.path, scheme=scheme or None)
        return self._told(head, client, self._admissions[asked.endpoint].decide(request, asked, peer))

    def _told(self, head: bytes, client: Address, answer: Answer) -> Answer:
        """`answer`, with its access line if it is a refusal: all others write theirs at their end."""
        if self._logs_access and isinstance(answer, Refusal):
            access.refused(head, client, answer)
        return answer

    # ---- connections

    @property
    def gate(self) -> Gate | None:
        """See `contract.Front.gate`."""
        return self._gate if self._gate.counts else None

    def preface(self, data: bytes, address: Address) -> tuple[int, Address | None] | None:
        """See `contract.Front.preface`."""
        return self._proxies.preface(data, address)

    def expires(self, connection: Any, expires_at: float) -> None:
        """See `contract.Front.expires`."""
        self._expiry.set(connection, expires_at)

    def ended(self, connection: Any, close: Close, bytes_in: int, bytes_out: int, seconds: float) -> None:
        """See `contract.Front.ended`."""
        access.websocket_ended(connection, close, bytes_in, bytes_out, seconds)

    def _is_draining(self) -> bool:
        return self.draining

    # ---- what is told

    def stream_failed(self, error: BaseException) -> None:
        log.error("a request failed in the server itself; its connection is cut", exc_info=error)

    def handler_failed(self, connection: Any, hook: str, error: BaseException) -> None:
        handlers_log.error(
            "%s of connection %s on %s from %s failed%s",
            hook, connection.id, clean(connection.path[:PATH_CHARACTERS]), shown(connection.remote_address),
            "" if hook == "on_close" else "; it is closed with 1011", exc_info=error,
        )  # fmt: skip

    def accepting_paused(self, why: str) -> None:
        log.warning("accepting is paused: %s; raise the limit of open files (ulimit -n) or run more workers", why)


def broken(error: Exception) -> Refusal:
    log.error("a request failed in the server itself; it is answered with 500", exc_info=error)
    return BROKEN
