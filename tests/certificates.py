"""Certificates for tests: an authority that lives as long as its test, and what it issued, as files."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Issues certificates into a folder. `pem` is the file with its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca = folder, trustme.CA()
        self.pem = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.pem)

    def issue(self, *names: str, into: Path | None = None) -> tuple[Path, Path]:
        """Certificate chain and key for these names, as two files of a folder of their own."""
        into = into or self.folder / names[0].replace("*", "_")
        into.mkdir(exist_ok=True, parents=True)
        made = self.ca.issue_cert(*names)
        chain, key = into / "fullchain.pem", into / "privkey.pem"
        chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return chain, key

    def bundle(self, *names: str, into: Path) -> Path:
        """The same as one file."""
        into.write_bytes(self.ca.issue_cert(*names).private_key_and_cert_chain_pem.bytes())
        return into

    def client_context(self, *names: str) -> ssl.SSLContext:
        """What a client uses that trusts this authority, with a certificate of its own where names are given."""
        context = ssl.create_default_context(cafile=str(self.pem))
        if names:
            context.load_cert_chain(self.bundle(*names, into=self.folder / "client.pem"))
        return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = "localhost") -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a connection in memory, (server's, client's). Raises ssl.SSLError where either end refuses."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname=name))
    done = [False, False]
    for _ in range(10):
        for i in (1, 0):
            try:
                ends[i].do_handshake()
                done[i] = True
            except ssl.SSLWantReadError:
                pass
        if all(done):
            ends[0].write(b"x")  # the client hears what the server thought of its certificate
            assert ends[1].read(1) == b"x"
            return ends
    raise AssertionError("the handshake does not end")


def names_in(end: ssl.SSLObject) -> list[str]:
    """The host names of the peer's certificate."""
    found = end.getpeercert() or {}
    return [str(name) for kind, name in found.get("subjectAltName", ()) if kind == "DNS"]  # type: ignore[misc]
