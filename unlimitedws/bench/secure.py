"""The client's end of TLS, for wss:// servers."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial

from unlimitedws.bench.options import Options
from unlimitedws.bench.target import Target
from unlimitedws.engine.tls import Tls
from unlimitedws.errors import BenchError


class ClientTls(Tls):
    """One connection's TLS. `begin` comes first, the rest is as of a server's."""

    __slots__ = ()

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        super().__init__(lambda: context)
        self._context = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    def begin(self) -> bytes:
        """What a client says first."""
        self._read([])
        return self.take()


def context(options: Options) -> ssl.SSLContext:
    """What this client trusts: the system's authorities, those of --cafile instead, or anybody. Raises BenchError."""
    try:
        made = ssl.create_default_context(cafile=options.cafile or None)
    except OSError as error:  # ssl.SSLError is one
        raise BenchError(f"--cafile {options.cafile}: {error.strerror or error}; it is a file of certificates (PEM)") from None
    if options.insecure:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def maker(context: ssl.SSLContext | None, target: Target) -> Callable[[], ClientTls] | None:
    """Gives new connections their TLS; None where the server is spoken to without."""
    return partial(ClientTls, context, target.name) if context else None
