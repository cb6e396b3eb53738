"""unlimitedws: WebSocket servers in a few lines of Python, for as many connections as the kernel can hold.

    from unlimitedws import Handlers

    handlers = Handlers()

    @handlers.on_message
    def echo(conn, message):        # str for text, bytes for binary
        conn.send(message)

This is the front door; the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlimitedws import checks
    from unlimitedws.config import Config
    from unlimitedws.connection import Connection
    from unlimitedws.cookies import Cookie
    from unlimitedws.errors import (
        ActivationError,
        AppError,
        AppImportFailed,
        AppInvalid,
        AppNotFound,
        BadCertificate,
        BadValue,
        BenchError,
        ConfigError,
        EngineUnavailable,
        ExtraMissing,
        ListenError,
        OutOfResources,
        OutputFailed,
        PlatformUnsupported,
        ProcMissing,
        SocketFileError,
        StartFailed,
        TokenInvalid,
        TooFewFiles,
        UnknownSetting,
        UnlimitedwsError,
        UpgradeError,
    )
    from unlimitedws.functions import blocking
    from unlimitedws.handlers import Handlers
    from unlimitedws.http.request import HttpRequest
    from unlimitedws.http.response import Response
    from unlimitedws.request import Request
    from unlimitedws.server import Server
    from unlimitedws.signed_cookies import SignedCookies
    from unlimitedws.supervisor import Supervisor
    from unlimitedws.verdict import Accept, Reject
    from unlimitedws.wire.closing import Cause, Close
    from unlimitedws.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "Accept",
    "ActivationError",
    "AppError",
    "AppImportFailed",
    "AppInvalid",
    "AppNotFound",
    "BadCertificate",
    "BadValue",
    "BenchError",
    "Cause",
    "Close",
    "Config",
    "ConfigError",
    "Connection",
    "Cookie",
    "EngineUnavailable",
    "ExtraMissing",
    "Handlers",
    "HttpRequest",
    "ListenError",
    "OutOfResources",
    "OutputFailed",
    "PlatformUnsupported",
    "ProcMissing",
    "Reject",
    "Request",
    "Response",
    "Server",
    "SignedCookies",
    "SocketFileError",
    "StartFailed",
    "Supervisor",
    "TokenInvalid",
    "TooFewFiles",
    "UnknownSetting",
    "UnlimitedwsError",
    "UpgradeError",
    "Worker",
    "__version__",
    "blocking",
    "checks",
]

HOMES = {
    "Accept": "verdict",
    "Cause": "wire.closing",
    "Close": "wire.closing",
    "Config": "config",
    "Connection": "connection",
    "Cookie": "cookies",
    "Handlers": "handlers",
    "HttpRequest": "http.request",
    "Reject": "verdict",
    "Request": "request",
    "Response": "http.response",
    "Server": "server",
    "SignedCookies": "signed_cookies",
    "Supervisor": "supervisor",
    "Worker": "worker",
    "blocking": "functions",
}

MODULES = frozenset({"checks"})
"""Exported as they are."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unlimitedws' has no attribute {name!r}")
    home = importlib.import_module(f"unlimitedws.{name if name in MODULES else HOMES.get(name, 'errors')}")
    value = home if name in MODULES else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
