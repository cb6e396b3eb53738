from __future__ import annotations

import hashlib

from websockets.sync.client import connect

from tests.examples.conftest import Serve


def is_hash_of(answer: str | bytes, password: bytes) -> bool:
    _, salt, digest = str(answer).split("$")
    return hashlib.scrypt(password, salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=32).hex() == digest


def test_each_password_is_answered_in_order_while_others_are_served(serve: Serve) -> None:
    serving = serve("examples.blocking:handlers", "--workers", "1")
    with connect(serving.url, proxy=None) as first, connect(serving.url, proxy=None) as second:
        for number in range(4):
            first.send(f"password {number}")
        second.send(b"another")
        assert is_hash_of(second.recv(timeout=30), b"another")
        for number in range(4):
            assert is_hash_of(first.recv(timeout=30), f"password {number}".encode())
