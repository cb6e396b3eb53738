"""permessage-deflate as an engine does it: on both sides, in every state."""

from __future__ import annotations

import gc
import json
import os
import sys
import zlib
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import BINARY, CONTINUATION, PING, TEXT, Peer, pack, pack_close, parse, request
from unlimitedws.wire.closing import Cause, Close
from unlimitedws.wire.deflate import Compressor, Context, Policy, Terms, most_packed

Drive = Callable[..., Driver]

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
RSV1 = 4  # as `pack` counts it
TAIL = b"\x00\x00\xff\xff"
LONG = json.dumps([{"id": number, "name": f"user {number}"} for number in range(200)])


class Deflated:
    """A client with permessage-deflate, by nothing but zlib. `frames` has (compressed, message) of each."""

    def __init__(self, peer: Peer, *, takeover: bool = False, bits: int = 12) -> None:
        self.peer = peer
        self.takeover = takeover
        self.bits = bits
        self.frames: list[tuple[bool, bytes]] = []
        self._inflate = zlib.decompressobj(-bits)
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, -bits)
        peer.is_upgraded = False  # what follows is read here
        peer.received = b""

    def pack(self, opcode: int, message: bytes, *, fin: bool = True) -> bytes:
        return pack(opcode, self.compress(message), rsv=RSV1, fin=fin)

    def compress(self, message: bytes) -> bytes:
        if not self.takeover:
            self._deflate = zlib.compressobj(6, zlib.DEFLATED, -self.bits)
        return (self._deflate.compress(message) + self._deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def read(self) -> list[tuple[bool, bytes]]:
        while len(self.peer.received) > 1 and (found := parse(self.peer.received)):
            compressed = bool(self.peer.received[0] & 0x40)
            frame, self.peer.received = found
            self.frames.append((compressed, self.inflate(frame.payload) if compressed else frame.payload))
        return self.frames

    def inflate(self, payload: bytes) -> bytes:
        if not self.takeover:
            self._inflate = zlib.decompressobj(-self.bits)
        return self._inflate.decompress(payload + TAIL)


def echo(connection: Any, message: Any) -> None:
    connection.send(message)


def start(drive: Drive, *, policy: Policy | None = None, **given: Any) -> Driver:
    driver = drive(guarded=True, **given)
    driver.front.deflate = policy or Policy()
    return driver


def connect(driver: Driver, offer: str = OFFER, **options: Any) -> Deflated:
    peer = driver.connect("/", offer)
    assert b"permessage-deflate" in peer.head
    return Deflated(peer, **options)


def closed_with(driver: Driver, client: Deflated) -> int:
    driver.until(lambda: client.read() and client.frames[-1][1][:1] == b"\x03")
    return int.from_bytes(client.frames[-1][1][:2], "big")


def test_a_compressed_message_comes_as_the_app_expects_it(drive: Drive) -> None:
    driver = start(drive)
    client = connect(driver)
    client.peer.say(client.pack(TEXT, "déjà vu ".encode() * 50) + client.pack(BINARY, b"\xff" * 500) + client.pack(TEXT, b""))
    driver.until(lambda: len(driver.named("on_message")) == 3)
    assert driver.named("on_message") == ["déjà vu " * 50, b"\xff" * 500, ""]
    assert driver.count("messages_in") == 3


def test_plain_and_compressed_messages_may_be_mixed(drive: Drive) -> None:
    driver = start(drive)
    client = connect(driver)
    client.peer.say(pack(TEXT, b"one") + client.pack(TEXT, b"two") + pack(PING, b"?") + pack(TEXT, b"three"))
    driver.until(lambda: driver.named("on_message") == ["one", "two", "three"])


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_a_compressed_message_in_fragments_with_a_ping_between(drive: Drive, size: int) -> None:
    driver = start(drive)
    client = connect(driver)
    payload = client.compress(LONG.encode())
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)]
    stream = pack(TEXT, pieces[0], rsv=RSV1, fin=False) + pack(PING, b"?")
    stream += b"".join(pack(CONTINUATION, piece, fin=False) for piece in pieces[1:]) + pack(CONTINUATION)
    client.peer.say(stream + pack(TEXT, b"next"))
    driver.until(lambda: driver.named("on_message") == [LONG, "next"])


