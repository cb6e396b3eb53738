"""Lets in who shows a JSON Web Token (RFC 7519) that an issuer we trust has signed. Needs the extra `unlimitedws[jwt]`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from unlimitedws.checks.bearer import SUBPROTOCOL_PREFIX, finder
from unlimitedws.checks.keys import KeyFile, Keys, OneKey, checked_algorithms, load_algorithms
from unlimitedws.errors import TokenInvalid
from unlimitedws.request import Request
from unlimitedws.verdict import Accept, Reject
from unlimitedws.wire.header import quoted

TOKEN_BYTES = 16 * 1024
"""The longest token that is looked at; a message with a new one may be longer than a head."""

FOREVER = 253402300799
"""The end of the year 9999, in unix seconds: an exp beyond it is this."""

NO_TOKEN = Reject(401, "a token is needed\n", {"WWW-Authenticate": "Bearer"})
"""RFC 6750, section 3.1: who shows no token at all is told no error code."""


class JWT:
    """A check that verifies a token; its claims become `conn.state`, and its exp ends the connection.

    key: the shared secret for HS256 and its like, else the public key (PEM, or an object of `cryptography`).  jwks_file: a
    file with several keys (RFC 7517), found by the token's kid; read again when it changes. One of both.
    algorithms: those that are accepted; they must fit the key.  audience, issuer: what aud and iss must be; audience None
    takes only tokens without aud.  leeway_s: by how much clocks may differ, and a token outlive its exp.  require:
    claims that must be there.  sources: where to look (`checks.bearer`), the first that has a token decides.
    subprotocol_prefix: what the subprotocol that carries a token begins with. It is never the one that is agreed on:
    give `Handlers.subprotocols`, and let clients offer one of them too, as browsers want an answer to their offer.

    Without a valid token: 401 (RFC 6750, section 3). Raises ValueError, OSError, or ExtraMissing without PyJWT."""

    def __init__(
        self,
        key: Any = None,
        *,
        jwks_file: str | os.PathLike[str] | None = None,
        algorithms: Sequence[str],
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway_s: float = 0.0,
        require: Sequence[str] = ("exp",),
        sources: Sequence[str] = ("header", "subprotocol"),
        subprotocol_prefix: str = SUBPROTOCOL_PREFIX,
    ) -> None:
        load_algorithms()
        if (key is None) == (jwks_file is None):
            raise ValueError("checks.jwt takes one of key and jwks_file")
        if not 0 <= leeway_s <= MOST_LEEWAY_S:
            raise ValueError(f"leeway_s is for clocks that differ: 0 to {MOST_LEEWAY_S} seconds, not {leeway_s!r}")
        known = checked_algorithms(algorithms)
        self._keys: Keys = OneKey(key, known) if jwks_file is None else KeyFile(jwks_file, known)
        self._audience, self._issuer, self._leeway_s = audience, issuer, leeway_s
        self._require = checked_claims(require)
        self._find = finder(sources, subprotocol_prefix)

    def __call__(self, request: Request) -> Accept | Reject:
        token = self._find(request)
        if token is None:
            return NO_TOKEN
        try:
            claims = self.verify(token)
        except TokenInvalid as error:
            return refusal(error)
        return Accept(state=claims, expires_at=self.expires_at(claims))

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token, whoever brought it: for a renewed one that comes as a message. Raises TokenInvalid.

        Whether it is the same user's (`claims["sub"]`) is the caller's to compare."""
        import jwt

        key, algorithm = self._key_of(token)
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=[algorithm], audience=self._audience, issuer=self._issuer, leeway=self._leeway_s,
                options={"require": self._require},
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise TokenInvalid(fault(error)) from None
        return claims

    def expires_at(self, claims: dict[str, Any]) -> float | None:
        """The unix time at which a connection let in on these claims ends: exp and the leeway. None: they have no exp."""
        return min(int(claims["exp"]), FOREVER) + self._leeway_s if "exp" in claims else None

    def _key_of(self, token: str) -> tuple[Any, str]:
        """The key for a token, and the algorithm that it names. Raises TokenInvalid."""
        import jwt

        if not isinstance(token, str) or not token.isascii() or len(token) > TOKEN_BYTES:
            raise TokenInvalid(MALFORMED)
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise TokenInvalid(fault(error)) from None
        kid, algorithm = header.get("kid"), header.get("alg")
        if "crit" in header:  # RFC 7515, section 4.1.11: extensions that must be understood; we know none
            raise TokenInvalid(MALFORMED)
        key = self._keys.find(kid, algorithm) if isinstance(algorithm, str) else None
        if key is None:
            raise TokenInvalid("is signed with a key or algorithm that is not accepted")
        return key, str(algorithm)


MOST_LEEWAY_S = 3600
MALFORMED = "is malformed"
FAULTS = {
    "ExpiredSignatureError": "has expired",
    "ImmatureSignatureError": "is not valid yet",
    "InvalidSignatureError": "has a wrong signature",
    "InvalidAudienceError": "is for another audience",
    "InvalidIssuerError": "is from another issuer",
}


def checked_claims(names: Sequence[str]) -> list[str]:
    """Raises ValueError for what cannot be named in an answer."""
    if isinstance(names, str):
        raise ValueError(f'require is a sequence of claims; write require=("{names}",)')
    for name in names:
        quoted(name)
    return list(names)


def fault(error: Exception) -> str:
    """What is wrong with a token, after "the token"; never a part of it."""
    if type(error).__name__ == "MissingRequiredClaimError":
        return f"lacks the claim {getattr(error, 'claim', '')}"
    return FAULTS.get(type(error).__name__, MALFORMED)


def refusal(error: TokenInvalid) -> Reject:
    challenge = f'Bearer error="invalid_token", error_description={quoted(str(error))}'
    return Reject(401, f"{error}\n", {"WWW-Authenticate": challenge})
