"""A raw client that speaks TLS: a Peer whose bytes go through an SSLObject of its own."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

import trustme

from tests.engine.driver import Driver
from tests.peer import Peer


class Authority:
    """Who signs the certificates of one test run; made once, since keys take their time."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.certificate = self.authority.issue_cert("localhost", "127.0.0.1")

    def server(self, **options: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.certificate.configure_cert(context)
        for name, value in options.items():
            setattr(context, name, value)
        return context

    def client(self, **options: Any) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        for name, value in options.items():
            setattr(context, name, value)
        return context


class TlsPeer(Peer):
    """`say` and `read` as ever; `shake` first."""

    def __init__(self, plain: Peer, context: ssl.SSLContext) -> None:
        super().__init__(plain.socket)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.is_up = False
        self.got_notify = False
        self.alert: ssl.SSLError | None = None
        self.ciphertext = 0  #: bytes received

    def flush(self) -> None:
        if data := self.outgoing.read():
            self.socket.sendall(data)

    def say(self, data: bytes) -> None:
        self.object.write(data)
        self.flush()

    def seal(self, data: bytes) -> bytes:
        """The ciphertext of what would be said."""
        self.object.write(data)
        return self.outgoing.read()

    def notify(self) -> None:
        """Says close_notify."""
        with suppress(ssl.SSLError):
            self.object.unwrap()
        self.flush()

    def read(self, at_most: int = 1 << 16) -> bool:
        try:
            data = self.socket.recv(at_most)
        except BlockingIOError:
            return False
        except OSError:
            self.ended = self.ended or "reset"
            return False
        if not data:
            self.ended = self.ended or "eof"
            return False
        self.ciphertext += len(data)
        self.incoming.write(data)
        self.take()
        return True

    def take(self) -> None:
        try:
            if not self.is_up:
                self.object.do_handshake()
                self.is_up = True
            while data := self.object.read(1 << 16):
                self.received += data
            self.got_notify = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.got_notify = True
        except ssl.SSLError as error:
            self.alert = error
        self.flush()
        self._sort()

    def shake(self, driver: Driver) -> TlsPeer:
        """Does the handshake."""
        self.take()
        driver.until(lambda: self.is_up or self.ended)
        return self


def dial_tls(driver: Driver, context: ssl.SSLContext, **options: Any) -> TlsPeer:
    """A client of the driver's first listener, its handshake not begun."""
    plain = driver.dial(**options)
    peer = TlsPeer(plain, context)
    driver.peers[driver.peers.index(plain)] = peer
    return peer
