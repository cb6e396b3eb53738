"""Cookies that only this server can have written: their value is readable to the client, not changeable.

    name = j.<value as JSON, base64url>.<time of signing, unix seconds>.<HMAC-SHA256, base64url>

The standard library's hmac, not itsdangerous: it is these few lines, the key is bound to the cookie's name without
the caller's doing, and there is no dependency at run time.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from collections.abc import Sequence
from typing import Any

from unlimitedws.cookies import Cookie
from unlimitedws.request import Request

KEY_BYTES = 16
"""The least a key may have: 128 bits, where they are random."""

DAY_S = 24 * 60 * 60


class SignedCookies:
    """Sets and verifies one signed cookie.

    keys: secrets of at least 16 bytes (`secrets.token_hex(32)`), the newest first: it signs, all of them verify. To change
    the key, put a new one in front and take the old one off `max_age_s` later.  max_age_s: seconds that a value holds,
    for the browser and for `verify`.  salt: keeps apart what has the same keys and the same name.  The rest is as in `Cookie`.

    Raises ValueError where a key is too short, or the cookie could not be set."""

    def __init__(
        self,
        keys: Sequence[str | bytes],
        *,
        name: str = "session",
        max_age_s: int = 14 * DAY_S,
        salt: str = "",
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        httponly: bool = True,
        samesite: str = "Lax",
    ) -> None:
        if type(max_age_s) is not int or max_age_s < 1:
            raise ValueError(f"max_age_s is a whole number of seconds from 1, not {max_age_s!r}")
        self._keys = [derived(key, name, salt) for key in checked_keys(keys)]
        self._empty = Cookie(name, "", max_age_s, path, domain, secure, httponly, samesite)

    @property
    def name(self) -> str:
        """Of the cookie."""
        return self._empty.name

    @property
    def max_age_s(self) -> int:
        """Seconds that a value holds."""
        return self._empty.max_age or 0

    def set(self, value: Any) -> Cookie:
        """The cookie that carries `value`: bytes, or what JSON can hold (a tuple comes back as a list).

        Raises TypeError for anything else, ValueError for what a browser would drop (over 4096 bytes)."""
        body = f"{packed(value)}.{int(time.time())}"
        signed = f"{body}.{signature(self._keys[0], body.encode())}"
        if len(self.name) + len(signed) > COOKIE_BYTES:
            raise ValueError(f"cookie {self.name} would be longer than {COOKIE_BYTES} bytes; keep the value here and set its key")
        return self._cookie(signed, self.max_age_s)

    def delete(self) -> Cookie:
        """The cookie that makes the browser forget it."""
        return self._cookie("", 0)

    def verify(self, request: Request) -> Any:
        """The value in the request's cookie; None: there is none, it was changed, or it is too old."""
        signed = request.cookies.get(self.name)
        return None if signed is None else self.value_of(signed)

    def value_of(self, signed: str) -> Any:
        """Like `verify`, for the text of the cookie."""
        return self.read(signed)[0]

    def read(self, signed: str) -> tuple[Any, float]:
        """Like `value_of`, and the unix time until which the value holds (0: there is none)."""
        body, _, theirs = signed.rpartition(".")
        packed_value, _, signed_at = body.rpartition(".")
        if not theirs.isascii() or not body.isascii() or not self._is_ours(body.encode(), theirs):
            return None, 0
        expires_at = int(signed_at) + self.max_age_s
        # No look at a time in the future: a server whose clock is fast made it, and it lives longer by that much.
        return (unpacked(packed_value), expires_at) if time.time() <= expires_at else (None, 0)

    def _is_ours(self, body: bytes, theirs: str) -> bool:
        return any(hmac.compare_digest(signature(key, body), theirs) for key in self._keys)

    def _cookie(self, value: str, max_age: int) -> Cookie:
        like = self._empty
        return Cookie(like.name, value, max_age, like.path, like.domain, like.secure, like.httponly, like.samesite)


COOKIE_BYTES = 4096
"""Name and value; the least that RFC 6265, section 6.1, asks of a browser is their most."""


def checked_keys(keys: Sequence[str | bytes]) -> list[bytes]:
    if isinstance(keys, str | bytes):
        raise TypeError("keys is a sequence, the newest key first; write keys=[key]")
    octets = [key.encode() if isinstance(key, str) else bytes(key) for key in keys]
    if not octets or min(map(len, octets)) < KEY_BYTES:
        raise ValueError(
            f"signed cookies need at least one key, each of {KEY_BYTES} bytes or more; "
            "make one: python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return octets


def derived(key: bytes, name: str, salt: str) -> bytes:
    """The key of this cookie alone, so that its value means nothing under another name."""
    return hmac.digest(key, b"unlimitedws signed cookie\0" + name.encode() + b"\0" + salt.encode(), "sha256")


def signature(key: bytes, body: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, body, "sha256")).rstrip(b"=").decode()


def packed(value: Any) -> str:
    kind, octets = ("b", value) if isinstance(value, bytes) else ("j", as_json(value))
    return f"{kind}.{base64.urlsafe_b64encode(octets).rstrip(b'=').decode()}"


def as_json(value: Any) -> bytes:
    if value is None:
        raise TypeError("a signed cookie cannot carry None, which is what verify gives where there is no cookie")
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def unpacked(text: str) -> Any:
    """The value in what we signed ourselves."""
    kind, _, encoded = text.partition(".")
    octets = binascii.a2b_base64(encoded.translate(TO_STANDARD) + "=" * (-len(encoded) % 4))
    return octets if kind == "b" else json.loads(octets)


TO_STANDARD = str.maketrans("-_", "+/")
