"""Basic authentication (RFC 7617): a user name and a password in the Authorization header. Only over TLS."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from unlimitedws.checks.composing import Check
from unlimitedws.functions import blocking, check_callable, kind_of, name_of
from unlimitedws.request import Request
from unlimitedws.verdict import Accept, Reject
from unlimitedws.wire.header import quoted

Verify = Callable[[str, str], Any]
"""User name, password -> True or False; plain, async or blocking."""


def basic_auth(verify: Mapping[str, str] | Verify, *, realm: str = "websocket") -> Check:
    """Lets in whom `verify` knows; the user name becomes `conn.state`. 401 for the others.

    verify: user names with their passwords, compared in constant time; or a function of both that returns True or
    False. Where passwords are hashed on purpose slowly, mark it `@blocking`; the check is then blocking as well.
    realm: what the client is told it signs in to.

    Raises AppInvalid or ValueError for what cannot verify anybody."""
    call = known_users(verify) if isinstance(verify, Mapping) else verify
    check_callable("verify of basic_auth", call, ("user", "password"))
    challenge = f'Basic realm={quoted(realm)}, charset="UTF-8"'
    refused = Reject(401, "a user name and its password are needed\n", {"WWW-Authenticate": challenge})

    def check_user(request: Request) -> Accept | Reject:
        given = credentials(request)
        return Accept(state=given[0]) if given and is_true(call, call(*given)) else refused

    async def check_user_async(request: Request) -> Accept | Reject:
        given = credentials(request)
        return Accept(state=given[0]) if given and is_true(call, await call(*given)) else refused

    kind = kind_of(call)
    if kind == "async":
        return check_user_async
    return blocking(check_user) if kind == "blocking" else check_user


def known_users(users: Mapping[str, str]) -> Verify:
    """A function that knows these users. Takes as long for an unknown one as for a wrong password."""
    if not users:
        raise ValueError("basic_auth knows no user; give it names with their passwords, or a function")
    for user, password in users.items():
        if not isinstance(user, str) or not isinstance(password, str) or not password or ":" in user:
            raise ValueError("basic_auth takes str to str: user names without a colon, passwords that are not empty")
    digests = {user: digest(password) for user, password in users.items()}
    nobody = digest("")

    def verify(user: str, password: str) -> bool:
        same = hmac.compare_digest(digest(password), digests.get(user, nobody))
        return same and user in digests

    return verify


def digest(password: str) -> bytes:
    """Of one length for all, so that comparing does not tell how long a password is."""
    return hashlib.sha256(password.encode()).digest()


def credentials(request: Request) -> tuple[str, str] | None:
    """User name and password of a request that has one Authorization header of Basic; else None."""
    lines = request.headers.get_all("authorization")
    scheme, _, encoded = lines[0].partition(" ") if len(lines) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(" "), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):  # the latter: not UTF-8, not ASCII
        return None
    return (user, password) if colon else None


def is_true(verify: Verify, answer: Any) -> bool:
    """Whether `answer` is True. Raises TypeError unless it is a bool: a coroutine that nobody awaits is true as well."""
    if not isinstance(answer, bool):
        if hasattr(answer, "close"):
            answer.close()
        raise TypeError(f"{name_of(verify)} returned {type(answer).__name__}; it must return True or False")
    return answer
