from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.checks.signing import SECRET, jwk, private_key, private_pem, public_pem, token, write_keys
from unlimitedws.checks import keys
from unlimitedws.checks.keys import KINDS, KeyFile, OneKey, checked_algorithms
from unlimitedws.errors import ExtraMissing

PUBLIC = [name for name in KINDS if KINDS[name] != "oct"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])
    return now


def opens(key: Any, algorithm: str, number: int = 0) -> bool:
    """Whether `key` verifies what the issuer's key of this number signed."""
    try:
        jwt.decode(token(algorithm, number), key, algorithms=[algorithm])
    except jwt.InvalidSignatureError:
        return False
    return True


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_a_public_key_verifies_what_the_private_one_signed(algorithm: str) -> None:
    assert opens(OneKey(public_pem(algorithm), [algorithm]).find(None, algorithm), algorithm)
    assert opens(OneKey(private_key(algorithm).public_key(), [algorithm]).find("any", algorithm), algorithm)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_secret_verifies_what_it_signed(algorithm: str) -> None:
    for secret in (SECRET, SECRET.encode()):
        assert opens(OneKey(secret, [algorithm]).find(None, algorithm), algorithm)


def test_a_key_is_for_its_algorithms_alone() -> None:
    found = OneKey(public_pem("RS256"), ["RS256", "PS256"])
    assert found.find(None, "PS256") is not None
    assert found.find(None, "RS512") is None
    assert found.find(None, "HS256") is None
    assert found.find(None, "none") is None


@pytest.mark.parametrize("algorithm", [*PUBLIC, "HS256"])
def test_a_private_key_is_refused_where_a_public_one_will_do(algorithm: str) -> None:
    kind = "RS256" if algorithm == "HS256" else algorithm
    with pytest.raises(ValueError, match=r"private one|needs a secret, no public key") as caught:
        OneKey(private_pem(kind), [algorithm])
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_no_secret(kind: str) -> None:
    with pytest.raises(ValueError, match="needs a secret, no public key"):
        OneKey(public_pem(kind), ["HS256"])


@pytest.mark.parametrize(
    ("kind", "algorithm"), [("RS256", "ES256"), ("ES256", "RS256"), ("ES256", "EdDSA"), ("ES384", "ES256"), ("ES256", "ES256K")]
)
def test_a_key_of_another_kind_or_curve_is_refused(kind: str, algorithm: str) -> None:
    with pytest.raises(ValueError, match=algorithm):
        OneKey(public_pem(kind), [algorithm])


@pytest.mark.parametrize("key", ["no pem", "", b"", 3, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_what_is_no_key_is_refused_and_not_shown(key: Any) -> None:
    with pytest.raises(ValueError, match="the key does not fit RS256, which needs a public key in PEM") as caught:
        OneKey(key, ["RS256"])
    assert "no pem" not in str(caught.value)


@pytest.mark.parametrize(("algorithm", "short"), [("HS256", 31), ("HS384", 47), ("HS512", 63)])
def test_a_secret_shorter_than_the_hash_is_refused(algorithm: str, short: int) -> None:
    OneKey("x" * (short + 1), [algorithm])
    with pytest.raises(ValueError, match=f"{short} bytes"):
        OneKey("x" * short, [algorithm])


def test_a_weak_rsa_key_is_refused() -> None:
    with pytest.raises(ValueError, match="1024 bits"):
        OneKey(rsa.generate_private_key(65537, 1024).public_key(), ["RS256"])


def test_one_key_cannot_be_for_two_kinds() -> None:
    with pytest.raises(ValueError, match="different kinds"):
        OneKey(public_pem("RS256"), ["RS256", "ES256"])


@pytest.mark.parametrize("wrong", [[], "RS256", ["none"], ["None"], ["RS256", "NONE"], ["RS1"], [""], [None], ["HS256", "RS256"]])
def test_algorithms_that_would_open_the_door_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm|mix"):
        checked_algorithms(wrong)


def test_keys_of_a_file_are_found_by_kid_and_algorithm(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="one"), jwk("RS256", 2, kid="two"), jwk("ES256", kid="curve"))
    found = KeyFile(path, ["RS256", "ES256"])
    assert opens(found.find("one", "RS256"), "RS256", 1)
    assert not opens(found.find("one", "RS256"), "RS256", 2)
    assert opens(found.find("two", "RS256"), "RS256", 2)
    assert opens(found.find("curve", "ES256"), "ES256")
    assert found.find("three", "RS256") is None
    assert found.find("curve", "RS256") is None
    assert found.find("one", "PS256") is None  # fits the key, but was not asked for


def test_a_token_without_a_kid_is_for_the_only_key_that_fits(tmp_path: Path) -> None:
    found = KeyFile(write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="one"), jwk("ES256")), ["RS256", "ES256"])
    assert opens(found.find(None, "RS256"), "RS256", 1)
    assert opens(found.find(None, "ES256"), "ES256")
    two = KeyFile(write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="one"), jwk("RS256", 2, kid="two")), ["RS256"])
    assert two.find(None, "RS256") is None


