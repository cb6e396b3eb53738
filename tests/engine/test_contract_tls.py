"""TLS: the same connections, through a cipher."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.engine.streams import OK, Told
from tests.engine.test_contract_listen import PREFACE, preface
from tests.engine.tlspeer import Authority, TlsPeer, dial_tls
from tests.peer import BINARY, TEXT, pack, pack_close, request
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def serve(drive: Drive, authority: Authority, *, proxied: bool = False, **given: Any) -> Driver:
    options = given.pop("context", {})
    driver = drive(**given)
    context = authority.server(**options)
    driver.listen(tls=lambda: context, proxied=proxied)
    return driver


def dial(driver: Driver, authority: Authority, **options: Any) -> TlsPeer:
    return dial_tls(driver, authority.client(), **options).shake(driver)


def connect(driver: Driver, authority: Authority, **options: Any) -> TlsPeer:
    peer = dial(driver, authority, **options)
    peer.say(request())
    driver.until(lambda: peer.is_upgraded)
    return peer


def test_a_websocket_through_tls(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, on_message=lambda connection, message: connection.send(message))
    peer = connect(driver, authority)
    peer.text("déjà vu")
    driver.until(lambda: peer.messages == ["déjà vu"])
    assert driver.only.remote_address == peer.socket.getsockname()
    peer.say(pack_close(1000))
    driver.until(lambda: peer.ended)
    assert peer.closed_with == (1000, "")
    assert peer.got_notify
    assert peer.ended == "eof"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls(drive: Drive, authority: Authority, version: ssl.TLSVersion) -> None:
    driver = serve(drive, authority, on_message=lambda connection, message: connection.send(message))
    peer = dial_tls(driver, authority.client(minimum_version=version, maximum_version=version)).shake(driver)
    peer.say(request() + pack(TEXT, b"early"))
    driver.until(lambda: peer.messages == ["early"])
    assert peer.object.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]


def test_everything_byte_by_byte(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, on_message=lambda connection, message: connection.send(message))
    peer = dial_tls(driver, authority.client())

    def drip(data: bytes) -> None:
        for byte in data:
            peer.socket.send(bytes((byte,)))
            driver.turn()

    with pytest.raises(ssl.SSLWantReadError):
        peer.object.do_handshake()
    drip(peer.outgoing.read())
    driver.until(lambda: peer.is_up)
    drip(peer.seal(request()))
    drip(peer.seal(pack(TEXT, b"hello")))
    driver.until(lambda: peer.messages == ["hello"])


def test_large_messages_both_ways(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, on_message=lambda connection, message: connection.send(message))
    peer = connect(driver, authority)
    message = bytes(range(256)) * 3000
    data = peer.seal(pack(BINARY, message))

    def push() -> bool:
        nonlocal data
        with suppress(BlockingIOError):
            data = data[peer.socket.send(data) :]
        return bool(peer.messages)

    driver.until(push)
    assert peer.messages == [message]
    assert driver.count("queued_bytes") == 0


def test_a_slow_reader_gets_everything_and_high_water_holds(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, sndbuf_bytes=4096, low_water_bytes=10_000, high_water_bytes=50_000)
    peer = connect(driver, authority, receive_bytes=4096)
    connection = driver.only
    sent = 0
    while connection.send(sent.to_bytes(4, "big") * 250):
        sent += 1
    sent += 1
    driver.turn()
    assert driver.count("queued_bytes") > 40_000
    driver.until(lambda: driver.named("on_drain"))
    driver.until(lambda: len(peer.messages) == sent)
    assert peer.messages == [number.to_bytes(4, "big") * 250 for number in range(sent)]


def test_a_broadcast_reaches_plain_and_tls_alike(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority)
    peers = [connect(driver, authority) for _ in range(5)]
    assert driver.engine.broadcast("to all") == 5
    driver.until(lambda: all(peer.messages == ["to all"] for peer in peers))


def test_answers_of_one_turn_share_a_record(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, on_message=lambda connection, message: connection.send(message))
    peer = connect(driver, authority)
    driver.rest()
    before = peer.ciphertext
    peer.say(pack(TEXT, b"x") * 100)
    driver.until(lambda: len(peer.messages) == 100)
    assert peer.ciphertext - before < 100 * 3 + 100


def test_a_stream_sees_the_tls_facts(drive: Drive, authority: Authority) -> None:
    stream = Told(begin=lambda pipe: (pipe.write(OK), pipe.close()))
    driver = serve(drive, authority)
    driver.front.streams[b"/stream"] = lambda: stream
    peer = dial(driver, authority)
    peer.say(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    driver.until(lambda: stream.pipe)
    facts: list[Any] = [pipe.tls for pipe in driver.front.pipes if pipe.tls is not None]
    assert not facts or facts[0].version() == "TLSv1.3"
    driver.ended(peer)
    assert peer.head + peer.received == OK
    assert peer.got_notify
    assert driver.count("http_requests") == 1


def test_keep_alive_through_tls(drive: Drive, authority: Authority) -> None:
    facts: list[Any] = []
    driver = serve(drive, authority)
    driver.front.streams[b"/stream"] = lambda: Told(begin=lambda pipe: (facts.append(pipe.tls.version()), pipe.write(b"x"), pipe.restart()))
    peer = dial(driver, authority)
    for number in range(3):
        peer.say(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        driver.until(lambda number=number: len(peer.received) == 2 * number + 2)
    assert facts == ["TLSv1.3"] * 6
    peer.say(request())
    driver.until(lambda: b" 101 " in peer.head)


# ---- ends


def test_plain_http_on_a_tls_port_is_cut(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority)
    peer = driver.dial()
    peer.say(request())
    driver.ended(peer)
    assert not peer.head
    assert b"HTTP" not in peer.received
    assert counts(driver) == (1, 1, 0)


@pytest.mark.parametrize("said", [b"\x16\x03\x01\xff\xff" + b"x" * 100, b"\0" * 600, b"\x80\x2e\x01\x03\x01" + b"x" * 100])
def test_garbage_instead_of_a_handshake_is_cut(drive: Drive, authority: Authority, said: bytes) -> None:
    driver = serve(drive, authority)
    peer = driver.dial()
    peer.say(said)
    driver.ended(peer)
    assert counts(driver) == (1, 1, 0)


def test_a_client_that_does_not_trust_us_is_a_tls_error(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority)
    peer = dial_tls(driver, ssl.create_default_context())
    peer.take()
    driver.until(lambda: peer.alert)
    peer.flush()
    driver.ended(peer)
    driver.until(lambda: counts(driver) == (1, 1, 0))


def test_a_client_we_cannot_agree_with_gets_an_alert(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, context={"minimum_version": ssl.TLSVersion.TLSv1_3})
    peer = dial_tls(driver, authority.client(maximum_version=ssl.TLSVersion.TLSv1_2))
    peer.take()
    driver.ended(peer)
    assert peer.alert is not None
    assert "ALERT" in str(peer.alert).upper()
    assert counts(driver) == (1, 1, 0)


def test_a_record_that_was_tampered_with_ends_the_connection(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority)
    peer = connect(driver, authority)
    record = bytearray(peer.seal(pack(TEXT, b"hello")))
    record[-1] ^= 1
    peer.socket.sendall(record)
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_close") == [Close(1006, "", Cause.TLS_ERROR, False)]
    driver.ended(peer)
    assert peer.alert is not None
    assert driver.named("on_message") == []
    assert driver.count("closes_tls_error") == 1


@pytest.mark.parametrize("how", ["nothing", "half a hello", "no request"])
def test_the_deadline_of_the_handshake_covers_tls(drive: Drive, authority: Authority, how: str) -> None:
    driver = serve(drive, authority, handshake_timeout_s=0.3)
    peer = dial_tls(driver, authority.client())
    if how == "half a hello":
        with pytest.raises(ssl.SSLWantReadError):
            peer.object.do_handshake()
        peer.socket.sendall(peer.outgoing.read()[:50])
    elif how == "no request":
        peer.shake(driver)
    driver.until(lambda: driver.count("handshakes_pending"))
    driver.until(lambda: peer.ended, ticking=True)
    assert (driver.count("closes_handshake_timeout"), driver.count("handshake_failures")) == (1, 1)


def test_close_notify_is_the_end_of_the_stream_behind_what_was_said(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority)
    peer = connect(driver, authority)
    sealed = peer.seal(pack(TEXT, b"last words"))
    with suppress(ssl.SSLError):
        peer.object.unwrap()
    peer.socket.sendall(sealed + peer.outgoing.read())
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_message") == ["last words"]
    assert driver.named("on_close") == [Close(1006, "", Cause.PEER_EOF, False)]
    driver.ended(peer)


def test_close_notify_waits_behind_what_a_held_connection_has_not_handled(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority)
    peer = connect(driver, authority)
    connection = driver.only
    driver.engine.hold(connection)
    peer.say(pack(TEXT, b"one"))
    driver.rest()
    peer.say(pack(TEXT, b"two"))
    peer.notify()
    driver.rest()
    assert connection.is_open
    driver.engine.release(connection)
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_message") == ["one", "two"]


@pytest.mark.parametrize("how", ["end", "reset"])
def test_an_end_without_close_notify_is_an_end(drive: Drive, authority: Authority, how: str) -> None:
    driver = serve(drive, authority)
    peer = connect(driver, authority)
    getattr(peer, how)()
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_close")[0].cause == {"end": Cause.PEER_EOF, "reset": Cause.PEER_RESET}[how]


def test_a_peer_that_is_lost_by_heartbeat_through_tls(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, ping_interval_s=0.1, ping_timeout_s=0.2)
    peer = connect(driver, authority)
    driver.until(lambda: driver.named("on_close"), ticking=True)
    assert driver.named("on_close")[0].cause == Cause.HEARTBEAT_LOST
    driver.ended(peer)


def test_the_context_is_asked_for_each_connection(drive: Drive, authority: Authority) -> None:
    contexts = [authority.server(maximum_version=version) for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)]
    following = iter(contexts)
    driver = drive()
    driver.listen(tls=lambda: next(following))
    assert [dial(driver, authority).object.version() for _ in range(2)] == ["TLSv1.2", "TLSv1.3"]


def test_a_context_that_cannot_be_made_costs_only_its_connection(drive: Drive, authority: Authority) -> None:
    def broken() -> ssl.SSLContext:
        raise FileNotFoundError("the certificate is gone")

    driver = drive()
    driver.listen(tls=broken)
    peer = driver.dial()
    peer.say(b"\x16\x03\x01")
    driver.ended(peer)
    assert counts(driver) == (1, 1, 0)


def test_client_certificates(drive: Drive, authority: Authority) -> None:
    server = authority.server(verify_mode=ssl.CERT_REQUIRED)
    authority.authority.configure_trust(server)
    seen: list[Any] = []
    driver = drive()
    driver.listen(tls=lambda: server)
    driver.front.streams[b"/stream"] = lambda: Told(begin=lambda pipe: (seen.append(pipe.tls.getpeercert()), pipe.close()))
    context = authority.client()
    authority.authority.issue_cert("client@example.com").configure_cert(context)
    peer = dial_tls(driver, context).shake(driver)
    peer.say(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    driver.ended(peer)
    assert seen[0]["subjectAltName"] == (("email", "client@example.com"),)
    stranger = dial_tls(driver, authority.client()).shake(driver)
    driver.ended(stranger)
    assert driver.count("closes_tls_error") == 1


# ---- with other things


def test_the_preface_of_a_proxy_stands_before_tls(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, proxied=True)
    driver.front.prefaces = preface
    peer = dial_tls(driver, authority.client())
    with pytest.raises(ssl.SSLWantReadError):
        peer.object.do_handshake()
    peer.socket.sendall(PREFACE + peer.outgoing.read())
    driver.until(lambda: peer.is_up)
    peer.say(request())
    driver.until(lambda: peer.is_upgraded)
    assert driver.only.remote_address == ("203.0.113.7", 4711)


def test_the_access_log_counts_the_bytes_of_the_websocket(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, on_message=lambda connection, message: connection.send(message), access_log=True)
    peer = connect(driver, authority)
    peer.text("hello")
    driver.until(lambda: peer.messages)
    peer.say(pack_close(1000))
    driver.ended(peer)
    _, _, received, sent, _ = driver.front.ends[0]
    assert (received, sent) == ((6 + 5) + (6 + 2), (2 + 5) + (2 + 2))


def test_a_stuck_peer_is_cut_through_tls(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority, stuck_timeout_s=0.3, sndbuf_bytes=4096)
    connect(driver, authority, receive_bytes=4096)
    driver.only.send(bytes(300_000))
    driver.until(lambda: driver.named("on_close"), ticking=True, reading=False)
    assert driver.named("on_close")[0].cause == Cause.SLOW_CONSUMER


def test_the_drain_of_an_engine_says_goodbye_through_tls(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority)
    peer, shaking = connect(driver, authority), driver.dial()
    driver.until(lambda: driver.count("handshakes_pending"))
    driver.engine.drain(1001, "bye", 100)
    driver.until(lambda: peer.closed_with)
    assert peer.closed_with == (1001, "bye")
    peer.say(pack_close(1001))
    driver.ended(peer)
    driver.ended(shaking)
    assert peer.got_notify
    peer.close()
    driver.until(lambda: driver.engine.drain(1001, "bye", 100) == 0)


def test_a_crowd_through_tls_leaves_nothing_behind(drive: Drive, authority: Authority) -> None:
    driver = serve(drive, authority)
    context = authority.client()
    peers = [dial_tls(driver, context) for _ in range(30)]
    for peer in peers:
        peer.take()
    driver.until(lambda: all(peer.is_up for peer in peers))
    for peer in peers[::2]:
        peer.say(request())
    driver.until(lambda: driver.count("connections_open") == 15)
    for peer in peers:
        peer.close()
    until = time.monotonic() + 5
    driver.until(lambda: (driver.count("connections_open"), driver.count("handshakes_pending")) == (0, 0) or time.monotonic() > until)
    assert driver.count("buffers_held") == 0


def counts(driver: Driver) -> tuple[int, ...]:
    return tuple(driver.count(name) for name in ("handshake_failures", "closes_tls_error", "handshakes_pending"))
