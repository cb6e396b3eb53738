"""How connections end: the close codes of RFC 6455 and our vocabulary of causes.

A close *code* is what went over the wire; a *cause* is why the connection ended as we saw it.
Codes are few and peers lie about them; causes are ours, fixed, and counted for the operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_STATUS = 1005  # never sent: a Close frame without a code (section 7.1.5)
ABNORMAL = 1006  # never sent: no Close frame at all (section 7.1.5)
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012  # IANA registry
TRY_AGAIN_LATER = 1013  # IANA registry

MAX_REASON_BYTES = 123  # a control frame's 125 bytes less the code (section 5.5)

# Section 7.4 and the IANA registry: what an endpoint may put into a Close frame.
REGISTERED = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class Cause(StrEnum):
    """Why a connection ended. The order is part of the layout of the stats table: append only."""

    _value_: str
    help: str  #: one line for the reference

    def __new__(cls, value: str, help: str) -> Self:
        cause = str.__new__(cls, value)
        cause._value_, cause.help = value, help
        return cause

    PEER_CLOSED = "peer_closed", "the peer sent a Close frame first"
    APP_CLOSED = "app_closed", "the app called `close()`"
    APP_ABORTED = "app_aborted", "the app called `abort()`"
    PEER_RESET = "peer_reset", "the peer reset the TCP connection"
    PEER_EOF = "peer_eof", "the stream ended without a Close frame"
    NETWORK_ERROR = "network_error", "the kernel gave up on the peer (timeout, unreachable)"
    HEARTBEAT_LOST = "heartbeat_lost", "no sign of life in time after a Ping"
    IDLE = "idle", "no message for longer than the idle limit"
    HANDSHAKE_TIMEOUT = "handshake_timeout", "the request was not complete in time"
    HANDSHAKE_REFUSED = "handshake_refused", "the request was answered with an HTTP error"
    HTTP_ANSWERED = "http_answered", "a plain HTTP request was answered"
    PROTOCOL_ERROR = "protocol_error", "the peer broke RFC 6455 (1002)"
    INVALID_DATA = "invalid_data", "text that is not UTF-8 (1007)"
    MESSAGE_TOO_BIG = "message_too_big", "a message over the limit (1009)"
    SLOW_CONSUMER = "slow_consumer", "the output queue reached its limit (1013)"
    LIMIT = "limit", "the worker holds as many connections as it may"
    SHED = "shed", "refused under overload"
    DRAIN = "drain", "the server is stopping (1001)"
    HANDLER_ERROR = "handler_error", "a handler raised (1011)"
    EXPIRED = "expired", "what let the connection in has run out (1008)"
    RATE = "rate", "more messages or bytes a second than allowed (1008)"
    TLS_ERROR = "tls_error", "the TLS handshake or a TLS record failed"
    NOT_RESUMED = "not_resumed", "what a reload had to bring along for it was lost (1012)"


@dataclass(frozen=True, slots=True)
class Close:
    """How one connection ended; given to `on_close`.

    code: the peer's close code; ours where we closed first; 1005 or 1006 where there was none.
    reason: text of the Close frame, at most 123 bytes as UTF-8.
    cause: why, in our own words.
    clean: whether both sides sent a Close frame (section 7.1.4)."""

    code: int
    reason: str
    cause: Cause
    clean: bool


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may carry `code`, from either side (section 7.4)."""
    return code in REGISTERED or 3000 <= code <= 4999


def pack_close(code: int, reason: str = "") -> bytes:
    """The payload of a Close frame (section 5.5.1).

    Raises ValueError for a code that may not be sent or a reason over 123 bytes."""
    if not may_be_sent(code):
        raise ValueError(f"close code {code} may not be sent; use 1000-1003, 1007-1014 or 3000-4999")
    payload = reason.encode()
    if len(payload) > MAX_REASON_BYTES:
        raise ValueError(f"close reason of {len(payload)} bytes; the limit is {MAX_REASON_BYTES}")
    return code.to_bytes(2, "big") + payload
