"""The keys that tokens are verified with, and what each may be used for (RFC 7517, RFC 7518).

A token names its own algorithm, and who can choose it can cheat: a public RSA key taken for an HMAC secret lets
everybody sign. Therefore each key is bound, when it is read, to algorithms of its own kind.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from unlimitedws.errors import ExtraMissing

log = logging.getLogger("unlimitedws.checks")

LOOK_S = 1.0
"""How often a key file is looked at, at most."""

RSA_BITS = 2048
"""The least for an RSA key (RFC 7518, section 3.3)."""

HASH_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms with a secret; the least bytes it may have (RFC 7518, section 3.2)."""

CURVES = {"ES256": "secp256r1", "ES256K": "secp256k1", "ES384": "secp384r1", "ES512": "secp521r1"}

KINDS = {
    **dict.fromkeys(HASH_BYTES, "oct"),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(CURVES, "EC"),
    "EdDSA": "OKP",
}
"""Algorithm -> kind of key, in the words of `kty` (RFC 7518, section 6.1; RFC 8037)."""


class Key(NamedTuple):
    """A key ready for PyJWT. kid: its name in a key file; None: it has none."""

    kid: str | None
    algorithms: frozenset[str]
    key: Any


class Keys(Protocol):
    def find(self, kid: str | None, algorithm: str) -> Any:
        """The key for a token that names `kid` (None: none) and `algorithm`; None: there is no such key."""


class OneKey:
    """The same key for every token, whatever kid it names."""

    def __init__(self, key: Any, algorithms: Sequence[str]) -> None:
        kinds = {KINDS[name] for name in algorithms}
        if len(kinds) > 1:
            raise ValueError(f"one key cannot be for {', '.join(algorithms)}: they need different kinds of key")
        self._keys = {name: prepare(key, name) for name in algorithms}

    def find(self, kid: str | None, algorithm: str) -> Any:
        return self._keys.get(algorithm)


