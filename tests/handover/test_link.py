"""One end of the socket between two workers."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from unlimitedws.handover import link as module
from unlimitedws.handover.link import Link, Publication


class End:
    """A link, and what it was told; `other` is the other end, played by the test."""

    def __init__(self) -> None:
        ours, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.heard: list[tuple[bytes, Any]] = []
        self.lost = asyncio.Event()
        self.link = Link(ours, lambda kind, payload, fds: self.heard.append((kind, payload)), self.lost.set)

    async def comes_to_an_end(self) -> None:
        await asyncio.wait_for(self.lost.wait(), 10)
        self.other.close()
        assert self.link.sock.fileno() == -1


def test_what_the_other_end_said_last_is_heard_though_nothing_can_be_sent() -> None:
    """It may be an acknowledgement: whoever went on with those connections would serve them twice."""

    async def story() -> None:
        end = End()
        end.other.send(b"A7")
        end.other.close()
        assert not end.link.send(b"P", Publication("news", None))
        await end.comes_to_an_end()
        assert end.heard == [(b"A", 7)]

    asyncio.run(story())


def test_packets_that_wait_keep_their_order_and_leave_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        end = End()
        before = len(os.listdir("/proc/self/fd"))
        sent = 0
        while not end.link.waiting:
            assert end.link.send(b"P", Publication(f"{sent}", None))
            sent += 1
        for number in range(sent):
            packet, fds, _, _ = await asyncio.to_thread(socket.recv_fds, end.other, 16, 10)
            assert packet == b"P"
            assert module.read(fds[0]).message == f"{number}"
        end.link.send(b"P", Publication("unread", None))
        end.link.close()
        assert module.read(socket.recv_fds(end.other, 16, 10)[1][0]).message == "unread"
        end.other.close()
        assert len(os.listdir("/proc/self/fd")) == before - 2

    asyncio.run(story())


def test_no_descriptor_left_for_a_publication_ends_the_link_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    def exhausted(*_: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def story() -> None:
        end = End()
        monkeypatch.setattr(module, "written", exhausted)
        assert not end.link.send(b"P", Publication("news", None))
        assert not end.link.send(b"E")
        await end.comes_to_an_end()

    asyncio.run(story())
    assert "Too many open files" in caplog.text
