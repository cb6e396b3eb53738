"""Clients that talk all the time and come back when they are cut: a process of its own, with one loop for all of them.

    python -m tests.chaos.talkers PORT CLIENTS INTERVAL_S

Each sends a numbered message every INTERVAL_S seconds, whatever is unanswered, and compares every answer with what has to come
next. A line on stdin is answered by a line of JSON; the end of stdin ends it.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections import Counter

from tests.peer import BINARY, CLOSE, pack, request

ANSWER = struct.Struct("!BBII")
"""The head of a short binary frame; which client, and which of its messages."""
TICK_S = 0.01
ANSWERED_IN_S = 20.0
"""A message without an answer for so long is lost, though its connection lives."""


class Talker:
    """One client. sent, answered: messages of its connection.  since: when the oldest unanswered one was sent."""

    __slots__ = ("answered", "buffer", "is_upgraded", "number", "place", "sent", "since", "sock")

    def __init__(self, place: int, number: int) -> None:
        self.place, self.number = place, number
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.buffer = b""
        self.is_upgraded = False
        self.sent = self.answered = 0
        self.since: list[float] = []


class Crowd:
    """All of them. counts: what has happened to them since the last question."""

    def __init__(self, port: int, size: int, interval_s: float) -> None:
        self.port, self.interval_s = port, interval_s
        self.epoll = select.epoll()
        self.talkers: dict[int, Talker] = {}
        self.counts: Counter[str] = Counter()
        self.first = ""
        self.longest_s = 0.0
        self.turn = 0.0
        self.numbers = iter(range(1, 1 << 31))
        self.order: list[Talker] = []
        for place in range(size):
            self.order.append(self.connect(place))

    def connect(self, place: int) -> Talker:
        talker = Talker(place, next(self.numbers))
        sock = talker.sock
        self.talkers[sock.fileno()] = talker
        failed = sock.connect_ex(("127.0.0.1", self.port))
        if failed not in (0, errno.EINPROGRESS):
            self.note("refused", talker, os.strerror(failed))
        self.epoll.register(sock, select.EPOLLOUT)
        return talker

    def note(self, what: str, talker: Talker, why: str = "") -> None:
        self.counts[what] += 1
        if not self.first and what not in ("cut", "unfinished"):
            self.first = f"{what}: client {talker.number}, {talker.answered} of {talker.sent} answered; {why}"

    def again(self, talker: Talker, what: str, why: str = "") -> None:
        """Its connection is over: another takes its place."""
        self.note(what, talker, why)
        del self.talkers[talker.sock.fileno()]
        talker.sock.close()
        self.order[talker.place] = self.connect(talker.place)

    def run(self) -> None:
        self.epoll.register(sys.stdin, select.EPOLLIN)
        due = time.monotonic()
        while True:
            for fd, events in self.epoll.poll(max(0.0, due - time.monotonic()), 512):
                if fd == sys.stdin.fileno():
                    if not os.read(fd, 1024):
                        return
                    print(json.dumps(self.told()), flush=True)
                elif (talker := self.talkers.get(fd)) is not None:
                    self.handle(talker, events)
            if time.monotonic() >= due:
                due = max(due + TICK_S, time.monotonic() - 1.0)
                self.speak()

    def handle(self, talker: Talker, events: int) -> None:
        try:
            if not talker.is_upgraded and events & select.EPOLLOUT:
                talker.sock.send(request())
                self.epoll.modify(talker.sock, select.EPOLLIN)
                return
            data = talker.sock.recv(65536)
        except BlockingIOError:
            return
        except ConnectionRefusedError as error:
            self.again(talker, "refused", str(error))
            return
        except OSError as error:
            self.again(talker, "cut" if talker.is_upgraded else "unfinished", str(error))
            return
        if not data:
            self.again(talker, "cut" if talker.is_upgraded else "unfinished", "end of file")
            return
        talker.buffer += data
        self.hear(talker)

    def hear(self, talker: Talker) -> None:
        if not talker.is_upgraded:
            head, found, rest = talker.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.again(talker, "turned_away", head[:40].decode("latin-1"))
                return
            talker.buffer, talker.is_upgraded = rest, True
            self.counts["opened"] += 1
        while len(talker.buffer) >= ANSWER.size:
            frame, talker.buffer = talker.buffer[: ANSWER.size], talker.buffer[ANSWER.size :]
            if frame[0] == 0x80 | CLOSE:
                self.again(talker, "closed", frame.hex())
                return
            first, size, number, sequence = ANSWER.unpack(frame)
            if (first, size, number) != (0x80 | BINARY, 8, talker.number):
                self.again(talker, "altered", frame.hex())
                return
            self.judge(talker, sequence)

    def judge(self, talker: Talker, sequence: int) -> None:
        if sequence == talker.answered:
            talker.answered += 1
            self.counts["answered"] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - talker.since.pop(0))
        else:
            self.note("lost" if sequence > talker.answered else "doubled", talker, f"got {sequence}")

    def speak(self) -> None:
        """Those whose turn it is say something."""
        size = len(self.order)
        before, self.turn = self.turn, self.turn + size * TICK_S / self.interval_s
        for place in range(int(before), int(self.turn)):
            talker = self.order[place % size]
            if talker.is_upgraded:
                message = pack(BINARY, struct.pack("!II", talker.number, talker.sent))
                try:
                    talker.sock.send(message)
                except OSError as error:  # a buffer is never full of ten bytes a second
                    self.again(talker, "cut", str(error))
                    continue
                talker.sent += 1
                talker.since.append(time.monotonic())
                if talker.since[0] < time.monotonic() - ANSWERED_IN_S:
                    self.again(talker, "lost", "no answer")

    def told(self) -> dict[str, object]:
        counts, self.counts = self.counts, Counter()
        longest_s, self.longest_s = self.longest_s, 0.0
        up = sum(talker.is_upgraded for talker in self.order)
        unanswered = sum(talker.sent - talker.answered for talker in self.order)
        return {**counts, "up": up, "unanswered": unanswered, "longest_s": longest_s, "first": self.first}


if __name__ == "__main__":
    Crowd(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])).run()
