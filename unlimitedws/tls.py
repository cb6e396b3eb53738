"""TLS: contexts made from the files of the settings, and made again when the files change.

Certificates are renewed every few weeks and connections live for months, so a running server takes new files by
itself: it looks at them now and then, when a client comes. What cannot be used is logged and changes nothing.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from unlimitedws.config import Config
from unlimitedws.errors import BadCertificate
from unlimitedws.wire.x509 import dns_names, not_after

log = logging.getLogger("unlimitedws.worker")

LOOK_EVERY_S = 10.0
"""How long a renewed certificate may go unnoticed. To look is one stat(2) for each file."""

PROTOCOLS = ["http/1.1"]
"""For ALPN (RFC 7301). A WebSocket over HTTP/2 (RFC 8441) is another protocol."""

TICKETS = 1
"""Session tickets after a handshake, 200 to 300 bytes each: a client that comes back uses one."""

FULL_CHAIN, PRIVATE_KEY = "fullchain.pem", "privkey.pem"  # as certbot names them
VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
REASONS = {
    "KEY_VALUES_MISMATCH": "its key is not the certificate's",
    "BAD_DECRYPT": "its key has another password than keyfile_password_file says",
    "EE_KEY_TOO_SMALL": "its key is too short for OpenSSL here; RSA takes 2048 bits at least",
}

Stamp = tuple[int, int, int]
"""When a file was written, its size and its inode: of a symbolic link, those of what it leads to."""


class Pair(NamedTuple):
    """A certificate with its chain, and its key: two files, or the same one."""

    certificate: str
    key: str


class Entry(NamedTuple):
    """What was made from a pair, and from what its files were then."""

    stamps: list[Stamp | None]
    context: ssl.SSLContext
    names: list[str]
    ends: datetime


class Certificates:
    """The certificates of one worker. Raises BadCertificate when made, where a file cannot be used.

    clock: gives seconds; files are looked at again `LOOK_EVERY_S` after the last time."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._default = Pair(config.certfile, config.keyfile or config.certfile)
        self._entries: dict[Pair, Entry] = {}
        pairs = self._pairs()
        self._seen = self._look(pairs)
        for pair in pairs:
            self._entries[pair] = self._made(pair)
        self._learn_names()
        self._due = clock() + LOOK_EVERY_S

    def context(self) -> ssl.SSLContext:
        """The context for the next connection: what `Engine.listen` takes as `tls`."""
        if (now := self._clock()) >= self._due:
            self._due = now + LOOK_EVERY_S
            self._renew()
        return self._entries[self._default].context

    def tell_expired(self) -> None:
        """Logs which of them clients refuse by now."""
        for pair, entry in self._entries.items():
            tell_expired(pair, entry)

    # ---- renewal

    def _renew(self) -> None:
        """Makes new contexts for what has changed. The old ones live on in their connections."""
        try:
            pairs = self._pairs()
        except BadCertificate:  # the folder is gone: so are the files of its pairs, which is told below
            pairs = list(self._entries)
        if (seen := self._look(pairs)) == self._seen:
            return
        self._seen = seen
        entries = {pair: entry for pair in pairs if (entry := self._renewed(pair)) is not None}
        self._entries = {self._default: self._entries[self._default], **entries}
        self._learn_names()

    def _renewed(self, pair: Pair) -> Entry | None:
        before = self._entries.get(pair)
        if before is not None and before.stamps == stamps(self._files(pair)):
            return before
        try:
            made = self._made(pair)
        except BadCertificate as error:
            log.error("%s; %s", error, "the certificate from before stays in use" if before else "it is not used")
            return before
        log.info("the certificate %s was read again", pair.certificate)
        tell_expired(pair, made)
        return made

    def _look(self, pairs: Iterable[Pair]) -> dict[str, Stamp | None]:
        files = [file for pair in pairs for file in self._files(pair)]
        return dict(zip(files, stamps(files), strict=True))

    def _pairs(self) -> list[Pair]:
        return [self._default, *pairs_in(self._config.sni_dir)]

    def _files(self, pair: Pair) -> list[str]:
        """The files that a context is made from."""
        return [file for file in (*pair, self._config.keyfile_password_file, self._config.client_ca) if file]

    def _made(self, pair: Pair) -> Entry:
        before = stamps(self._files(pair))  # before they are read: what is written meanwhile is noticed next time
        context = server_context(self._config, pair)
        if pair == self._default:
            context.sni_callback = self._choose
        first = first_of(pair.certificate)
        return Entry(before, context, dns_names(first), not_after(first))

    # ---- choice

    def _learn_names(self) -> None:
        self._by_name: dict[str, ssl.SSLContext] = {}
        for entry in self._entries.values():
            for name in entry.names:
                self._by_name.setdefault(name, entry.context)

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        """Called in a handshake with the host name that the client wants (RFC 6066, section 3).

        The name is kept as `server_name`, since Python does not tell it afterwards."""
        connection.server_name = name  # type: ignore[union-attr]
        if name and (context := self._context_for(name.lower().rstrip("."))) is not None:
            connection.context = context

    def _context_for(self, name: str) -> ssl.SSLContext | None:
        """An exact name comes before a wildcard, which stands for one label (RFC 9525, section 6.3)."""
        exact = self._by_name.get(name)
        return self._by_name.get("*." + name.partition(".")[2]) if exact is None else exact