@pytest.mark.parametrize("algorithm", [*PUBLIC, "Ed448", "HS256"])
def test_every_kind_of_key_can_stand_in_a_file(tmp_path: Path, algorithm: str) -> None:
    name = "EdDSA" if algorithm == "Ed448" else algorithm
    found = KeyFile(write_keys(tmp_path / "keys.json", jwk(algorithm, kid="k")), [name]).find("k", name)
    signed = jwt.encode({}, SECRET if name == "HS256" else private_key(algorithm), algorithm=name)
    assert jwt.decode(signed, found, algorithms=[name]) == {}


@pytest.mark.parametrize(
    "other",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"alg": "RS512"},
        {"kty": "future"},
        {"kty": "EC", "crv": "P-999"},
        {"kty": "OKP", "crv": "X25519"},
    ],
)
def test_keys_for_something_else_are_passed_over(tmp_path: Path, other: dict[str, Any]) -> None:
    path = write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="mine"), jwk("RS256", 2, kid="other", **other))
    found = KeyFile(path, ["RS256", "ES256", "EdDSA"])
    assert found.find("mine", "RS256") is not None
    assert found.find("other", "RS256") is None


def test_a_key_with_an_algorithm_of_its_own_is_for_no_other(tmp_path: Path) -> None:
    found = KeyFile(write_keys(tmp_path / "keys.json", jwk("RS256", alg="PS256", use="sig", key_ops=["verify"])), ["RS256", "PS256"])
    assert found.find(None, "PS256") is not None
    assert found.find(None, "RS256") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JWKS"),
        ("{", "no JWKS"),
        ("[]", "no JWKS"),
        ("{}", "no JWKS"),
        ("[" * 100_000, "no JWKS"),
        ('{"keys": {}}', "no list"),
        ('{"keys": []}', "no key for RS256"),
        ('{"keys": [3]}', "no key for RS256"),
        ('{"keys": [{"kty": "RSA", "kid": "k"}]}', "key k in"),
        ('{"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}', "make no key"),
        ('{"keys": [{"kty": "RSA", "kid": 3}]}', "not a string"),
        ('{"keys": [{"kty": "RSA", "d": "secret"}]}', "private key"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        KeyFile(path, ["RS256"])
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_two_keys_with_one_kid_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one kid"):
        KeyFile(write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="k"), jwk("RS256", 2, kid="k")), ["RS256"])


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KeyFile(tmp_path / "keys.json", ["RS256"])


def test_a_changed_file_is_read_again_within_a_second(tmp_path: Path, clock: list[float]) -> None:
    path = write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="one"))
    found = KeyFile(path, ["RS256"])
    write_keys(path, jwk("RS256", 2, kid="two"))
    clock[0] += 0.9
    assert found.find("two", "RS256") is None
    clock[0] += 0.2
    assert found.find("two", "RS256") is not None
    assert found.find("one", "RS256") is None


def test_a_file_is_looked_at_once_a_second_at_most(tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    found = KeyFile(write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="one")), ["RS256"])
    looks = []
    monkeypatch.setattr(keys, "stamp", lambda path: looks.append(path) or found._stamp)
    for _ in range(50):
        clock[0] += 0.1
        found.find("unknown", "RS256")
    assert 4 <= len(looks) <= 5


def test_a_broken_change_keeps_the_keys_and_says_so_once(tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    path = write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="one"))
    found = KeyFile(path, ["RS256"])
    path.write_text("{")
    with caplog.at_level(logging.ERROR, "unlimitedws.checks"):
        for _ in range(3):
            clock[0] += 1.1
            assert found.find("one", "RS256") is not None
        assert [record.getMessage() for record in caplog.records] == [
            f'the keys read before stay in use: {path} is no JWKS: a JSON object with a list "keys" (RFC 7517, section 5)'
        ]
        write_keys(path, jwk("RS256", 2, kid="two"))
        clock[0] += 1.1
        assert found.find("two", "RS256") is not None
    assert len(caplog.records) == 1


def test_a_file_that_went_away_keeps_the_keys_and_is_said_once_each_time(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="one"))
    found = KeyFile(path, ["RS256"])
    for _ in range(2):
        kept = path.rename(tmp_path / "kept.json")
        for _ in range(3):
            clock[0] += 1.1
            assert found.find("one", "RS256") is not None
        kept.rename(path)
        clock[0] += 1.1
        assert found.find("one", "RS256") is not None
    assert ["No such file" in record.getMessage() for record in caplog.records] == [True, True]


def test_without_pyjwt_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt.algorithms", None)
    with pytest.raises(ExtraMissing, match=r"checks.jwt needs PyJWT, which is not installed: pip install 'unlimitedws\[jwt\]'"):
        OneKey(SECRET, ["HS256"])


def test_without_cryptography_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jwt.algorithms.has_crypto", False)
    with pytest.raises(ExtraMissing, match="cryptography"):
        OneKey(SECRET, ["HS256"])
