"""Who may come in: the on_upgrade hook of one endpoint, and the answer that its verdict becomes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from unlimitedws import access
from unlimitedws.access import shown
from unlimitedws.config import Config
from unlimitedws.deciding import Deciding
from unlimitedws.dispatch import Dispatch
from unlimitedws.engine.contract import Refusal, Stream, Upgrade
from unlimitedws.functions import kind_of, name_of
from unlimitedws.gate import Gate
from unlimitedws.handlers import Handlers
from unlimitedws.logs import PATH_CHARACTERS, clean
from unlimitedws.request import Request
from unlimitedws.turns import Turns
from unlimitedws.verdict import Accept, Reject
from unlimitedws.wire.address import Address
from unlimitedws.wire.closing import Cause
from unlimitedws.wire.deflate import Policy, Terms, negotiate
from unlimitedws.wire.handshake import Asked, choose, grant, refusal

log = logging.getLogger("unlimitedws.handlers")

FAILED = refusal(500, "the server failed; its log says why")


class Admission:
    """Decides on the handshakes of one endpoint, all checks of the protocol passed. Knows no socket.

    turns: how many slow hooks may run at once.  gate: knows whether the client of a proxy is
    one too many."""

    def __init__(self, handlers: Handlers, config: Config, work: Dispatch, turns: Turns, gate: Gate) -> None:
        self.hook = handlers.hook("on_upgrade")
        self._kind = kind_of(self.hook) if self.hook else "plain"
        self._subprotocols = handlers.subprotocols
        self._timeout_s = config.handshake_timeout_s
        self._work = work
        self._turns = turns
        self._gate = gate
        self._logs_access = config.access_log
        self._policy = Policy(config.deflate_window_bits, config.deflate_takeover) if config.deflate else None

    def decide(self, request: Request, asked: Asked, peer: Address) -> Upgrade | Refusal | Stream:
        """The answer to a handshake. Never raises. peer: the address of its connection, a proxy's perhaps."""
        if self._kind != "plain":
            return self._later(request, asked, peer)
        try:
            return self._answer(self.hook(request) if self.hook else None, asked, request.remote_address, peer)
        except KeyboardInterrupt:  # the program's
            raise
        except BaseException as error:  # a CancelledError or SystemExit would go through the loop of everybody else
            return self._failed(error, request)

    def _later(self, request: Request, asked: Asked, peer: Address) -> Deciding:
        hook: Any = self.hook
        threaded = self._kind == "blocking"
        call = partial(self._work.run, partial(hook, request)) if threaded else partial(hook, request)
        return Deciding(
            call, partial(self._conclude, request, asked, peer), work=self._work, turns=self._turns,
            timeout_s=self._timeout_s, cancels=not threaded,
            refused=partial(access.refused, request.head, request.remote_address) if self._logs_access else None,
        )  # fmt: skip

    def _conclude(self, request: Request, asked: Asked, peer: Address, verdict: Any, error: BaseException | None) -> Upgrade | Refusal:
        if error is not None:
            return self._failed(error, request)
        try:
            return self._answer(verdict, asked, request.remote_address, peer)
        except Exception as wrong:
            return self._failed(wrong, request)

    def _answer(self, verdict: Any, asked: Asked, client: Address, peer: Address) -> Upgrade | Refusal:
        """Raises ValueError or TypeError for a verdict that cannot be answered with."""
        deflate, lines = self._terms(asked.extensions, self._policy) if self._policy and asked.extensions else (None, b"")
        if verdict is None:
            upgrade = grant(asked, self._chosen(asked), lines, None, deflate)
        elif isinstance(verdict, Accept):
            subprotocol = self._subprotocol(verdict, asked)
            upgrade = grant(asked, subprotocol, lines + verdict.pack_headers(), verdict.state, deflate, verdict.expires_at)
        elif isinstance(verdict, Reject):
            return Refusal(verdict.pack(), Cause.HANDSHAKE_REFUSED)
        else:
            raise TypeError(f"on_upgrade returns None, Accept or Reject, not {described(verdict)}")
        if client is peer or client == peer:
            return upgrade
        return self._gate.crowded(client) or upgrade._replace(remote_address=client)

    def _terms(self, offers: Sequence[bytes], policy: Policy) -> tuple[Terms | None, bytes]:
        """The terms of compression, and the header line that tells of them."""
        agreed = negotiate(offers, policy)
        return (agreed[0], b"Sec-WebSocket-Extensions: %b\r\n" % agreed[1]) if agreed else (None, b"")

    def _chosen(self, asked: Asked) -> str | None:
        return choose(self._subprotocols, asked.subprotocols) if asked.subprotocols else None

    def _subprotocol(self, verdict: Accept, asked: Asked) -> str | None:
        chosen = verdict.subprotocol
        if chosen is None:
            return self._chosen(asked)
        if chosen.encode("ascii") not in asked.subprotocols:  # the client would fail the connection (section 4.1)
            raise ValueError(f"on_upgrade accepted with subprotocol {chosen!r}, which the client did not offer")
        return chosen

    def _failed(self, error: BaseException, request: Request) -> Refusal:
        log.error(
            "on_upgrade (%s) failed for %s from %s; it is answered with 500",
            name_of(self.hook), clean(request.path[:PATH_CHARACTERS]), shown(request.remote_address), exc_info=error,
        )  # fmt: skip
        return FAILED


def described(verdict: Any) -> str:
    if inspect.iscoroutine(verdict):
        verdict.close()  # else Python warns that nobody awaited it
        return "a coroutine; it is a plain function that calls an async one: make it async"
    return type(verdict).__name__
