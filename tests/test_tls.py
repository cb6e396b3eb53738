"""Contexts: which certificate a client sees, what is refused, and files that change under a running server."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.certificates import Authority, names_in, shake_hands
from unlimitedws.config import Config
from unlimitedws.errors import BadCertificate, BadValue
from unlimitedws.tls import LOOK_EVERY_S, Certificates


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def go_on(self) -> None:
        self.now += LOOK_EVERY_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


def certificates(clock: Callable[[], float] = Clock(), **settings: Any) -> Certificates:  # noqa: B008  (it is never set)
    return Certificates(Config(**{name: str(value) for name, value in settings.items()}), clock)


def seen(made: Certificates, authority: Authority, name: str | None = "localhost") -> list[str]:
    """The names of the certificate that a client sees which asks for `name`."""
    client = authority.client_context()
    client.check_hostname = False
    return names_in(shake_hands(made.context(), client, name)[1])


# ---- one certificate


def test_a_client_that_trusts_the_authority_is_served(authority: Authority) -> None:
    chain, key = authority.issue("localhost")
    server, client = shake_hands(certificates(certfile=chain, keyfile=key).context(), authority.client_context())
    assert client.version() in ("TLSv1.2", "TLSv1.3")
    assert names_in(client) == ["localhost"]
    assert server.getpeercert() is None
    assert client.compression() is None


def test_certificate_and_key_may_be_one_file(authority: Authority, tmp_path: Path) -> None:
    bundle = authority.bundle("localhost", into=tmp_path / "both.pem")
    shake_hands(certificates(certfile=bundle).context(), authority.client_context())


def test_alpn_speaks_http_1_1_only(authority: Authority) -> None:
    chain, key = authority.issue("localhost")
    client = authority.client_context()
    client.set_alpn_protocols(["h2", "http/1.1"])
    for end in shake_hands(certificates(certfile=chain, keyfile=key).context(), client):
        assert end.selected_alpn_protocol() == "http/1.1"


def test_tls_1_1_is_refused(authority: Authority) -> None:
    chain, key = authority.issue("localhost")
    context = certificates(certfile=chain, keyfile=key).context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    client = authority.client_context()
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake_hands(context, client)


def test_a_client_may_not_renegotiate(authority: Authority) -> None:
    chain, key = authority.issue("localhost")
    assert certificates(certfile=chain, keyfile=key).context().options & ssl.OP_NO_RENEGOTIATION


def test_a_client_that_comes_back_resumes_its_session(authority: Authority) -> None:
    chain, key = authority.issue("localhost")
    context, client = certificates(certfile=chain, keyfile=key).context(), authority.client_context()
    session = shake_hands(context, client)[1].session
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    one, other = context.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname="localhost", session=session)
    for end in (other, one, other, one):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert one.session_reused
    assert other.session_reused


# ---- files that cannot be used


def test_a_missing_file_is_named(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("localhost")
    for settings in ({"certfile": tmp_path / "none", "keyfile": key}, {"certfile": chain, "keyfile": tmp_path / "none"}):
        with pytest.raises(BadCertificate, match=r"none: No such file"):
            certificates(**settings)


def test_a_folder_is_no_certificate(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(BadCertificate, match="directory"):
        certificates(certfile=tmp_path)


def test_a_file_that_may_not_be_read_is_named(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, key = authority.issue("localhost")

    def guarded(file: str, **options: Any) -> Any:  # not by its mode: root may read everything
        if file == str(key):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open(file, **options)

    monkeypatch.setattr("unlimitedws.tls.open", guarded, raising=False)
    with pytest.raises(BadCertificate, match=r"privkey.pem: Permission denied"):
        certificates(certfile=chain, keyfile=key)


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    (chain, _), (_, key) = authority.issue("localhost"), authority.issue("other.example")
    with pytest.raises(BadCertificate, match=r"privkey.pem: its key is not the certificate's"):
        certificates(certfile=chain, keyfile=key)


def test_a_damaged_file_is_named_and_the_other_is_not(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("localhost")
    for settings, which, why in (
        ({"certfile": half_of(chain), "keyfile": key}, chain, "its certificate is damaged"),
        ({"certfile": chain, "keyfile": half_of(key)}, key, "its key is damaged"),
        (
            {"certfile": chain, "keyfile": key, "client_certs": "required", "client_ca": half_of(authority.pem)},
            authority.pem,
            "it is damaged",
        ),
    ):
        with pytest.raises(BadCertificate, match=rf"{which}.half: {why}"):
            certificates(**settings)


def half_of(file: Path) -> Path:
    half = file.with_name(f"{file.name}.half")
    half.write_text(file.read_text()[: file.stat().st_size // 4])
    return half


def test_a_certificate_that_has_ended_is_told_of(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    chain, key = authority.issue("localhost")
    made = certificates(certfile=chain, keyfile=key)
    made.tell_expired()
    assert caplog.text == ""
    old = authority.ca.issue_cert("localhost", not_before=datetime(2020, 1, 1), not_after=datetime(2020, 1, 2, 3, 4, 5))
    old.cert_chain_pems[0].write_to_path(chain)
    old.private_key_pem.write_to_path(key)
    certificates(certfile=chain, keyfile=key).tell_expired()
    assert f"the certificate {chain} ended on 2020-01-02 03:04:05+00:00: clients refuse it; renew it" in caplog.text


def test_files_in_the_wrong_place_are_told_apart(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("localhost")
    with pytest.raises(BadCertificate, match=r"privkey.pem: there is no certificate in it"):
        certificates(certfile=key, keyfile=chain)
    with pytest.raises(BadCertificate, match=r"fullchain.pem: there is no private key in it"):
        certificates(certfile=chain)
    (tmp_path / "der").write_bytes(ssl.PEM_cert_to_DER_cert(chain.read_text().partition("-----END CERTIFICATE-----")[0] + ssl.PEM_FOOTER))
    with pytest.raises(BadCertificate, match="it must be PEM text"):
        certificates(certfile=tmp_path / "der", keyfile=key)


@pytest.mark.parametrize("damage", ["MIIB", "", "\u00e9"])
def test_a_damaged_certificate_is_named(authority: Authority, tmp_path: Path, damage: str) -> None:
    _, key = authority.issue("localhost")
    (tmp_path / "bad.pem").write_text(f"{ssl.PEM_HEADER}\n{damage}\n{ssl.PEM_FOOTER}\n")
    with pytest.raises(BadCertificate, match="TLS cannot use"):
        certificates(certfile=tmp_path / "bad.pem", keyfile=key)


@pytest.fixture
def locked(authority: Authority, tmp_path: Path) -> dict[str, Path]:
    """Settings of a certificate whose key has the password `open sesame`."""
    chain, key = authority.issue("localhost")
    plain = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame")))
    return {"certfile": chain, "keyfile": key}


def test_a_key_with_a_password_is_opened(locked: dict[str, Path], authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("open sesame\nsecond line\n")
    made = certificates(**locked, keyfile_password_file=tmp_path / "password")
    shake_hands(made.context(), authority.client_context())


def test_a_key_with_a_password_asks_for_the_setting_and_not_on_the_terminal(locked: dict[str, Path]) -> None:
    with pytest.raises(BadCertificate, match="name a file with it as keyfile_password_file"):
        certificates(**locked)


@pytest.mark.parametrize("wrong", ["let me in", "", "x" * 5000])
def test_a_wrong_password_is_told_and_not_shown(locked: dict[str, Path], tmp_path: Path, wrong: str) -> None:
    (tmp_path / "password").write_text(wrong)
    with pytest.raises(BadCertificate, match=r"privkey.pem") as caught:
        certificates(**locked, keyfile_password_file=tmp_path / "password")
    assert not wrong or wrong not in str(caught.value)


def test_a_missing_password_file_is_named(locked: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadCertificate, match=r"nowhere: No such file"):
        certificates(**locked, keyfile_password_file=tmp_path / "nowhere")


# ---- certificates of clients


def test_a_client_without_a_certificate_is_refused_where_one_is_required(authority: Authority) -> None:
    chain, key = authority.issue("localhost")
    made = certificates(certfile=chain, keyfile=key, client_ca=authority.pem, client_certs="required")
    server, _ = shake_hands(made.context(), authority.client_context("alice.example"))
    assert names_in(server) == ["alice.example"]
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        shake_hands(made.context(), authority.client_context())


def test_a_client_certificate_of_a_stranger_is_refused(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("localhost")
    (tmp_path / "elsewhere").mkdir()
    stranger = authority.client_context()
    stranger.load_cert_chain(Authority(tmp_path / "elsewhere").bundle("alice.example", into=tmp_path / "stranger.pem"))
    for policy in ("required", "optional"):
        made = certificates(certfile=chain, keyfile=key, client_ca=authority.pem, client_certs=policy)
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate|unknown_ca"):
            shake_hands(made.context(), stranger)


def test_an_optional_client_certificate_may_be_missing(authority: Authority) -> None:
    chain, key = authority.issue("localhost")
    made = certificates(certfile=chain, keyfile=key, client_ca=authority.pem, client_certs="optional")
    assert shake_hands(made.context(), authority.client_context())[0].getpeercert() is None
    assert names_in(shake_hands(made.context(), authority.client_context("alice.example"))[0]) == ["alice.example"]


def test_a_client_ca_that_is_none_is_named(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("localhost")
    for bad, why in ((tmp_path / "nowhere", "No such file"), (key, "there is no certificate in it")):
        with pytest.raises(BadCertificate, match=why):
            certificates(certfile=chain, keyfile=key, client_ca=bad, client_certs="required")


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"keyfile": "k"}, "certfile"),
        ({"sni_dir": "d"}, "certfile"),
        ({"listen": "a:1?tls"}, "certfile"),
        ({"certfile": "c", "client_certs": "required"}, "client_ca"),
        ({"certfile": "c", "client_ca": "a"}, "client_certs"),
    ],
)
def test_a_setting_that_would_be_without_effect_is_refused(settings: dict[str, str], needed: str) -> None:
    with pytest.raises(BadValue, match=f"it needs {needed}"):
        Config(**settings)  # type: ignore[arg-type]


# ---- several certificates


@pytest.fixture
def three(authority: Authority, tmp_path: Path) -> dict[str, Path]:
    """Settings with a certificate for everybody and two more, one in each form."""
    chain, key = authority.issue("localhost")
    sni = tmp_path / "sni"
    authority.issue("a.example", "www.a.example", into=sni / "a.example")
    authority.bundle("*.b.example", "b.example", into=sni / "b.pem")
    (sni / "README").write_text("certbot leaves one here")
    (sni / "empty").mkdir()
    return {"certfile": chain, "keyfile": key, "sni_dir": sni}


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("a.example", "a.example"),
        ("WWW.A.example", "a.example"),
        ("b.example", "*.b.example"),
        ("x.b.example", "*.b.example"),
        ("x.y.b.example", "localhost"),
        ("localhost", "localhost"),
        ("nobody.example", "localhost"),
        (None, "localhost"),
    ],
)
def test_a_client_sees_the_certificate_of_the_name_it_asks_for(
    three: dict[str, Path], authority: Authority, asked: str | None, first: str
) -> None:
    assert seen(certificates(**three), authority, asked)[0] == first


def test_the_name_that_a_client_asks_for_is_kept(three: dict[str, Path], authority: Authority) -> None:
    client = authority.client_context()
    client.check_hostname = False
    for name in ("a.example", "nobody.example", None):
        assert shake_hands(certificates(**three).context(), client, name)[0].server_name == name  # type: ignore[attr-defined]


def test_client_certificates_and_alpn_count_for_every_name(three: dict[str, Path], authority: Authority) -> None:
    made = certificates(**three, client_ca=authority.pem, client_certs="required")
    client = authority.client_context("alice.example")
    client.set_alpn_protocols(["http/1.1"])
    server, _ = shake_hands(made.context(), client, "a.example")
    assert (names_in(server), server.selected_alpn_protocol()) == (["alice.example"], "http/1.1")
    with pytest.raises(ssl.SSLError):
        shake_hands(made.context(), authority.client_context(), "a.example")


def test_a_missing_folder_of_certificates_is_named(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("localhost")
    with pytest.raises(BadCertificate, match=r"nowhere: No such file"):
        certificates(certfile=chain, keyfile=key, sni_dir=tmp_path / "nowhere")


def test_a_pair_that_lacks_its_key_is_an_error_at_the_start(three: dict[str, Path]) -> None:
    (three["sni_dir"] / "a.example" / "privkey.pem").unlink()
    with pytest.raises(BadCertificate, match=r"a.example/privkey.pem: No such file"):
        certificates(**three)


# ---- renewal


def test_a_renewed_certificate_is_used_without_a_restart(authority: Authority, clock: Clock) -> None:
    chain, key = authority.issue("old.example")
    made = certificates(clock, certfile=chain, keyfile=key)
    before = made.context()
    authority.issue("new.example", into=chain.parent)
    assert made.context() is before  # nobody has looked yet
    clock.go_on()
    assert seen(made, authority) == ["new.example"]
    shake_hands(before, authority.client_context(), "old.example")  # who was in a handshake finishes it


def test_files_that_do_not_change_are_read_once(authority: Authority, clock: Clock) -> None:
    chain, key = authority.issue("localhost")
    made = certificates(clock, certfile=chain, keyfile=key)
    before = made.context()
    clock.go_on()
    assert made.context() is before


def test_a_renewal_through_symbolic_links_is_noticed(authority: Authority, clock: Clock, tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()

    def point_at(*files: Path) -> None:  # as certbot does
        for file in files:
            (live / file.name).unlink(missing_ok=True)
            (live / file.name).symlink_to(file)

    point_at(*authority.issue("old.example"))
    made = certificates(clock, certfile=live / "fullchain.pem", keyfile=live / "privkey.pem")
    point_at(*authority.issue("new.example"))
    clock.go_on()
    assert seen(made, authority) == ["new.example"]


def test_a_renewal_that_is_half_done_changes_nothing_until_it_is_complete(
    authority: Authority, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain, key = authority.issue("old.example")
    new_chain, new_key = authority.issue("new.example")
    made = certificates(clock, certfile=chain, keyfile=key)
    steps: list[Callable[[], object]] = [
        lambda: shutil.copy(new_chain, chain),  # the key is still the old one's
        key.unlink,
        lambda: key.write_text("garbage"),
    ]
    for step in steps:
        step()
        clock.go_on()
        caplog.clear()
        assert seen(made, authority) == ["old.example"]
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "the certificate from before stays in use" in caplog.text
        clock.go_on()
        made.context()
        assert len(caplog.records) == 1  # told once
    shutil.copy(new_key, key)
    clock.go_on()
    assert seen(made, authority) == ["new.example"]


def test_certificates_come_and_go_in_the_folder(three: dict[str, Path], authority: Authority, clock: Clock) -> None:
    made = certificates(clock, **three)
    untouched = made._entries[next(pair for pair in made._entries if pair.certificate.endswith("b.pem"))].context
    authority.issue("c.example", into=three["sni_dir"] / "c.example")
    shutil.rmtree(three["sni_dir"] / "a.example")
    clock.go_on()
    assert seen(made, authority, "c.example") == ["c.example"]
    assert seen(made, authority, "a.example") == ["localhost"]
    assert untouched in [entry.context for entry in made._entries.values()]


def test_one_certificate_that_cannot_be_used_does_not_stop_the_renewal_of_others(
    three: dict[str, Path], authority: Authority, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    made = certificates(clock, **three)
    (three["sni_dir"] / "broken.pem").write_text("garbage")
    authority.bundle("*.b.example", "renewed.example", into=three["sni_dir"] / "b.pem")
    clock.go_on()
    assert seen(made, authority, "x.b.example") == ["*.b.example", "renewed.example"]
    assert "broken.pem: there is no certificate in it" in caplog.text


def test_a_folder_that_vanishes_keeps_the_default(
    three: dict[str, Path], authority: Authority, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    made = certificates(clock, **three)
    shutil.rmtree(three["sni_dir"])
    clock.go_on()
    assert seen(made, authority, "a.example")[0] == "a.example"
    assert "No such file" in caplog.text


def test_renewed_authorities_of_clients_count_for_the_next_client(authority: Authority, clock: Clock, tmp_path: Path) -> None:
    chain, key = authority.issue("localhost")
    (tmp_path / "new").mkdir()
    other = Authority(tmp_path / "new")
    clients = tmp_path / "clients.pem"
    shutil.copy(authority.pem, clients)
    made = certificates(clock, certfile=chain, keyfile=key, client_ca=clients, client_certs="required")
    bob = authority.client_context()
    bob.load_cert_chain(other.bundle("bob.example", into=tmp_path / "bob.pem"))
    with pytest.raises(ssl.SSLError):
        shake_hands(made.context(), bob)
    shutil.copy(other.pem, clients)
    clock.go_on()
    assert names_in(shake_hands(made.context(), bob)[0]) == ["bob.example"]
