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
    from unlimitedws.config import Config
    from unlimitedws.connection import Connection
    from unlimitedws.errors import (
        AppError,
        AppImportFailed,
        AppInvalid,
        AppNotFound,
        BadValue,
        ConfigError,
        EngineUnavailable,
        ListenError,
        PlatformUnsupported,
        StartFailed,
        UnknownSetting,
        UnlimitedwsError,
    )
    from unlimitedws.handlers import Handlers, blocking
    from unlimitedws.pages import Page
    from unlimitedws.server import Server
    from unlimitedws.supervisor import Supervisor
    from unlimitedws.wire.closing import Cause, Close
    from unlimitedws.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "AppError",
    "AppImportFailed",
    "AppInvalid",
    "AppNotFound",
    "BadValue",
    "Cause",
    "Close",
    "Config",
    "ConfigError",
    "Connection",
    "EngineUnavailable",
    "Handlers",
    "ListenError",
    "Page",
    "PlatformUnsupported",
    "Server",
    "StartFailed",
    "Supervisor",
    "UnknownSetting",
    "UnlimitedwsError",
    "Worker",
    "__version__",
    "blocking",
]

HOMES = {
    "Cause": "wire.closing",
    "Close": "wire.closing",
    "Config": "config",
    "Connection": "connection",
    "Handlers": "handlers",
    "Page": "pages",
    "Server": "server",
    "Supervisor": "supervisor",
    "Worker": "worker",
    "blocking": "handlers",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unlimitedws' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"unlimitedws.{HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
