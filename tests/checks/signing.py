"""Keys and tokens for the tests of `checks.jwt`: made once in a process, with the libraries an issuer would use."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

SECRET = "a secret of at least sixty-four bytes, so that it will do for HS512 too"

MADE = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES256K": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}


def private_key(algorithm: str, number: int = 0) -> Any:
    """A private key for this algorithm; another one for each number."""
    return made("RS256" if algorithm[:2] in ("RS", "PS") else algorithm, number)


@cache
def made(kind: str, number: int) -> Any:
    return MADE[kind]()


def public_pem(kind: str, number: int = 0) -> str:
    key = private_key(kind, number).public_key()
    return str(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode())


def private_pem(kind: str, number: int = 0) -> str:
    encoding, encryption = serialization.Encoding.PEM, serialization.NoEncryption()
    return str(private_key(kind, number).private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption).decode())


def token(algorithm: str = "HS256", number: int = 0, *, key: Any = None, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token that is good for an hour, unless the claims say otherwise; a claim that is None is left out."""
    given = {"sub": "alice", "exp": int(time.time()) + 3600, **claims}
    given = {name: value for name, value in given.items() if value is not None}
    key = key or (SECRET if algorithm.startswith("HS") else private_key(algorithm, number))
    return jwt.encode(given, key, algorithm=algorithm, headers=headers)


def jwk(algorithm: str, number: int = 0, **members: Any) -> dict[str, Any]:
    """The public key as a JWK; of HS256 the secret."""
    handler = get_default_algorithms()["EdDSA" if algorithm == "Ed448" else algorithm]
    key = SECRET if algorithm.startswith("HS") else private_key(algorithm, number).public_key()
    return {**json.loads(handler.to_jwk(key)), **members}


def write_keys(path: Path, *keys: dict[str, Any]) -> Path:
    """A JWKS file, put in place at once as a rotation should."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"keys": keys}))
    return new.replace(path)