class KeyFile:
    """The keys of a JWKS file, which is read again when it has changed; looked at once a second at most, by need.

    A changed file that cannot be used changes nothing but the log. Raises ValueError or OSError for the first one."""

    def __init__(self, path: str | os.PathLike[str], algorithms: Sequence[str]) -> None:
        self.path = os.fspath(path)
        self._algorithms = frozenset(algorithms)
        self._stamp = stamp(self.path)
        self._keys = self._read()
        self._complaint = ""
        self._look_at = time.monotonic() + LOOK_S

    def find(self, kid: str | None, algorithm: str) -> Any:
        """A token without a kid is for the file's only key of that algorithm; where there are more, for none."""
        self._refresh()
        fitting = [key for key in self._keys if algorithm in key.algorithms and kid in (None, key.kid)]
        return fitting[0].key if len(fitting) == 1 else None

    def _refresh(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        try:
            if (found := stamp(self.path)) != self._stamp:
                self._stamp = found
                self._keys = self._read()
            self._complaint = ""
        except (OSError, ValueError) as error:
            if self._complaint != str(error):  # said once, not each second
                self._complaint = str(error)
                log.error("the keys read before stay in use: %s", error)

    def _read(self) -> list[Key]:
        with open(self.path, encoding="utf-8") as file:
            keys = parse_keys(file.read(), self.path)
        usable = [key for jwk in keys if (key := read_key(jwk, self._algorithms, self.path)) is not None]
        if not usable:
            raise ValueError(f"{self.path} has no key for {', '.join(sorted(self._algorithms))}")
        named = [key.kid for key in usable]
        if len(set(named)) < len(named):
            raise ValueError(f"{self.path} has two keys with one kid")
        return usable


def stamp(path: str) -> tuple[int, int, int]:
    """Changes when the file does."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino


def parse_keys(text: str, path: str) -> list[Any]:
    try:
        keys = json.loads(text)["keys"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ValueError(f'{path} is no JWKS: a JSON object with a list "keys" (RFC 7517, section 5)') from None
    if not isinstance(keys, list):
        raise ValueError(f'"keys" in {path} is no list')
    return keys


def read_key(jwk: Any, algorithms: frozenset[str], path: str) -> Key | None:
    """The key in a JWK; None for one that is meant for something else. Raises ValueError for a broken or a private one."""
    if not isinstance(jwk, Mapping) or jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ("verify",)):
        return None
    if jwk.get("kty") != "oct" and "d" in jwk:
        raise ValueError(f"{path} holds a private key; a verifier needs the public parts only, so keep the rest away from here")
    fitting = sorted(algorithms & algorithms_of(jwk))
    if not fitting:
        return None
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ValueError(f"a kid in {path} is not a string")
    try:
        prepared = [prepare(from_jwk(jwk, name), name) for name in fitting]  # the same for all
    except ValueError as error:
        raise ValueError(f"key {kid} in {path}: {error}") from None
    return Key(kid, frozenset(fitting), prepared[0])


def from_jwk(jwk: Mapping[str, Any], algorithm: str) -> Any:
    known = load_algorithms()
    try:
        return known[algorithm].from_jwk(json.dumps(jwk))
    except Exception as error:  # as in `prepare`
        raise ValueError(f"its parts make no key for {algorithm} ({type(error).__name__})") from None


def algorithms_of(jwk: Mapping[str, Any]) -> frozenset[str]:
    """The algorithms that a JWK is for: its own `alg`, or all of its kind (and curve)."""
    kind, curve, alg = jwk.get("kty"), jwk.get("crv"), jwk.get("alg")
    curves = {"P-256": "ES256", "secp256k1": "ES256K", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA", "Ed448": "EdDSA"}
    if kind in ("EC", "OKP"):
        fitting = {curves[curve]} & {name for name in KINDS if KINDS[name] == kind} if curve in curves else set()
    else:
        fitting = {name for name in KINDS if KINDS[name] == kind}
    return frozenset(fitting if alg is None else fitting & {alg})


def checked_algorithms(algorithms: Sequence[str]) -> tuple[str, ...]:
    """Raises ValueError unless all are known, and either all or none use a secret."""
    if isinstance(algorithms, str) or not algorithms:
        raise ValueError(f'algorithms is a sequence of names, such as ["RS256"]; not {algorithms!r}')
    for name in algorithms:
        if not isinstance(name, str) or name.lower() == "none":
            raise ValueError('the algorithm "none" would let everybody in')
        if name not in KINDS:
            raise ValueError(f"{name!r} is no algorithm that is known; there are {', '.join(KINDS)}")
    if len({KINDS[name] == "oct" for name in algorithms}) > 1:
        raise ValueError(f"{', '.join(algorithms)} mix a shared secret with public keys, which lets who knows a public key sign")
    return tuple(algorithms)


def prepare(key: Any, algorithm: str) -> Any:
    """`key` as PyJWT wants it for `algorithm`. Raises ValueError where it does not fit; the key is never shown."""
    known = load_algorithms()
    try:
        prepared = known[algorithm].prepare_key(key)
    except Exception as error:  # whatever PyJWT and cryptography say of it: they name no common error
        wanted = "a secret, no public key" if KINDS[algorithm] == "oct" else "a public key in PEM"
        raise ValueError(f"the key does not fit {algorithm}, which needs {wanted} ({type(error).__name__})") from None
    check_strength(prepared, algorithm)
    return prepared


def check_strength(key: Any, algorithm: str) -> None:
    if algorithm in HASH_BYTES:
        if len(key) < HASH_BYTES[algorithm]:
            raise ValueError(f"the secret for {algorithm} has {len(key)} bytes; it needs {HASH_BYTES[algorithm]} (RFC 7518, section 3.2)")
        return
    if hasattr(key, "private_bytes"):
        raise ValueError(f"the key for {algorithm} is a private one; give the public key, and leave the other to who signs")
    if KINDS[algorithm] == "RSA" and key.key_size < RSA_BITS:
        raise ValueError(f"the RSA key has {key.key_size} bits; it needs {RSA_BITS} (RFC 7518, section 3.3)")
    if algorithm in CURVES and key.curve.name != CURVES[algorithm]:
        raise ValueError(f"{algorithm} needs a key on curve {CURVES[algorithm]}, not {key.curve.name}")


def load_algorithms() -> dict[str, Any]:
    """PyJWT's algorithms by name. Raises ExtraMissing."""
    try:
        from jwt.algorithms import get_default_algorithms, has_crypto
    except ImportError:
        raise ExtraMissing("checks.jwt", "PyJWT", "jwt") from None
    if not has_crypto:
        raise ExtraMissing("checks.jwt", "cryptography", "jwt")
    return get_default_algorithms()