def test_everything_byte_by_byte(drive: Drive) -> None:
    driver = start(drive)
    client = connect(driver)
    stream = client.pack(TEXT, b"hello " * 30) + pack(TEXT, b"plain") + client.pack(BINARY, b"\0" * 300)
    for byte in stream:
        client.peer.say(bytes((byte,)))
        driver.turn()
    driver.until(lambda: driver.named("on_message") == ["hello " * 30, "plain", b"\0" * 300])


def test_long_messages_are_sent_compressed_and_short_ones_as_they_are(drive: Drive) -> None:
    driver = start(drive, deflate_threshold_bytes=100)
    client = connect(driver)
    for message in ("x" * 99, "x" * 100, LONG, LONG.encode()):
        driver.only.send(message)
    driver.until(lambda: len(client.read()) == 4)
    assert client.frames == [(False, b"x" * 99), (True, b"x" * 100), (True, LONG.encode()), (True, LONG.encode())]
    assert driver.count("bytes_out") < 4000


def test_what_compression_would_make_larger_is_sent_as_it_is(drive: Drive) -> None:
    driver = start(drive, deflate_threshold_bytes=0)
    client = connect(driver)
    noise = os.urandom(5000)
    for message in (noise, b"", b"a", noise):
        driver.only.send(message)
    driver.until(lambda: len(client.read()) == 4)
    assert client.frames == [(False, noise), (False, b""), (False, b"a"), (False, noise)]


def test_each_message_stands_by_itself_for_every_client(drive: Drive) -> None:
    driver = start(drive, on_message=echo)
    clients = [connect(driver) for _ in range(3)]
    for turn in range(4):
        for client in clients:
            client.peer.say(client.pack(TEXT, (LONG + str(turn)).encode()))
        for client in clients:
            driver.until(lambda client=client, turn=turn: len(client.read()) == turn + 1)
    for client in clients:
        assert client.frames == [(True, (LONG + str(turn)).encode()) for turn in range(4)]


def test_a_client_without_deflate_gets_plain_messages_beside_others(drive: Drive) -> None:
    driver = start(drive, on_message=echo)
    client, plain = connect(driver), driver.connect()
    assert b"Extensions" not in plain.head
    client.peer.say(client.pack(TEXT, LONG.encode()))
    plain.text(LONG)
    driver.until(lambda: client.read() and plain.messages)
    assert (client.frames, plain.messages) == ([(True, LONG.encode())], [LONG])


