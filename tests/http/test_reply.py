"""The writer of responses, where `test_exchange` does not reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import h11
import pytest

from tests.http.asking import plain, read
from tests.pipes import Pipe
from unlimitedws.http.files import READ_BYTES, File
from unlimitedws.http.reply import PeerGone, Reply, TooSlow, octets, pieces_of, pieces_of_file, slices
from unlimitedws.http.response import Response


async def inline(call: Any) -> Any:
    return call()


class Recording(Pipe):
    """A pipe that a reply writes to without a stream of its own."""

    def write(self, data: bytes) -> bool:
        self.written += data
        return not self.is_full


def reply_to(said: bytes, pipe: Pipe, timeout_s: float = 10.0) -> Reply:
    protocol = h11.Connection(h11.SERVER)
    protocol.receive_data(said)
    while protocol.their_state is not h11.DONE:
        protocol.next_event()
    return Reply(pipe, protocol, bodiless=said.startswith(b"HEAD"), timeout_s=timeout_s, run=inline)


async def three() -> AsyncGenerator[bytes, None]:
    for piece in (b"a", b"", b"b"):
        yield piece


def test_an_empty_piece_does_not_end_a_chunked_body() -> None:
    async def scene() -> None:
        pipe = Recording()
        await reply_to(plain(), pipe).stream(Response(b""), three(), size=None, closes=False)
        assert read(pipe.written).body == b"ab"

    asyncio.run(scene())


def test_whether_it_has_begun_and_how_much_was_sent_is_known() -> None:
    pipe = Recording()
    reply = reply_to(plain(), pipe)
    assert not reply.is_begun
    reply.whole(Response(b"abc"), b"abc", closes=False)
    assert (reply.is_begun, reply.sent) == (True, 3)


def test_waiting_for_a_peer_ends_with_the_peer_or_with_the_time() -> None:
    async def scene() -> None:
        pipe = Recording()
        pipe.is_full = True
        reply = reply_to(plain(), pipe)
        task = asyncio.ensure_future(reply.stream(Response(b""), three(), size=2, closes=False))
        await asyncio.sleep(0.01)
        reply.lost()
        with pytest.raises(PeerGone):
            await task
        with pytest.raises(TooSlow):
            await reply_to(plain(), pipe, timeout_s=0.01).stream(Response(b""), three(), size=2, closes=False)

    asyncio.run(scene())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_iterator_that_never_waits_lets_others_have_their_turn(kind: str) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"

    async def endless_later() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"x"

    async def scene() -> None:
        body = endless() if kind == "sync" else endless_later()
        reply = reply_to(plain(), Recording())
        task = asyncio.ensure_future(reply.stream(Response(b""), pieces_of(body, None), size=None, closes=False))
        for _ in range(3):
            await asyncio.sleep(0)  # would never come back
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())


def test_a_file_is_read_in_parts_and_only_as_far_as_asked(tmp_path: Path) -> None:
    content = bytes(range(256)) * (READ_BYTES // 128)
    (tmp_path / "a").write_bytes(content)

    async def scene() -> None:
        file = File(tmp_path / "a")
        pieces = [piece async for piece in pieces_of_file(file, 5, READ_BYTES + 7, inline)]
        assert [len(piece) for piece in pieces] == [READ_BYTES, 7]
        assert b"".join(pieces) == content[5 : READ_BYTES + 12]
        with pytest.raises(OSError, match="shorter"):
            [piece async for piece in pieces_of_file(file, 0, len(content) + 1, inline)]
        file.close()

    asyncio.run(scene())


def test_slices_are_the_whole() -> None:
    body = bytes(range(250)) * 1000
    parts = list(slices(body))
    assert b"".join(parts) == body
    assert max(map(len, parts)) == READ_BYTES


@pytest.mark.parametrize(("piece", "sent"), [(b"a", b"a"), ("é", "é".encode()), (bytearray(b"a"), b"a"), (memoryview(b"a"), b"a")])
def test_pieces_are_bytes_or_text(piece: Any, sent: bytes) -> None:
    assert octets(piece) == sent


def test_an_iterator_is_closed_when_its_reader_stops() -> None:
    closed: list[bool] = []

    def generator() -> Any:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    async def scene() -> None:
        pieces = pieces_of(generator(), None)
        assert await anext(pieces) == b"a"
        await pieces.aclose()

    asyncio.run(scene())
    assert closed == [True]