def tell_expired(pair: Pair, entry: Entry) -> None:
    if entry.ends <= datetime.now(UTC):
        log.warning("the certificate %s ended on %s: clients refuse it; renew it", pair.certificate, entry.ends.isoformat(" "))


def pairs_in(folder: str) -> Iterator[Pair]:
    """Every pair of a folder: NAME.pem, and NAME/fullchain.pem with NAME/privkey.pem. Raises BadCertificate."""
    if not folder:
        return
    try:
        found = sorted(os.scandir(folder), key=lambda each: each.name)
    except OSError as error:
        raise BadCertificate(folder, error.strerror or str(error)) from None
    for each in found:
        if each.name.endswith(".pem"):
            yield Pair(each.path, each.path)
        elif os.path.exists(chain := os.path.join(each.path, FULL_CHAIN)):
            yield Pair(chain, os.path.join(each.path, PRIVATE_KEY))


def stamps(files: Iterable[str]) -> list[Stamp | None]:
    """Of each file; None where it is not there, as in the middle of a renewal."""
    return [stamp(file) for file in files]


def stamp(file: str) -> Stamp | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def server_context(config: Config, pair: Pair) -> ssl.SSLContext:
    """A context for one certificate: TLS 1.2 at least. Raises BadCertificate.

    Its buffers are given back while a connection is idle: CPython sets SSL_MODE_RELEASE_BUFFERS by itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A renegotiation costs us a handshake and the client a few bytes; TLS 1.3 has none.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = TICKETS
    context.set_alpn_protocols(PROTOCOLS)
    load_pair(context, pair, config.keyfile_password_file)
    if config.client_certs != "none":
        pem(config.client_ca, "CERTIFICATE")
        try:
            context.load_verify_locations(cafile=config.client_ca)
        except ssl.SSLError as error:
            raise refused(config.client_ca, error) from None
        context.verify_mode = VERIFY[config.client_certs]
    return context


def load_pair(context: ssl.SSLContext, pair: Pair, password_file: str) -> None:
    pem(pair.certificate, "CERTIFICATE")
    pem(pair.key, "PRIVATE KEY")

    is_asked = False

    def password() -> str:
        # Asked for a key with a password only. Without this, OpenSSL would ask on the terminal.
        nonlocal is_asked
        is_asked = True
        if not password_file:
            raise BadCertificate(pair.key, "its key has a password; name a file with it as keyfile_password_file")
        return read(password_file).partition("\n")[0].rstrip("\r")

    try:
        context.load_cert_chain(pair.certificate, pair.key, password)
    except ssl.SSLError as error:
        if error.reason:
            raise refused(pair.key, error) from None
        first_of(pair.certificate)  # no reason is given where a file cannot be read: this one?
        why = REASONS["BAD_DECRYPT"] + ", or it is damaged" if is_asked else "its key is damaged"
        raise BadCertificate(pair.key, why) from None
    except (OSError, ValueError) as error:  # a password longer than OpenSSL takes is a ValueError
        raise BadCertificate(pair.key, str(error)) from None


def refused(file: str, error: ssl.SSLError) -> BadCertificate:
    if error.reason is None:  # what OpenSSL 3 says of a PEM file that it cannot read
        return BadCertificate(file, "it is damaged")
    return BadCertificate(file, REASONS.get(error.reason, f"OpenSSL says {error.reason}"))


def pem(file: str, kind: str) -> str:
    """The text of a PEM file, in which there must be something of this kind. Raises BadCertificate."""
    text = read(file)
    if f"{kind}-----" not in text:
        raise BadCertificate(file, f"there is no {kind.lower()} in it; it must be PEM text (-----BEGIN {kind}-----)")
    return text


def read(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read()
    except OSError as error:
        raise BadCertificate(file, error.strerror or str(error)) from None


def first_of(file: str) -> bytes:
    """The DER of the first certificate in a PEM file. Raises BadCertificate where it is damaged."""
    begin, end = ssl.PEM_HEADER, ssl.PEM_FOOTER
    first = pem(file, "CERTIFICATE").partition(begin)[2].partition(end)[0]
    try:
        der = ssl.PEM_cert_to_DER_cert(f"{begin}{first}{end}")
        not_after(der)
        dns_names(der)
    except ValueError as error:
        raise BadCertificate(file, f"its certificate is damaged: {error}") from None
    return der
