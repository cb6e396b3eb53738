from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.asking import CLIENT, asked, asked_at
from tests.certificates import Authority, shake_hands
from tests.peer import request
from unlimitedws.request import Request
from unlimitedws.wire.handshake import BadTarget


def test_it_says_what_was_asked_for() -> None:
    found = asked(target="/r%C3%B4le/x?room=blue&tag=a&tag=b")
    assert found.method == "GET"
    assert found.target == "/r%C3%B4le/x?room=blue&tag=a&tag=b"
    assert found.path == "/rôle/x"
    assert found.query.get("room") == "blue"
    assert found.query.get_all("tag") == ["a", "b"]
    assert found.remote_address == CLIENT
    assert found.headers["Upgrade"] == "websocket"


def test_a_path_that_is_known_is_not_decoded_again() -> None:
    assert asked(target="/%zz", path="/known").path == "/known"


def test_a_target_without_a_path_is_a_bad_target() -> None:
    with pytest.raises(BadTarget):
        asked(target="/%zz").path  # noqa: B018


def test_cookies_are_a_mapping_of_which_the_first_wins() -> None:
    found = asked("Cookie: a=1; b=2; a=3", "cookie: c=4; b=5")
    assert found.cookies == {"a": "1", "b": "2", "c": "4"}
    assert asked().cookies == {}


def test_origin_and_subprotocols_are_none_and_empty_where_they_are_not_given() -> None:
    assert asked().origin is None
    assert asked().subprotocols == ()


def test_origin_and_subprotocols_are_as_the_client_gave_them() -> None:
    found = asked("Origin: https://a.example", "Sec-WebSocket-Protocol: chat.v2, chat.v1", "Sec-WebSocket-Protocol: x")
    assert found.origin == "https://a.example"
    assert found.subprotocols == ("chat.v2", "chat.v1", "x")


def test_the_host_of_an_absolute_target_has_the_say() -> None:
    assert asked_at("a.example:8000").host == "a.example:8000"
    assert asked(target="http://b.example:81/x?http://c.example").host == "b.example:81"
    assert asked(target="/x?http://c.example").host == "test"


def test_the_repr_shows_no_query_and_no_value() -> None:
    found = asked("Authorization: Bearer secret", "Cookie: session=secret", target="/chat?token=secret")
    assert repr(found) == "<Request GET /chat from ('192.0.2.7', 40000)>"


def test_a_target_can_be_logged_without_the_values_of_its_query() -> None:
    assert asked(target="/chat?room=blue&token=secret").redacted_target == "/chat?room=***&token=***"


def test_a_plain_connection_has_no_tls_facts() -> None:
    assert asked().tls is None
    assert asked().scheme == "http"


def test_a_trusted_proxy_says_the_scheme() -> None:
    assert asked(scheme="https").scheme == "https"
    assert asked(scheme="http", tls=ssl.MemoryBIO()).scheme == "http"


def test_the_facts_of_tls_are_those_of_its_handshake(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("a.example"))
    server.load_verify_locations(authority.pem)
    server.verify_mode = ssl.CERT_OPTIONAL
    server.set_alpn_protocols(["http/1.1"])
    server.sni_callback = lambda connection, name, context: setattr(connection, "server_name", name)
    client = authority.client_context("alice.example")
    client.set_alpn_protocols(["http/1.1"])
    end, _ = shake_hands(server, client, "a.example")
    found = asked(tls=end)
    tls = found.tls
    assert found.scheme == "https"
    assert tls is not None
    assert (tls.version, tls.alpn, tls.server_name) == ("TLSv1.3", "http/1.1", "a.example")
    assert tls.cipher == end.cipher()[0]  # type: ignore[index]
    assert tls.certificate is not None
    assert tls.certificate["subjectAltName"] == (("DNS", "alice.example"),)
    assert tls.certificate_der == end.getpeercert(binary_form=True)
    assert repr(tls) == f"<Tls TLSv1.3 {tls.cipher}>"


def test_a_client_without_a_certificate_has_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("a.example"))
    server.load_verify_locations(authority.pem)
    server.verify_mode = ssl.CERT_OPTIONAL
    tls = asked(tls=shake_hands(server, authority.client_context(), "a.example")[0]).tls
    assert tls is not None
    assert (tls.certificate, tls.certificate_der, tls.alpn, tls.server_name) == (None, None, None, None)


def test_making_one_reads_nothing_of_the_head() -> None:
    assert Request(b"", remote_address="unix").remote_address == "unix"  # an empty head would fail to be read


def test_it_keeps_nothing_but_the_head_and_what_was_asked_of_it() -> None:
    assert not hasattr(asked(), "__dict__")
    octets = request("/")
    assert Request(octets, remote_address=CLIENT).head is octets
