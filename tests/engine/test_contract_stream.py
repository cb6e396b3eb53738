"""A connection that belongs to a Stream: plain HTTP, keep-alive, an upgrade that takes its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.engine.streams import OK, Told
from tests.peer import TEXT, Peer, pack, pack_close, request
from unlimitedws.engine.contract import Refusal
from unlimitedws.wire import handshake
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]

GET = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


def served(drive: Drive, *streams: Told, **settings: Any) -> Driver:
    """A driver whose requests for /stream, upgrade or not, are given to these streams in order."""
    driver = drive(guarded=True, **settings)
    following = iter(streams)
    driver.front.streams[b"/stream"] = lambda: next(following)
    driver.front.paths[b"/stream"] = ("/stream", 0)
    return driver


def upgrade() -> Any:
    found = handshake.examine(request("/stream"), route=lambda target: ("/stream", 0))
    assert isinstance(found, handshake.Asked)
    return handshake.grant(found)


def ask(driver: Driver, said: bytes = GET) -> Peer:
    peer = driver.dial()
    peer.say(said)
    return peer


def counts(driver: Driver, *names: str) -> tuple[int, ...]:
    return tuple(driver.count(name) for name in names)


def test_a_stream_begins_and_gets_what_came_behind_the_head_and_what_follows(drive: Drive) -> None:
    stream = Told()
    driver = served(drive, stream)
    peer = ask(driver, POST + b"bo")
    driver.until(lambda: stream.data == b"bo")
    assert stream.names == ["begin", "received"]
    peer.say(b"dy")
    driver.until(lambda: stream.data == b"body")
    assert counts(driver, "handshakes_pending", "connections_open", "handshake_failures") == (1, 0, 0)


def test_what_a_stream_writes_leaves_and_close_ends_it(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: (pipe.write(OK[:10]), pipe.write(OK[10:]), pipe.close()))
    driver = served(drive, stream)
    peer = ask(driver)
    assert driver.ended(peer) == "eof"
    assert peer.head + peer.received == OK
    driver.rest()
    assert stream.names == ["begin", "lost"]
    assert counts(driver, "http_requests", "closes_http_answered", "handshake_failures", "handshakes_pending") == (1, 1, 0, 0)
    assert driver.calls == []


def test_a_stream_may_be_answered_from_elsewhere_on_the_loop(drive: Drive) -> None:
    stream = Told()
    driver = served(drive, stream)
    peer = ask(driver)
    driver.until(lambda: stream.pipe)
    stream.pipe.write(OK)
    driver.until(lambda: peer.head)
    stream.pipe.close()
    assert driver.ended(peer) == "eof"
    assert stream.names == ["begin", "lost"]


def test_a_pipe_tells_the_address_even_after_the_end(drive: Drive) -> None:
    stream = Told()
    driver = served(drive, stream)
    peer = ask(driver)
    address = peer.socket.getsockname()
    driver.until(lambda: stream.pipe)
    assert stream.pipe.remote_address == address
    assert stream.pipe.tls is None
    peer.reset()
    driver.until(lambda: "lost" in stream.names)
    assert stream.pipe.remote_address == address


def test_a_pipe_tells_how_long_the_peer_has_waited(drive: Drive) -> None:
    stream = Told()
    driver = served(drive, stream)
    peer = driver.dial()
    peer.say(GET[:5])
    driver.rest()
    time.sleep(0.05)
    peer.say(GET[5:])
    driver.until(lambda: stream.pipe)
    assert stream.pipe.waited_s >= 0.05
    time.sleep(0.01)
    assert stream.pipe.waited_s >= 0.06
    peer.reset()
    driver.until(lambda: "lost" in stream.names)
    assert stream.pipe.waited_s == 0


def test_a_pipe_that_is_over_does_nothing(drive: Drive) -> None:
    stream, other = Told(begin=lambda pipe: pipe.abort()), Told()
    driver = served(drive, stream, other)
    driver.ended(ask(driver))
    peer = ask(driver)  # very likely of the same descriptor
    driver.until(lambda: other.pipe)
    stream.pipe.write(OK)
    stream.pipe.pause()
    stream.pipe.resume()
    stream.pipe.answer(upgrade(), b"x")
    stream.pipe.restart(b"x")
    stream.pipe.close()
    stream.pipe.abort()
    peer.say(b"still read")
    driver.until(lambda: other.data == b"still read")
    assert peer.head == b""
    assert stream.names == ["begin", "lost"]


# ---- keep-alive


def test_after_a_restart_the_next_request_goes_through_the_front(drive: Drive) -> None:
    first, second = (Told(begin=lambda pipe: (pipe.write(OK), pipe.restart())) for _ in range(2))
    driver = served(drive, first, second)
    peer = ask(driver)
    driver.until(lambda: peer.received == b"ok")
    peer.head = peer.received = b""
    peer.say(GET[:20])
    driver.rest()
    peer.say(GET[20:])
    driver.until(lambda: peer.received == b"ok")
    assert (first.names, second.names) == (["begin", "lost"], ["begin", "lost"])
    assert counts(driver, "http_requests", "handshakes_pending", "closes_http_answered") == (2, 1, 0)


def test_the_next_request_may_be_refused_or_become_a_websocket(drive: Drive) -> None:
    driver = served(drive, *(Told(begin=lambda pipe: (pipe.write(OK), pipe.restart())) for _ in range(2)))
    peer = ask(driver, GET + b"GET / HTTP/1.0\r\n\r\n")
    assert driver.ended(peer) == "eof"
    assert peer.received.startswith(b"okHTTP/1.1 505 ")
    assert counts(driver, "http_requests", "handshake_failures", "closes_handshake_refused") == (1, 1, 1)
    peer = ask(driver, GET + request() + pack(TEXT, b"early"))
    driver.until(lambda: driver.named("on_message") == ["early"])
    driver.until(lambda: peer.received.startswith(b"okHTTP/1.1 101 "))
    assert counts(driver, "connections_open", "handshakes_pending", "http_requests") == (1, 0, 2)


def test_pipelined_requests_are_answered_in_their_order(drive: Drive) -> None:
    numbers = iter(range(50))

    def answer(pipe: Any) -> None:
        pipe.write(b"%d." % next(numbers))
        pipe.restart()

    streams = [Told(begin=answer) for _ in range(50)]
    driver = served(drive, *streams)
    peer = ask(driver, GET * 50)
    wanted = b"".join(b"%d." % i for i in range(50))
    driver.until(lambda: peer.received == wanted)
    assert all(stream.names == ["begin", "lost"] for stream in streams)
    assert driver.count("http_requests") == 50


def test_what_a_stream_did_not_use_begins_the_next_request(drive: Drive) -> None:
    first = Told(received=lambda pipe, data: (pipe.write(OK), pipe.restart(data[4:])))
    second = Told(begin=lambda pipe: (pipe.write(OK), pipe.close()))
    driver = served(drive, first, second)
    peer = ask(driver, POST)
    driver.rest()
    peer.say(b"body" + GET)
    driver.ended(peer)
    assert (peer.head + peer.received) == OK * 2
    assert second.names == ["begin", "lost"]


@pytest.mark.parametrize("cut", range(1, len(GET), 7))
def test_the_rest_of_the_next_request_may_come_later(drive: Drive, cut: int) -> None:
    first = Told(received=lambda pipe, data: (pipe.write(OK), pipe.restart(data[4:])))
    second = Told(begin=lambda pipe: (pipe.write(OK), pipe.close()))
    driver = served(drive, first, second)
    peer = ask(driver, POST)
    driver.rest()
    peer.say(b"body" + GET[:cut])
    driver.rest()
    peer.say(GET[cut:])
    driver.ended(peer)
    assert (peer.head + peer.received) == OK * 2


def test_the_end_of_an_idle_kept_connection_is_no_failed_handshake(drive: Drive) -> None:
    driver = served(drive, Told(begin=lambda pipe: (pipe.write(OK), pipe.restart())))
    peer = ask(driver)
    driver.until(lambda: peer.received == b"ok")
    peer.close()
    driver.until(lambda: driver.count("handshakes_pending") == 0)
    assert counts(driver, "http_requests", "closes_http_answered", "handshake_failures") == (1, 1, 0)


def test_silence_ends_a_kept_connection_and_is_no_failed_handshake(drive: Drive) -> None:
    driver = served(drive, Told(begin=lambda pipe: (pipe.write(OK), pipe.restart())), handshake_timeout_s=0.1)
    peer = ask(driver)
    driver.until(lambda: peer.ended, ticking=True)
    assert counts(driver, "http_requests", "closes_http_answered", "closes_handshake_timeout", "handshake_failures") == (1, 1, 0, 0)


def test_a_next_request_that_stops_halfway_is_a_failed_handshake(drive: Drive) -> None:
    driver = served(drive, Told(begin=lambda pipe: (pipe.write(OK), pipe.restart())), handshake_timeout_s=0.1)
    peer = ask(driver, GET + GET[:9])
    driver.until(lambda: peer.ended, ticking=True)
    assert counts(driver, "http_requests", "closes_http_answered", "closes_handshake_timeout", "handshake_failures") == (1, 0, 1, 1)


def test_a_client_that_ends_its_side_first_still_gets_its_answers(drive: Drive) -> None:
    body = bytes(range(256)) * 1500
    big = Told(begin=lambda pipe: (pipe.write(body), pipe.restart()))
    driver = served(drive, Told(begin=lambda pipe: (pipe.write(b"first"), pipe.restart())), big, sndbuf_bytes=4096)
    peer = driver.dial(receive_bytes=4096)
    peer.say(GET * 2)
    peer.end()
    driver.until(lambda: driver.count("queued_bytes") > 0, reading=False)
    driver.ended(peer)
    assert peer.received == b"first" + body
    driver.until(lambda: driver.count("handshakes_pending") == 0)
    assert counts(driver, "http_requests", "closes_http_answered", "handshake_failures") == (2, 1, 0)


def test_nobody_asks_for_more_than_he_reads(drive: Drive) -> None:
    answered = 0

    def answer(pipe: Any) -> None:
        nonlocal answered
        answered += 1
        pipe.write(bytes(30_000))
        pipe.restart()

    driver = served(
        drive, *(Told(begin=answer) for _ in range(60)), sndbuf_bytes=4096, low_water_bytes=20_000, high_water_bytes=50_000
    )  # fmt: skip
    peer = driver.dial(receive_bytes=4096)
    peer.say(GET * 60)
    driver.until(lambda: driver.count("queued_bytes") > 50_000, reading=False)
    for _ in range(20):
        driver.turn()
    assert answered < 20
    assert driver.count("queued_bytes") < 200_000
    driver.until(lambda: len(peer.received) == 60 * 30_000)
    assert answered == 60


# ---- an upgrade that takes its time


def test_a_stream_becomes_a_websocket_with_what_came_meanwhile(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: pipe.pause())
    driver = served(drive, stream)
    peer = ask(driver, request("/stream") + pack(TEXT, b"one"))
    driver.until(lambda: stream.pipe)
    peer.say(pack(TEXT, b"two"))
    driver.rest()
    assert stream.told == [("begin",)]
    assert (peer.head, counts(driver, "handshakes_pending")) == (b"", (1,))
    stream.pipe.answer(upgrade())
    driver.until(lambda: driver.named("on_message") == ["one", "two"])
    assert peer.is_upgraded
    assert [call[0] for call in driver.calls] == ["on_connect", "on_message", "on_message"]
    assert stream.names == ["begin", "lost"]
    assert counts(driver, "connections_open", "connections_opened", "handshakes_pending") == (1, 1, 0)
    assert driver.only.path == "/stream"


def test_what_a_stream_received_and_gives_back_comes_first(drive: Drive) -> None:
    stream = Told()
    driver = served(drive, stream)
    peer = ask(driver, request("/stream") + pack(TEXT, b"one") + pack(TEXT, b"two")[:3])
    driver.until(lambda: stream.data)
    stream.pipe.answer(upgrade(), stream.data)
    peer.say(pack(TEXT, b"two")[3:])
    driver.until(lambda: driver.named("on_message") == ["one", "two"])


def test_a_stream_may_answer_at_once(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: pipe.answer(upgrade()))
    driver = served(drive, stream)
    peer = ask(driver, request("/stream") + pack(TEXT, b"early") + pack_close(1000))
    driver.ended(peer)
    assert [call[0] for call in driver.calls] == ["on_connect", "on_message", "on_close"]
    assert stream.names == ["begin", "lost"]


def test_a_stream_may_refuse(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: pipe.pause())
    driver = served(drive, stream)
    peer = ask(driver, request("/stream") + b"unread" * 100)
    driver.until(lambda: stream.pipe)
    stream.pipe.answer(handshake.refusal(403, "no"))
    assert driver.ended(peer) == "eof"
    assert peer.status == 403
    assert counts(driver, "handshake_failures", "closes_handshake_refused", "http_requests") == (1, 1, 0)
    assert (stream.names, driver.calls) == (["begin", "lost"], [])


def test_a_refusal_counted_as_a_page_is_one(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: pipe.answer(Refusal(OK, Cause.HTTP_ANSWERED)))
    driver = served(drive, stream)
    peer = ask(driver)
    driver.ended(peer)
    assert counts(driver, "handshake_failures", "closes_http_answered", "http_requests") == (0, 1, 1)


# ---- pausing


def test_a_paused_stream_leaves_the_rest_in_the_kernel(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: pipe.pause())
    driver = served(drive, stream)
    peer = ask(driver, POST + b"bo")
    driver.until(lambda: stream.pipe)
    peer.say(b"dy")
    driver.rest()
    read = driver.count("bytes_in")
    assert read in (len(POST), len(POST) + 2)
    assert stream.data == b""
    stream.pipe.resume()
    driver.until(lambda: stream.data == b"body")
    stream.pipe.pause()
    peer.say(b"later")
    driver.rest()
    assert stream.data == b"body"
    stream.pipe.resume()
    driver.until(lambda: stream.data == b"bodylater")


def test_a_stream_that_pauses_and_resumes_in_one_call_goes_on(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: (pipe.pause(), pipe.resume()), received=lambda pipe, data: (pipe.pause(), pipe.resume()))
    driver = served(drive, stream)
    peer = ask(driver, POST + b"bo")
    driver.until(lambda: stream.data == b"bo")
    peer.say(b"dy")
    driver.until(lambda: stream.data == b"body")


def test_a_paused_stream_hears_of_the_peers_end_behind_all_it_said(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: pipe.pause())
    driver = served(drive, stream)
    peer = ask(driver, POST + b"bo")
    driver.until(lambda: stream.pipe)
    peer.say(b"dy")
    peer.end()
    driver.rest()
    assert stream.names == ["begin"]
    stream.pipe.resume()
    driver.until(lambda: "ended" in stream.names)
    assert stream.data == b"body"
    assert stream.names[-1] == "ended"


def test_a_paused_stream_hears_of_the_peers_end_when_nothing_is_unread(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: pipe.pause())
    driver = served(drive, stream)
    peer = ask(driver)
    driver.until(lambda: stream.pipe)
    peer.end()
    driver.until(lambda: "ended" in stream.names)
    stream.pipe.write(OK)
    stream.pipe.close()
    driver.ended(peer)
    assert peer.head + peer.received == OK


# ---- ends


def test_a_peer_that_ended_its_side_can_still_be_answered(drive: Drive) -> None:
    stream = Told()
    driver = served(drive, stream)
    peer = ask(driver)
    peer.end()
    driver.until(lambda: "ended" in stream.names)
    driver.rest()
    assert stream.names == ["begin", "ended"]
    stream.pipe.write(OK)
    driver.until(lambda: peer.received == b"ok")
    stream.pipe.close()
    assert driver.ended(peer) == "eof"
    assert counts(driver, "http_requests", "closes_http_answered", "handshake_failures") == (1, 1, 0)


@pytest.mark.parametrize("ended", [False, True], ids=["at once", "after its end"])
@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_a_reset_loses_the_stream(drive: Drive, paused: bool, ended: bool) -> None:
    stream = Told(begin=lambda pipe: pipe.pause() if paused else None)
    driver = served(drive, stream)
    peer = ask(driver)
    driver.until(lambda: stream.pipe)
    if ended:
        peer.end()
        driver.until(lambda: "ended" in stream.names)
    peer.reset()
    driver.until(lambda: "lost" in stream.names)
    assert stream.names[-1] == "lost"
    assert stream.names.count("lost") == 1
    assert counts(driver, "handshake_failures", "closes_peer_reset", "http_requests", "handshakes_pending") == (1, 1, 0, 0)


def test_abort_cuts_at_once(drive: Drive) -> None:
    stream = Told()
    driver = served(drive, stream)
    peer = ask(driver)
    driver.until(lambda: stream.pipe)
    stream.pipe.abort()
    driver.ended(peer)
    driver.rest()
    assert stream.names == ["begin", "lost"]
    assert counts(driver, "handshake_failures", "closes_handshake_refused", "http_requests") == (1, 1, 0)


@pytest.mark.parametrize("where", ["begin", "received", "ended", "drained"])
def test_a_stream_that_raises_is_reported_and_its_connection_cut(drive: Drive, where: str) -> None:
    def wrong(*arguments: Any) -> None:
        raise ZeroDivisionError

    given: dict[str, Any] = {where: wrong}
    if where == "drained":
        given["begin"] = lambda pipe: pipe.write(bytes(400_000))
    stream = Told(**given)
    driver = served(drive, stream, sndbuf_bytes=4096)
    peer = driver.dial(receive_bytes=4096)
    peer.say(POST + b"body")
    if where == "ended":
        peer.end()
    driver.until(lambda: "lost" in stream.names)
    driver.ended(peer)
    assert [type(error) for error in driver.front.stream_errors] == [ZeroDivisionError]
    assert counts(driver, "handshake_failures", "closes_handler_error") == (1, 1)
    assert driver.front.failed == []


def test_a_stream_that_raises_when_it_is_lost_is_only_reported(drive: Drive) -> None:
    def wrong(pipe: Any) -> None:
        raise ZeroDivisionError

    driver = served(drive, Told(begin=lambda pipe: (pipe.write(OK), pipe.restart()), lost=wrong), Told())
    peer = ask(driver, GET + GET)
    driver.until(lambda: driver.front.stream_errors)
    driver.rest()
    assert peer.received == b"ok"
    assert not peer.ended


def test_a_drain_leaves_streams_and_a_close_cuts_them(drive: Drive) -> None:
    stream = Told()
    driver = served(drive, stream)
    peer = ask(driver)
    driver.until(lambda: stream.pipe)
    assert driver.engine.drain(1001, "bye", 100) == 1
    driver.rest()
    assert (stream.names, peer.ended) == (["begin"], None)
    driver.engine.close()
    peer.read()
    assert stream.names == ["begin", "lost"]
    assert counts(driver, "closes_drain") == (1,)


@pytest.mark.parametrize("ends", [False, True], ids=["upgraded", "refused"])
def test_a_handler_may_decide_on_another_connection_between_its_own_answers(drive: Drive, ends: bool) -> None:
    stream = Told()

    def on_message(connection: Any, message: Any) -> None:
        connection.send("before")
        stream.pipe.answer(handshake.refusal(403, "no") if ends else upgrade(), pack(TEXT, b"early"))
        connection.send("after")

    driver = drive(on_message=on_message, guarded=True)
    driver.front.streams[b"/stream"] = lambda: stream
    driver.front.paths[b"/stream"] = ("/stream", 0)
    asked = ask(driver)
    driver.until(lambda: stream.pipe)
    talking = driver.connect()
    talking.text("decide")
    driver.until(lambda: len(talking.messages) == 2)
    assert talking.messages == ["before", "after"]
    driver.until(lambda: asked.head)
    assert asked.status == (403 if ends else 101)


def test_the_engine_sets_no_deadline_to_a_stream(drive: Drive) -> None:
    stream = Told()
    driver = served(drive, stream, handshake_timeout_s=0.1, idle_timeout_s=0.1, ping_interval_s=0.1, ping_timeout_s=0.1)
    peer = ask(driver)
    until = time.monotonic() + 0.4
    driver.until(lambda: time.monotonic() > until, ticking=True)
    assert (stream.names, peer.ended) == (["begin"], None)
    stream.pipe.answer(upgrade())
    driver.until(lambda: driver.calls)


# ---- backpressure


def test_a_write_over_high_water_is_false_and_drained_follows(drive: Drive) -> None:
    sent = 0

    def fill(pipe: Any) -> None:
        nonlocal sent
        while sent < 1_000_000:
            sent += 50_000
            if not pipe.write(bytes(50_000)):
                return
        pipe.close()

    stream = Told(begin=fill, drained=fill)
    driver = served(drive, stream, sndbuf_bytes=4096, low_water_bytes=20_000, high_water_bytes=100_000)
    peer = driver.dial(receive_bytes=4096)
    peer.say(POST + b"body")
    driver.until(lambda: driver.count("queued_bytes") > 100_000, reading=False)
    peer.say(b"unread")
    for _ in range(20):
        driver.turn()
    assert driver.count("queued_bytes") <= 150_000
    assert stream.data in (b"", b"body")
    driver.ended(peer)
    assert len(peer.received) == sent == 1_000_000
    assert stream.names.count("drained") > 5
    assert driver.count("http_requests") == 1


def test_a_slow_reader_gets_the_whole_answer_however_long_it_takes(drive: Drive) -> None:
    body = bytes(range(256)) * 800
    stream = Told(begin=lambda pipe: (pipe.write(body), pipe.close()))
    driver = served(drive, stream, sndbuf_bytes=4096, close_timeout_s=0.2)
    peer = driver.dial(receive_bytes=4096)
    peer.say(GET)
    driver.until(lambda: "lost" in stream.names, reading=False)
    began = time.monotonic()
    while not peer.ended:
        peer.read(8192)
        driver.until(lambda: True)
        driver.turn()
        driver.sweep()
        time.sleep(0.02)
    assert time.monotonic() - began > 0.4
    assert peer.received == body


def test_one_that_reads_nothing_of_its_answer_is_cut(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: (pipe.write(bytes(400_000)), pipe.close()))
    driver = served(drive, stream, sndbuf_bytes=4096, close_timeout_s=0.2)
    peer = driver.dial(receive_bytes=4096)
    peer.say(GET)
    driver.until(lambda: driver.count("queued_bytes"), reading=False)
    driver.until(lambda: not driver.count("queued_bytes"), reading=False, ticking=True)
    driver.ended(peer)
    assert len(peer.received) < 400_000


# ---- the terms of an Upgrade


def test_the_state_of_an_upgrade_is_there_before_on_connect(drive: Drive) -> None:
    seen = []
    driver = drive(on_connect=lambda connection: seen.append(connection.state), guarded=True)
    driver.front.more["state"] = {"user": 7}
    driver.connect()
    assert seen == [{"user": 7}]
    assert driver.only.state == {"user": 7}


def test_the_front_learns_of_an_expiry_before_on_connect(drive: Drive) -> None:
    order: list[Any] = []
    driver = drive(on_connect=lambda connection: order.append(connection), guarded=True)
    driver.front.expires = lambda connection, at: order.append((connection, at))  # type: ignore[method-assign]
    driver.front.more["expires_at"] = 1234.5
    driver.connect()
    assert order == [(driver.only, 1234.5), driver.only]


def test_an_expired_connection_is_closed_with_1008(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    driver.engine.expire(connection)
    driver.until(lambda: peer.closed_with)
    assert peer.closed_with == (1008, "expired")
    assert not connection.is_open
    driver.engine.expire(connection)
    peer.say(pack_close(1008))
    driver.ended(peer)
    assert driver.named("on_close") == [Close(1008, "expired", Cause.EXPIRED, True)]
    assert driver.count("closes_expired") == 1
    driver.engine.expire(connection)


@pytest.mark.parametrize("address", [("203.0.113.7", 4711), ("2001:db8::1", 0), "unix", "/run/proxy.sock"])
def test_the_address_of_an_upgrade_takes_the_place_of_the_sockets(drive: Drive, address: Any) -> None:
    driver = drive(guarded=True)
    driver.front.more["remote_address"] = address
    peer = driver.connect()
    connection = driver.only
    assert connection.remote_address == address
    peer.close()
    driver.until(lambda: driver.named("on_close"))
    assert connection.remote_address == address