def test_a_broadcast_reaches_everyone_as_he_agreed(drive: Drive) -> None:
    driver = start(drive, policy=Policy(15))
    small = connect(driver, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9", bits=9)
    large = [connect(driver, bits=15) for _ in range(3)]
    plain = driver.connect()
    assert driver.engine.broadcast(LONG) == 5
    driver.until(lambda: small.read() and all(client.read() for client in large) and plain.messages)
    assert small.frames == [(True, LONG.encode())]
    assert [client.frames for client in large] == [[(True, LONG.encode())]] * 3
    assert plain.messages == [LONG]


def test_a_send_from_another_thread_is_compressed(drive: Drive) -> None:
    driver = start(drive)
    client = connect(driver)
    connection = driver.only
    threads = [Thread(target=connection.send, args=(LONG,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    driver.until(lambda: len(client.read()) == 4)
    assert client.frames == [(True, LONG.encode())] * 4


def test_what_waits_is_counted_compressed(drive: Drive) -> None:
    driver = start(drive, queue_bytes=300_000)
    client = connect(driver)
    connection = driver.only
    results = [connection.send("x" * 100_000) for _ in range(50)]  # 5 MB, of some 100 bytes each
    assert all(results)
    assert connection.queued_bytes < 50_000
    driver.until(lambda: len(client.read()) == 50)


# ---- what is wrong

WRONG = {
    "RSV1 on a continuation": (pack(TEXT, b"a", fin=False) + pack(CONTINUATION, b"b", rsv=RSV1), 1002),
    "RSV1 on a ping": (pack(PING, b"a", rsv=RSV1), 1002),
    "RSV1 on a close": (pack(0x8, b"\x03\xe8", rsv=RSV1), 1002),
    "RSV2": (pack(TEXT, b"a", rsv=2), 1002),
    "RSV1 and RSV3": (pack(TEXT, b"a", rsv=5), 1002),
    "no deflate stream": (pack(BINARY, b"\xff\xff\xff\xff", rsv=RSV1), 1007),
    "a stream that was cut": (pack(BINARY, zlib.compress(LONG.encode(), wbits=-15)[:-20], rsv=RSV1), 1007),
    "an empty payload": (pack(BINARY, b"", rsv=RSV1), 1007),
    "text that is not UTF-8": (pack(TEXT, zlib.compress(b"\xff" * 50, wbits=-15), rsv=RSV1), 1007),
    "text that ends inside a character": (pack(TEXT, zlib.compress("é".encode()[:1], wbits=-15), rsv=RSV1), 1007),
    "a bomb": (pack(BINARY, zlib.compress(bytes(10_000_000), wbits=-15), rsv=RSV1), 1009),
    "a byte too much": (pack(BINARY, zlib.compress(bytes(100_001), wbits=-15), rsv=RSV1), 1009),
    "too much while compressed": (pack(BINARY, announced=most_packed(100_000) + 1, rsv=RSV1), 1009),
    "too much in fragments": (pack(BINARY, b"x" * 60_000, rsv=RSV1, fin=False) + pack(CONTINUATION, b"x" * 60_000), 1009),
}

CAUSES = {1002: Cause.PROTOCOL_ERROR, 1007: Cause.INVALID_DATA, 1009: Cause.MESSAGE_TOO_BIG}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_answered_with_its_code(drive: Drive, what: str) -> None:
    driver = start(drive, message_bytes=100_000)
    client = connect(driver)
    said, code = WRONG[what]
    client.peer.socket.setblocking(True)
    client.peer.say(client.pack(TEXT, b"good") + said + pack(TEXT, b"unheard"))
    client.peer.socket.setblocking(False)
    assert closed_with(driver, client) == code
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_message") == ["good"]
    assert driver.named("on_close") == [Close(code, "", CAUSES[code], False)]


def test_rsv1_breaks_the_protocol_where_deflate_was_not_agreed(drive: Drive) -> None:
    driver = start(drive)
    peer = driver.connect()
    peer.say(pack(TEXT, zlib.compress(b"hello", wbits=-15), rsv=RSV1))
    driver.until(lambda: peer.closed_with)
    assert peer.closed_with == (1002, "")


def test_a_message_of_exactly_the_limit_comes(drive: Drive) -> None:
    driver = start(drive, message_bytes=100_000)
    client = connect(driver)
    client.peer.say(client.pack(BINARY, bytes(100_000)))
    driver.until(lambda: driver.named("on_message") == [bytes(100_000)])


def test_of_many_bombs_that_wait_none_is_inflated_before_its_turn(drive: Drive) -> None:
    held: list[Any] = []
    driver = start(drive, on_message=lambda connection, message: held.append((connection, message)), message_bytes=1 << 20)
    client = connect(driver)
    connection = driver.only
    driver.engine.hold(connection)
    client.peer.say(client.pack(BINARY, bytes(1 << 20)) * 30)
    driver.rest()
    assert held == []
    driver.engine.release(connection)
    driver.until(lambda: len(held) == 30)
    assert {len(message) for _, message in held} == {1 << 20}


def test_the_messages_of_a_closing_connection_are_thrown_away_unread(drive: Drive) -> None:
    driver = start(drive)
    client = connect(driver)
    driver.only.close(1000)
    client.peer.say(pack(BINARY, b"\xff\xff\xff", rsv=RSV1) + pack_close(1000))
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_close") == [Close(1000, "", Cause.APP_CLOSED, True)]
    assert driver.named("on_message") == []


# ---- takeover


def takeover(drive: Drive, **given: Any) -> tuple[Driver, Deflated]:
    driver = start(drive, policy=Policy(12, takeover=True), **given)
    client = connect(driver, takeover=True)
    assert b"no_context_takeover" not in client.peer.head
    return driver, client


def test_with_takeover_messages_refer_to_those_before_them(drive: Drive) -> None:
    driver, client = takeover(drive, on_message=echo)
    noise = os.urandom(2000)
    for turn in range(5):
        client.peer.say(client.pack(BINARY, noise))
        driver.until(lambda turn=turn: len(client.read()) == turn + 1)
    assert client.frames == [(True, noise)] * 5
    assert driver.count("bytes_out") < 3000
    assert driver.count("bytes_in") < 3000


def test_with_takeover_short_messages_do_not_disturb_the_window(drive: Drive) -> None:
    driver, client = takeover(drive, on_message=echo)
    messages = [LONG.encode(), b"short", LONG.encode()[::-1], b"", LONG.encode()]
    for message in messages:
        client.peer.say(client.pack(BINARY, message) if len(message) > 10 else pack(BINARY, message))
    driver.until(lambda: len(client.read()) == 5)
    assert [message for _, message in client.frames] == messages


def test_with_takeover_a_broadcast_goes_through_each_window(drive: Drive) -> None:
    driver = start(drive, policy=Policy(12, takeover=True))
    clients = [connect(driver, takeover=True) for _ in range(3)]
    driver.engine.connections()[0].send(LONG)
    for _ in range(3):
        driver.engine.broadcast(LONG)
    driver.until(lambda: sum(len(client.read()) for client in clients) == 10)
    assert all(frame == (True, LONG.encode()) for client in clients for frame in client.frames)


def test_with_takeover_a_dropped_message_leaves_no_gap(drive: Drive) -> None:
    driver = start(
        drive, policy=Policy(12, takeover=True), queue_policy="drop", sndbuf_bytes=4096, deflate_threshold_bytes=0,
        low_water_bytes=1000, high_water_bytes=10_000, queue_bytes=20_000,
    )  # fmt: skip
    peer = driver.dial(receive_bytes=4096)
    peer.say(request("/", OFFER))
    driver.until(lambda: peer.is_upgraded)
    client = Deflated(peer, takeover=True)
    connection = driver.only
    noise = [os.urandom(3000) for _ in range(60)]
    sent = []
    for message in noise:
        before = driver.count("messages_dropped")
        connection.send(message)
        driver.engine.tick()  # which tells of what was counted
        if driver.count("messages_dropped") == before:
            sent.append(message)
    assert driver.count("messages_dropped") > 5
    driver.until(lambda: len(client.read()) == len(sent))
    assert [message for _, message in client.frames] == sent


def test_with_takeover_a_bomb_ends_it_and_leaves_nothing(drive: Drive) -> None:
    driver, client = takeover(drive, message_bytes=10_000)
    client.peer.say(client.pack(BINARY, bytes(10_000)) + client.pack(BINARY, bytes(10_001)))
    assert closed_with(driver, client) == 1009
    assert driver.named("on_message") == [bytes(10_000)]


def test_takeover_on_one_side_only(drive: Drive) -> None:
    driver = start(drive, policy=Policy(12, takeover=True), on_message=echo)
    peer = driver.connect("/", f"{OFFER}; server_no_context_takeover")
    assert b"server_no_context_takeover" in peer.head
    assert b"client_no_context_takeover" not in peer.head
    theirs, ours = Context(Terms(12, 12, True, True), 6), Deflated(peer)
    for turn in range(3):
        peer.say(pack(BINARY, theirs.compress(LONG.encode()), rsv=RSV1))
        driver.until(lambda turn=turn: len(ours.read()) == turn + 1)
    assert ours.frames == [(True, LONG.encode())] * 3


def test_the_terms_of_the_shared_compressor_are_those_of_the_wire(drive: Drive) -> None:
    """What an engine sends is what `Compressor` packs: by itself, within the window."""
    driver = start(drive, policy=Policy(9))
    client = connect(driver, bits=9)
    driver.only.send(LONG)
    driver.until(lambda: client.read())
    assert client.frames == [(True, LONG.encode())]
    assert len(Compressor(9, 3).compress(LONG.encode())) < len(LONG) // 3


def test_an_idle_connection_with_it_costs_what_a_plain_one_does(drive: Drive) -> None:
    assert blocks_of_a_hundred(drive, OFFER) - blocks_of_a_hundred(drive) < 50


def blocks_of_a_hundred(drive: Drive, *offer: str) -> int:
    """Blocks of Python's allocator that a hundred connections more take, each at rest after one echo."""
    driver = start(drive, on_message=lambda connection, message: connection.send(message), deflate_threshold_bytes=0)
    payload = zlib.compress(LONG.encode(), wbits=-12)
    frame = pack(TEXT, payload, rsv=RSV1) if offer else pack(TEXT, LONG.encode())
    taken = []
    for _ in range(2):
        for _ in range(100):
            peer = driver.connect("/", *offer)
            peer.say(frame)
            driver.until(lambda peer=peer: peer.frames)
            peer.frames.clear()
        gc.collect()
        taken.append(sys.getallocatedblocks())
    assert driver.count("buffers_held") == 0
    assert driver.count("messages_out") == 200
    return taken[1] - taken[0]
